"""When jobs that are kept behind their time go: after their endpoint's time, the oldest first when there is no room."""

from dataclasses import replace

import pytest

from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import EndpointId, Job, JobState
from runyard.domain.payload import Spilled
from runyard.domain.terms import DEFAULT_TERMS, JobTerms
from runyard.domain.tombstone import Tombstone
from runyard.services.forgetting import NAMED_S, Forgetting
from tests.builders import ENDPOINT, START, a_job_that_is
from tests.control_doubles import SetClock

BRIEF, GONE = EndpointId("endpoint-2"), EndpointId("endpoint-3")
DAY_S = 24 * 3600.0


class Terms:
    """Two endpoints, one of which keeps jobs for a minute."""

    def get(self, endpoint_id: EndpointId) -> object:
        if endpoint_id == GONE:
            raise NotFound("no such endpoint")
        return self

    def terms(self, endpoint_id: EndpointId) -> JobTerms:
        return replace(DEFAULT_TERMS, keep_s=60) if endpoint_id == BRIEF else DEFAULT_TERMS


class Ground:
    """A store, and what forgets in it. The disk lacks `lacking` bytes."""

    def __init__(self) -> None:
        self.store, self.clock, self.lacking, self.swept = MemoryJobs(), SetClock(), 0, 0
        self.clock.at = START + 1000
        self.forgetting = self.forgetter(bytes_max=1 << 30)

    def forgetter(self, bytes_max: int, tombstone_s: float = 2 * DAY_S) -> Forgetting:
        return Forgetting(
            self.store.archive,
            Terms(),
            self.clock,
            bytes_max=bytes_max,
            tombstone_s=tombstone_s,
            lacking=self.look,
            forgotten=self.sweep,
        )

    async def look(self) -> int:
        return self.lacking

    async def sweep(self) -> None:
        self.swept += 1

    async def away(self, id: str, endpoint_id: EndpointId = ENDPOINT, **changes: object) -> Job:
        """A job that expired just now."""
        output = changes.pop("output", b'"done"')
        job = a_job_that_is(JobState.COMPLETED, id=id, endpoint_id=endpoint_id, expires_at=self.clock.at, **changes)
        job = job._replace(output=output)  # type: ignore[arg-type]
        await self.store.add(job)
        assert [job] == await self.store.put_away([job], self.clock.at)
        return job

    async def left(self, *jobs: Job) -> list[str]:
        """`whole`, `stone` or `nothing` of each."""
        kinds = {Job: "whole", Tombstone: "stone", type(None): "nothing"}
        return [kinds[type(await self.store.find(job.endpoint_id, job.id))] for job in jobs]


@pytest.fixture
def ground() -> Ground:
    return Ground()


async def test_each_endpoint_keeps_jobs_for_its_own_time(ground: Ground) -> None:
    jobs = [await ground.away("a"), await ground.away("b", BRIEF)]

    for seconds, left in [
        (59.9, ["whole", "whole"]),
        (0.1, ["whole", "stone"]),
        (DEFAULT_TERMS.keep_s, ["stone", "nothing"]),
    ]:
        ground.clock.at += seconds
        await ground.forgetting.forget()
        assert left == await ground.left(*jobs)


async def test_of_an_endpoint_that_is_no_more_nothing_is_left(ground: Ground) -> None:
    job = await ground.away("a", GONE)
    await ground.forgetting.forget()

    assert ["nothing"] == await ground.left(job)


async def test_where_they_take_too_much_the_oldest_go_and_no_more_than_must(ground: Ground) -> None:
    jobs = [await ground.away(f"job-{number}", input=b"1" * 1000) for number in range(400)]
    used = await ground.store.archive.used_bytes()
    await ground.forgetter(bytes_max=used - 150_000).forget()

    left = await ground.left(*jobs)
    assert sorted(left, key=["stone", "whole"].index) == left
    assert 100 <= left.count("stone") <= 110
    assert 1 == ground.swept


async def test_one_large_result_makes_room_for_all_others(ground: Ground) -> None:
    [large, *others] = [await ground.away(f"job-{n}", output=Spilled("x", 0 if n else 5 << 30)) for n in range(9)]
    ground.lacking = 1 << 30
    await ground.forgetting.forget()

    assert ["stone"] == await ground.left(large)
    assert {"whole"} == set(await ground.left(*others))
    assert 1 == ground.swept


async def test_where_there_is_room_nothing_is_swept(ground: Ground) -> None:
    await ground.away("a")
    await ground.forgetting.forget()

    assert 0 == ground.swept


async def test_names_are_known_for_a_day_however_full_it_is(ground: Ground) -> None:
    named, unnamed = await ground.away("named", fingerprint=b"f" * 32), await ground.away("unnamed")
    ground.lacking = 1 << 30

    await ground.forgetting.forget()
    assert ["stone", "nothing"] == await ground.left(named, unnamed)
    ground.clock.at += NAMED_S - 1
    await ground.forgetting.forget()
    assert ["stone"] == await ground.left(named)
    ground.clock.at += 1
    await ground.forgetting.forget()
    assert ["nothing"] == await ground.left(named)


async def test_a_name_is_known_for_a_day_however_short_the_time_of_tombstones(ground: Ground) -> None:
    named, unnamed = await ground.away("named", BRIEF, fingerprint=b"f" * 32), await ground.away("unnamed", BRIEF)
    ground.clock.at += 60
    await ground.forgetting.forget()
    ground.clock.at += 3 * 3600
    await ground.forgetter(bytes_max=1 << 30, tombstone_s=1).forget()

    assert ["stone", "nothing"] == await ground.left(named, unnamed)


async def test_tombstones_go_after_their_time(ground: Ground) -> None:
    job = await ground.away("a", BRIEF)
    ground.clock.at += 60
    await ground.forgetting.forget()

    for seconds, left in [(2 * DAY_S - 1, "stone"), (1, "nothing")]:
        ground.clock.at += seconds
        await ground.forgetting.forget()
        assert [left] == await ground.left(job)


async def test_what_cannot_be_written_now_is_tried_again_later(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = await ground.away("a", BRIEF)
    ground.clock.at += 60

    async def refuse(*_: object) -> int:
        raise TooBusy("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ground.store.archive, "forget", refuse)
        await ground.forgetting.forget()
    assert ["jobs whose time is over stay for now: the disk is full"] == [r.getMessage() for r in caplog.records]

    await ground.forgetting.forget()
    assert ["stone"] == await ground.left(job)
