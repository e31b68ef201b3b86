import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.adapters.stores.logs import TRIM_LINES, SqliteLogs
from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, WorkerId
from runyard.ports.logs import Cursor, LogLine, LogQuery, LogStore
from runyard.services import kept_logs
from runyard.services.kept_logs import DAY_S, KeptLogs
from runyard.services.logs import Follower, Logs
from tests.control_doubles import SetClock

ENDPOINT = EndpointId("one")
ALL = LogQuery(endpoint_id=ENDPOINT)
LINES_MAX = 10


class YieldingClock(SetClock):
    """Lets others run while it sleeps."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0)


class BrokenStore(SqliteLogs):
    """Takes nothing while `broken`."""

    broken = False

    async def add(self, lines: Sequence[LogLine]) -> None:
        if self.broken:
            raise TooBusy("it is broken")
        await super().add(lines)


class Site:
    """One platform process after the other on one file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "logs.db"
        self.clock = YieldingClock()
        self.full = False
        self.endpoints = [ENDPOINT]

    async def start(self, *, lines_max: int = LINES_MAX) -> None:
        self.store = BrokenStore(self.path)
        self.logs = Logs(self.clock, lines_max=lines_max)
        self.kept = KeptLogs(
            self.store,
            self.logs,
            self.clock,
            keep_s=90 * DAY_S,
            bytes_max=1 << 30,
            endpoints=lambda: self.endpoints,
            is_full=lambda: self.full,
        )
        await self.kept.load()

    def say(self, *lines: str, worker: str = "w") -> None:
        for line in lines:
            self.logs.append(WorkerId(worker), ENDPOINT, line)

    async def read(self, query: LogQuery = ALL, **start: object) -> list[str]:
        with self.logs.follow(query, **start) as follower:  # type: ignore[arg-type]
            return await rest(follower)


async def trimmed(site: Site) -> None:
    while await site.kept.trim():
        pass


async def rest(follower: Follower) -> list[str]:
    found: list[str] = []
    while lines := await follower.read():
        found += [line.line for line in lines]
    return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.start()
    yield site
    await site.kept.close()


def numbers(*span: int) -> list[str]:
    return list(map(str, range(*span)))


async def test_what_memory_has_let_go_is_read_from_disk(site: Site) -> None:
    site.say(*numbers(100))

    assert numbers(100) == await site.read(tail=1000)
    assert numbers(85, 100) == await site.read(tail=15)
    assert numbers(100) == await site.read(after=Cursor(0, 0))


async def test_a_reader_that_memory_has_left_behind_goes_on_from_disk(site: Site) -> None:
    with site.logs.follow(ALL, tail=0) as follower:
        site.say(*numbers(3))
        assert numbers(3) == await rest(follower)
        site.say(*numbers(3, 100))
        assert numbers(3, 100) == await rest(follower)


async def test_lines_of_the_process_before_are_there_and_numbers_go_on(site: Site) -> None:
    site.say(*numbers(30), worker="old")
    await site.kept.close()
    await site.start()
    site.say("new")

    assert [*numbers(25, 30), "new"] == await site.read(tail=6)
    assert numbers(30) == await site.read(LogQuery(endpoint_id=ENDPOINT, worker_id=WorkerId("old")), since=0)
    assert await site.logs.knows(ENDPOINT, WorkerId("old"))
    assert not await site.logs.knows(ENDPOINT, WorkerId("none"))


async def test_while_the_disk_is_full_its_reserve_is_left_alone_and_what_waits_is_read(site: Site) -> None:
    site.full = True
    site.say(*numbers(50))

    assert numbers(50) == await site.read(tail=1000)
    assert await site.store.newest() is None

    site.full = False
    site.say("after")
    assert [*numbers(50), "after"] == await site.read(tail=1000)
    assert await site.store.newest() is not None


async def test_when_too_many_wait_the_oldest_are_given_up_and_a_line_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_logs, "WAITING_LINES_MAX", 20)
    site.store.broken = True
    site.say(*numbers(50))
    await site.read()
    site.store.broken = False

    gap = "[30 lines are missing here, since the disk did not take them]"
    assert [gap, *numbers(30, 50)] == await site.read(tail=1000)
    site.say("on")
    assert [gap, *numbers(30, 50), "on"] == await site.read(tail=1000)


async def test_lines_are_written_by_themselves_and_forgotten_in_time(site: Site) -> None:
    site.say(*numbers(5))
    loop = asyncio.create_task(site.kept.run())
    while await site.store.newest() is None:  # noqa: ASYNC110 - Nobody is told when lines are written.
        await asyncio.sleep(0)
    site.clock.at += 91 * DAY_S
    site.say("young")
    await trimmed(site)
    await site.kept.after(ALL, Cursor(0, 0), Cursor(0, 0), 1)

    assert ["young"] == [line.line for line in await site.store.last(ALL, Cursor(10**15, 0), 100)]
    site.endpoints = []
    await trimmed(site)
    assert await site.store.newest() is None
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_nothing_is_given_up_while_much_is_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_logs, "WAITING_LINES_MAX", 20)
    for begin in range(0, 5 * TRIM_LINES, 10):
        site.say(*numbers(begin, begin + 10))
        await site.kept.after(ALL, Cursor(0, 0), Cursor(0, 0), 1)
    site.clock.at += 91 * DAY_S
    told: list[str] = []

    async def sleep(seconds: float) -> None:
        if len(told) == 100:
            await asyncio.Event().wait()
        told.extend(f"new {len(told) + n}" for n in range(10))
        site.say(*told[-10:])

    monkeypatch.setattr(site.clock, "sleep", sleep)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(site.kept.run(), 1)

    assert told == await site.read(after=Cursor(0, 0))


@settings(deadline=None, max_examples=60)
@given(
    said=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 15)), max_size=12),
    place=st.integers(0, 100),
    tail=st.integers(0, 120),
    lines_max=st.integers(1, 12),
)
def test_every_reader_gets_every_line_once_and_in_order(
    said: list[tuple[str, int]], place: int, tail: int, lines_max: int
) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            site = Site(Path(folder))
            await site.start(lines_max=lines_max)
            everything: list[str] = []
            with site.logs.follow(ALL, tail=0) as follower:
                slow: list[str] = []
                for turn, (worker, count) in enumerate(said):
                    lines = [f"{worker}{turn}.{n}" for n in range(count)]
                    everything += lines
                    site.say(*lines, worker=worker)
                    site.clock.at += 0.001 * (turn % 2)
                    if turn % 3 == 0:
                        slow += [line.line for line in await follower.read()]
                assert everything == slow + await rest(follower)
            cursors = [Cursor(0, 0), *(line.cursor for line in await stored(site.store))]
            place_at = min(place, len(cursors) - 1)
            assert everything[place_at:] == await site.read(after=cursors[place_at])
            assert (everything[-tail:] if tail else []) == await site.read(tail=tail)
            await site.kept.close()

    asyncio.run(check())


async def stored(store: LogStore) -> list[LogLine]:
    return await store.last(ALL, Cursor(10**15, 0), 10_000)
