"""What every `LogStore` promises."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from runyard.adapters.stores.logs import LINE_OVERHEAD_BYTES, TRIM_LINES, SqliteLogs
from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.ports.logs import Cursor, LogLine, LogQuery, LogStore
from runyard.ports.runtime import LogSource

ONE, TWO = EndpointId("one"), EndpointId("two")
NOW = 1_800_000_000.0
BEGINNING, END = Cursor(0, 0), Cursor(10**15, 0)


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogStore]:
    store = SqliteLogs(tmp_path / "logs.db")
    yield store
    await store.close()


def a_line(seq: int, *, endpoint: str = ONE, worker: str = "w", job: str | None = None, **about: object) -> LogLine:
    line = LogLine(
        NOW + seq // 2,  # Two of each second.
        seq,
        LogSource.CONTAINER,
        f"line {seq}",
        WorkerId(worker),
        EndpointId(endpoint),
        None if job is None else JobId(job),
    )
    return line if not about else LogLine(**{**{name: getattr(line, name) for name in line.__slots__}, **about})  # type: ignore[arg-type]


def seqs(lines: Iterable[LogLine]) -> list[int]:
    return [line.seq for line in lines]


async def all_of(store: LogStore, endpoint: EndpointId = ONE, **query: object) -> list[LogLine]:
    return await store.after(LogQuery(endpoint_id=endpoint, **query), BEGINNING, END, 10_000)  # type: ignore[arg-type]


async def test_lines_come_back_as_they_were(store: LogStore) -> None:
    lines = [
        a_line(1, ts=NOW + 0.123),
        a_line(2, ts=NOW + 0.124, job="job", source=LogSource.SYSTEM, line="ünïcödé\x00\N{PILE OF POO}"),
    ]
    await store.add(lines)

    assert lines == await all_of(store)


async def test_they_are_found_from_a_place_on_and_up_to_one(store: LogStore) -> None:
    lines = [a_line(seq) for seq in range(1, 11)]
    await store.add(lines)
    query = LogQuery(endpoint_id=ONE)

    assert [4, 5, 6] == seqs(await store.after(query, lines[2].cursor, lines[5].cursor, 100))
    assert [4, 5] == seqs(await store.after(query, lines[2].cursor, lines[5].cursor, 2))
    assert [5, 6] == seqs(await store.last(query, lines[5].cursor, 2))
    assert [] == await store.after(query, lines[9].cursor, END, 100)
    assert [] == await store.last(query, BEGINNING, 100)


async def test_a_place_lies_between_lines_of_one_millisecond(store: LogStore) -> None:
    lines = [a_line(seq, ts=NOW) for seq in range(1, 4)]
    await store.add(lines)

    assert [2, 3] == seqs(await store.after(LogQuery(endpoint_id=ONE), lines[0].cursor, END, 100))


@pytest.mark.parametrize("worker", [None, "w", "v"])
@pytest.mark.parametrize("job", [None, "a", "b"])
@pytest.mark.parametrize("source", [None, LogSource.CONTAINER, LogSource.SYSTEM])
async def test_a_query_finds_what_matches_it(
    store: LogStore, worker: str | None, job: str | None, source: LogSource | None
) -> None:
    lines = [
        a_line(10 * m + 3 * n + k, worker=w, job=j, source=s, endpoint=e)
        for e, m in ((ONE, 1), (TWO, 5))
        for n, w in enumerate(("w", "v"))
        for j in (None, "a", "b")
        for k, s in enumerate(LogSource)
    ]
    lines.sort(key=lambda line: line.seq)
    await store.add(lines)
    query = LogQuery(
        endpoint_id=ONE,
        worker_id=None if worker is None else WorkerId(worker),
        job_id=None if job is None else JobId(job),
        source=source,
    )
    expected = [line for line in lines if line.endpoint_id == ONE and query.matches(line)]

    found = await store.after(query, BEGINNING, END, 100)
    last = await store.last(query, END, 100)

    assert set(expected) == set(found) == set(last)
    assert len(expected) == len(found) == len(last)


async def test_the_newest_is_known_again_after_a_restart(tmp_path: Path) -> None:
    first = SqliteLogs(tmp_path / "logs.db")
    assert await first.newest() is None
    await first.add([a_line(1), a_line(2, endpoint=TWO)])
    await first.close()

    second = SqliteLogs(tmp_path / "logs.db")
    assert a_line(2).cursor == await second.newest()
    assert [1] == seqs(await all_of(second))
    await second.close()


async def trimmed(
    store: LogStore, *, endpoints: tuple[EndpointId, ...] = (ONE, TWO), before: float = 0, bytes_max: int = 1 << 40
) -> int:
    """Forget all that is to be forgotten; how often it took."""
    trims = 1
    while await store.trim(endpoints=endpoints, before=before, bytes_max=bytes_max):
        trims += 1
    return trims


async def test_deleted_endpoints_are_forgotten_a_few_lines_at_a_time(store: LogStore) -> None:
    await store.add([a_line(seq, endpoint=ONE if seq % 2 else TWO) for seq in range(1, 4 * TRIM_LINES + 100)])

    assert 3 <= await trimmed(store, endpoints=(TWO,))
    assert [] == await all_of(store)
    assert 2 * TRIM_LINES < len(await all_of(store, TWO))
    await trimmed(store, endpoints=())
    assert await store.newest() is None


async def test_what_is_counted_is_what_is_there_whatever_lines_hold(store: LogStore) -> None:
    odd = ["", "nul \0 within", "ünïcödé", "\N{PILE OF POO}" * 100]
    for turn in range(20):
        await store.add([a_line(turn * 10 + n, line=line, ts=NOW + turn) for n, line in enumerate(odd)])
        await trimmed(store, before=NOW + turn + 1)
    await store.add([a_line(1000)])

    assert 1 == await trimmed(store, bytes_max=LINE_OVERHEAD_BYTES + 20)
    assert [1000] == seqs(await all_of(store))


async def test_old_lines_go_a_few_at_a_time(store: LogStore) -> None:
    lines = [a_line(seq) for seq in range(1, 2 * TRIM_LINES)]
    await store.add(lines)
    place = lines[TRIM_LINES + 10]

    assert 2 == await trimmed(store, before=place.ts)
    assert place.ts == (await all_of(store))[0].ts


async def test_over_its_budget_the_endpoint_with_the_most_loses_its_oldest(store: LogStore) -> None:
    loud, quiet = [a_line(seq, endpoint=ONE) for seq in range(1, 4 * TRIM_LINES)], [a_line(0, endpoint=TWO)]
    await store.add([*quiet, *loud])
    each = LINE_OVERHEAD_BYTES + len("line 1000")

    await trimmed(store, bytes_max=3 * TRIM_LINES * each)

    assert [0] == seqs(await all_of(store, TWO))
    left = seqs(await all_of(store))
    assert (TRIM_LINES + 1, 4 * TRIM_LINES - 1) == (left[0], left[-1])


async def test_what_was_forgotten_makes_room(store: LogStore) -> None:
    for begin in range(1, 5 * TRIM_LINES, TRIM_LINES):
        await store.add([a_line(seq) for seq in range(begin, begin + TRIM_LINES)])
        await trimmed(store, bytes_max=TRIM_LINES * 300)

    assert TRIM_LINES <= len(await all_of(store)) <= 2 * TRIM_LINES


async def test_a_disk_that_takes_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteLogs(tmp_path / "logs.db")
    connection = store._tables._connection
    connection.execute("pragma max_page_count = 20")
    with pytest.raises(TooBusy, match="free disk space"):
        await store.add([a_line(seq, line="x" * 10_000) for seq in range(100)])

    connection.execute("pragma max_page_count = 100000")
    await store.add([a_line(1)])
    assert [1] == seqs(await all_of(store))
    await store.close()
