"""Inputs on their way in: a job names what is kept, and what no job names does not stay."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.errors import Conflict, NotFound, TooBusy
from runyard.domain.job import Job, JobId
from runyard.domain.payload import Spilled
from runyard.services import inputs as service
from runyard.services.inputs import Inputs
from runyard.services.spill import Carried, Spills
from tests.builders import ENDPOINT, a_job
from tests.control_doubles import SetClock
from tests.payload_kit import MemoryDraft, MemoryPayloads, MemoryReading, keep

INPUT = bytes(range(256)) * 10


class Scene:
    def __init__(self) -> None:
        self.payloads, self.store = MemoryPayloads(), MemoryJobs()
        clock = SetClock()
        self.spills = Spills(self.payloads, self.store, clock, Carried(0))
        self.inputs = Inputs(self.spills, self.store, LocalSignals(), clock, inline_bytes_max=100)

    async def store_job(self, job: Job) -> Job:
        await self.store.add(job)
        return job

    async def spill(self, id: str = "a", store: Callable[[Job], Awaitable[Job]] | None = None) -> Job:
        return await self.inputs.spill(a_job(id, input=INPUT), store or self.store_job)

    @property
    def left(self) -> int:
        return self.payloads.drafts + len(self.payloads.held)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_an_input_is_kept_in_pieces_before_its_job_is_stored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PIECE_BYTES", 1000)
    job = await scene.spill()

    assert job == await scene.store.get(ENDPOINT, JobId("a"))
    assert isinstance(job.input, Spilled)
    assert INPUT == await scene.spills.load(job.input)


async def test_it_is_not_swept_away_while_its_job_is_being_stored(scene: Scene) -> None:
    async def slowly(job: Job) -> Job:
        await scene.spills.sweep()
        return await scene.store_job(job)

    job = await scene.spill(store=slowly)
    await scene.spills.sweep()

    assert isinstance(job.input, Spilled)
    assert INPUT == await scene.spills.load(job.input)


@pytest.mark.parametrize("error", [Conflict("it is there"), TooBusy("full")])
async def test_a_job_that_is_not_stored_leaves_nothing(scene: Scene, error: Exception) -> None:
    async def refuses(job: Job) -> Job:
        raise error

    with pytest.raises(type(error)):
        await scene.spill(store=refuses)
    assert 0 == scene.left


async def test_what_the_job_of_that_name_has_stays(scene: Scene) -> None:
    job = await scene.spill()
    with pytest.raises(Conflict):
        await scene.spill()

    assert isinstance(job.input, Spilled)
    assert [job.input.ref] == list(scene.payloads.held)


async def test_where_nobody_knows_whether_a_job_is_stored_its_input_is_left_to_the_sweep(scene: Scene) -> None:
    async def breaks(job: Job) -> Job:
        await scene.store_job(job)
        raise asyncio.CancelledError

    async def breaks_before(job: Job) -> Job:
        raise asyncio.CancelledError

    for id, store in (("a", breaks), ("b", breaks_before)):
        with pytest.raises(asyncio.CancelledError):
            await scene.spill(id, store)
    await scene.spills.sweep()

    assert [JobId("a")] == [kept.job_id for kept, _ in scene.payloads.held.values()]


async def test_a_job_that_was_stored_though_an_error_came_keeps_its_input(scene: Scene) -> None:
    async def stores_and_fails(job: Job) -> Job:
        await scene.store_job(job)
        raise TooBusy("somebody else's fault")

    with pytest.raises(TooBusy):
        await scene.spill(store=stores_and_fails)
    assert 1 == scene.left


@pytest.mark.parametrize("when", ["write", "keep"])
async def test_without_room_nothing_is_stored_and_nothing_left(scene: Scene, when: str) -> None:
    scene.payloads.room = 10 if when == "write" else 1 << 20
    scene.payloads.away = when == "keep"
    with pytest.raises(TooBusy):
        await scene.spill()

    assert 0 == scene.left
    assert None is await scene.store.get(ENDPOINT, JobId("a"))


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TooBusy("away")])
async def test_why_an_input_is_refused_is_said_though_the_rest_of_it_cannot_be_removed(
    scene: Scene, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(draft: MemoryDraft) -> None:
        raise error

    monkeypatch.setattr(MemoryDraft, "drop", fails)
    scene.payloads.room = 10
    with pytest.raises(TooBusy, match="there is no room"):
        await scene.spill()

    assert f"for job a and is not wanted could not be removed: {error}" in caplog.text


class ShortPayloads(MemoryPayloads):
    """Something has cut them."""

    async def open(self, payload: Spilled) -> MemoryReading:
        return MemoryReading(self.load(payload)[:9])


async def test_a_payload_that_is_read_short_is_not_taken_for_whole(scene: Scene) -> None:
    payloads = ShortPayloads()
    payload = await keep(payloads, INPUT)

    with pytest.raises(NotFound, match="2560 bytes, payload-1, is not whole any more: 9 are left"):
        await Spills(payloads, scene.store, SetClock(), Carried(0)).load(payload)
