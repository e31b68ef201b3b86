"""Jobs whose inputs are spilled, on their way to workers: they come with their input, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import Job, JobId, JobState
from runyard.domain.payload import Spilled
from runyard.services import inputs, topics
from runyard.services.dispatch import Dispatch
from runyard.services.jobs import Jobs, Request
from runyard.services.roster import LiveWorker, Roster
from tests.builders import ENDPOINT, a_worker, an_endpoint
from tests.control_doubles import CountingIds, SetClock
from tests.payload_kit import MemoryPayloads, MemoryReading, inputs_in

INLINE_BYTES_MAX = 100
LARGE = b"x" * (INLINE_BYTES_MAX + 1)


class Poll:
    """An open poll for jobs; `client` says whether its client is still there."""

    idle = True

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.client = True
        self.answer: dict[str, object] | None = None
        """The input of each job."""

    def give(self, jobs: Sequence[Job]) -> bool:
        if self.client:
            self.answer = {job.id: job.input for job in jobs}
        return self.client

    def end(self, *, soon: bool = False) -> None:
        self.answer = {}


class BrokenPayloads(MemoryPayloads):
    """Those of `broken` jobs raise `error` when they are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.error: Exception = OSError(5, "Input/output error")
        self.opened: list[str] = []

    async def open(self, payload: Spilled) -> MemoryReading:
        job_id = self.held[payload.ref][0].job_id if payload.ref in self.held else ""
        self.opened.append(job_id)
        if job_id in self.broken:
            raise self.error
        return await super().open(payload)


class HeldJobs(MemoryJobs):
    """While `saves` is not set, changes wait."""

    def __init__(self) -> None:
        super().__init__()
        self.saves = asyncio.Event()
        self.saves.set()

    async def save(self, job: Job, was: Job) -> bool:
        await self.saves.wait()
        return await super().save(job, was)


class Scene:
    """Clients and workers over memory adapters; `tasks` are under way."""

    def __init__(self) -> None:
        self.clock, self.signals, self.store, self.roster = SetClock(), LocalSignals(), HeldJobs(), Roster()
        self.payloads = BrokenPayloads()
        inputs = inputs_in(self.payloads, self.store, self.clock, inline_bytes_max=INLINE_BYTES_MAX)
        self.dispatch = Dispatch(self.store, self.roster, inputs, self.signals, self.clock)
        self.jobs = Jobs(self.store, self.dispatch, inputs, self.signals, self.clock, CountingIds())
        self.tasks: list[asyncio.Task[object]] = []

    async def queue(self, **jobs: bytes) -> None:
        for id, input in jobs.items():
            await self.jobs.submit(an_endpoint(), Request(input=input), JobId(id))

    def worker(self, id: str = "w1") -> LiveWorker:
        return self.roster.get(a_worker(id).id) or self.roster.add(a_worker(id))

    async def poll(self, id: str = "w1", *, limit: int = 1) -> Poll:
        poll = Poll(limit)
        await self.dispatch.poll(self.worker(id), poll)
        return poll

    async def meanwhile(self, *doing: object) -> None:
        """Begin these, and let them come as far as they do."""
        self.tasks += [asyncio.ensure_future(each) for each in doing]  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)

    async def at_last(self) -> None:
        """What was held up goes on, and is done."""
        self.payloads.opens.set()
        await asyncio.gather(*self.tasks)

    async def job(self, id: str) -> Job:
        job = await self.store.get(ENDPOINT, JobId(id))
        assert job is not None
        return job


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    for task in scene.tasks:
        assert task.done()


async def test_a_large_input_lies_elsewhere_while_its_job_waits_and_is_there_when_that_is_taken(scene: Scene) -> None:
    await scene.queue(a=LARGE)
    waiting = await scene.job("a")
    poll = await scene.poll()

    assert isinstance(waiting.input, Spilled)
    assert LARGE == scene.payloads.load(waiting.input)
    assert {"a": LARGE} == poll.answer
    assert waiting.input == (await scene.job("a")).input, "the store has it no more than before"


async def test_an_input_at_the_limit_is_no_large_one(scene: Scene) -> None:
    await scene.queue(a=LARGE[:-1])

    assert {} == scene.payloads.held
    assert LARGE[:-1] == (await scene.job("a")).input


async def test_a_parked_poll_gets_a_large_input_too_and_those_who_have_left_do_not(scene: Scene) -> None:
    await scene.poll("gone")
    here, gone = await scene.poll("here"), await scene.poll("gone")
    gone.client = False
    await scene.queue(a=LARGE)

    assert {"a": LARGE} == here.answer
    assert {} == scene.worker("gone").held
    assert 0 == (await scene.job("a")).attempts_lost


async def test_large_and_small_ones_of_a_batch_keep_their_order(scene: Scene) -> None:
    await scene.queue(a=b"1", b=LARGE, c=b"3")

    assert [("a", b"1"), ("b", LARGE), ("c", b"3")] == list(((await scene.poll(limit=9)).answer or {}).items())


async def test_an_answer_has_no_more_than_so_much_input_and_the_rest_goes_to_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LOADED_BYTES_MAX", 2 * len(LARGE))
    await scene.queue(a=LARGE, b=LARGE, c=LARGE, d=b"4", e=LARGE * 3)
    scene.payloads.opens.clear()
    await scene.meanwhile(scene.poll("first", limit=9))
    others = [await scene.poll(id, limit=9) for id in ("second", "third")]
    await scene.at_last()

    assert {"a", "b"} == scene.worker("first").held.keys()
    assert [{"c": LARGE, "d": b"4"}, {"e": LARGE * 3}] == [poll.answer for poll in reversed(others)]


async def test_a_job_whose_input_is_gone_fails_and_says_where_it_was_and_the_next_is_taken(scene: Scene) -> None:
    ended: list[str] = []
    scene.signals.subscribe("a", lambda: ended.append("a"))
    await scene.queue(a=LARGE, b=b"2")
    [(kept, _)] = scene.payloads.held.values()
    scene.payloads.held.clear()
    poll = await scene.poll()
    job = await scene.job("a")

    assert (JobState.FAILED, f"the job's input is lost: {kept.ref} is not there") == (job.state, job.error)
    assert {"b": b"2"} == poll.answer
    assert ["a"] == ended
    assert {"b"} == scene.worker().held.keys()


async def test_a_parked_poll_stays_parked_where_an_input_is_gone(scene: Scene) -> None:
    poll = await scene.poll()
    scene.payloads.broken, scene.payloads.error = {"a"}, NotFound("it is not there")
    await scene.queue(a=LARGE)
    assert (JobState.FAILED, None) == ((await scene.job("a")).state, poll.answer)
    await scene.queue(b=b"2")

    assert {"b": b"2"} == poll.answer


async def test_a_lost_input_that_is_back_can_be_retried(scene: Scene) -> None:
    await scene.queue(a=LARGE)
    held = dict(scene.payloads.held)
    scene.payloads.held.clear()
    poll = await scene.poll()
    scene.payloads.held |= held
    await scene.jobs.retry(ENDPOINT, JobId("a"))

    assert {"a": LARGE} == poll.answer


@pytest.mark.parametrize("error", [TooBusy("not now"), OSError(5, "Input/output error")])
async def test_jobs_whose_inputs_cannot_be_read_now_wait_in_their_order_and_so_does_the_poll(
    scene: Scene, error: Exception
) -> None:
    scene.payloads.broken, scene.payloads.error = {"b", "d"}, error
    await scene.queue(a=b"1", b=LARGE, c=b"3", d=LARGE, e=LARGE)

    assert {"a": b"1", "c": b"3"} == (await scene.poll("w1", limit=4)).answer
    assert ["b"] == scene.payloads.opened, "who fails once is not asked for the next"
    waits = await scene.poll("w2", limit=1)
    assert None is waits.answer
    assert ["b", "b"] == scene.payloads.opened, "it is tried once, not again and again"
    scene.payloads.broken = set()
    jobs = [await scene.job(id) for id in "bde"]
    assert {(JobState.IN_QUEUE, 0, ())} == {(job.state, job.attempts_lost, job.attempts) for job in jobs}
    assert ["b", "d", "e"] == list((await scene.poll("w3", limit=9)).answer or {})


async def test_a_poll_that_could_not_be_answered_gets_the_next_small_job(scene: Scene) -> None:
    scene.payloads.broken = {"a"}
    poll = await scene.poll()
    await scene.queue(a=LARGE)
    assert None is poll.answer
    await scene.queue(b=b"2")

    assert {"b": b"2"} == poll.answer


async def test_while_inputs_cannot_be_read_a_submit_asks_one_poll_and_not_all(scene: Scene) -> None:
    for number in range(5):
        await scene.poll(f"w{number}")
    scene.payloads.broken = {"a"}
    await scene.queue(a=LARGE)

    assert ["a"] == scene.payloads.opened


# What happens while an input is loaded


async def loading(scene: Scene, *, parked: bool) -> Poll:
    """A poll that is to have a job as soon as its input is there."""
    scene.payloads.opens.clear()
    poll = Poll()
    if parked:
        await scene.dispatch.poll(scene.worker(), poll)
        await scene.meanwhile(scene.queue(a=LARGE))
    else:
        await scene.queue(a=LARGE)
        await scene.meanwhile(scene.dispatch.poll(scene.worker(), poll))
    assert JobState.IN_PROGRESS is (await scene.job("a")).state
    assert None is poll.answer
    return poll


BOTH = pytest.mark.parametrize("parked", [False, True])


@BOTH
async def test_a_client_that_leaves_meanwhile_has_no_job_and_one_that_parked_meanwhile_gets_it(
    scene: Scene, *, parked: bool
) -> None:
    poll = await loading(scene, parked=parked)
    other = await scene.poll("other")
    poll.client = False
    assert parked == scene.dispatch.leave(scene.worker(), poll)
    await scene.at_last()

    assert (None, {"a": LARGE}) == (poll.answer, other.answer)
    assert {} == scene.worker().held
    assert 0 == (await scene.job("a")).attempts_lost


@BOTH
async def test_a_job_that_is_cancelled_meanwhile_is_not_handed_over(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    await scene.jobs.cancel(ENDPOINT, JobId("a"))
    await scene.at_last()
    assert None is poll.answer
    await scene.queue(b=b"2")

    assert JobState.CANCELLED is (await scene.job("a")).state
    assert {"b": b"2"} == poll.answer, "it is parked"


@BOTH
async def test_a_job_that_is_to_live_longer_meanwhile_is_handed_over(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    await scene.jobs.expire_in(ENDPOINT, JobId("a"), 99.0)
    await scene.at_last()

    assert {"a": LARGE} == poll.answer
    assert scene.clock.at + 99 == (await scene.job("a")).expires_at


@BOTH
async def test_a_job_that_is_to_live_longer_meanwhile_is_given_back_all_the_same(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    await scene.jobs.expire_in(ENDPOINT, JobId("a"), 99.0)
    poll.client = False
    await scene.at_last()

    assert JobState.IN_QUEUE is (await scene.job("a")).state


@BOTH
async def test_a_job_that_is_to_live_longer_waits_on_where_its_input_cannot_be_read(
    scene: Scene, *, parked: bool
) -> None:
    await loading(scene, parked=parked)
    await scene.jobs.expire_in(ENDPOINT, JobId("a"), 99.0)
    scene.payloads.away = True
    await scene.at_last()

    assert JobState.IN_QUEUE is (await scene.job("a")).state


@BOTH
async def test_a_worker_that_drains_meanwhile_gets_nothing(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    live = scene.worker()
    live.worker = live.worker.drain("scaled down")
    scene.dispatch.release_polls(live)
    await scene.at_last()

    assert {} == poll.answer
    assert JobState.IN_QUEUE is (await scene.job("a")).state


@BOTH
async def test_a_worker_that_drains_while_its_input_cannot_be_read_does_not_wait(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    live = scene.worker()
    live.worker = live.worker.drain("scaled down")
    scene.dispatch.release_polls(live)
    scene.payloads.away = True
    await scene.at_last()

    assert {} == poll.answer
    assert not scene.dispatch.leave(live, poll)


async def test_a_small_job_does_not_take_the_poll_of_one_that_is_loaded(scene: Scene) -> None:
    poll = await loading(scene, parked=True)
    await scene.queue(b=b"2")
    await scene.at_last()

    assert {"a": LARGE} == poll.answer
    assert {"b": b"2"} == (await scene.poll("w2")).answer


async def test_the_time_of_a_poll_may_be_over_while_it_waits_for_an_input(scene: Scene) -> None:
    poll = await loading(scene, parked=True)
    assert scene.dispatch.leave(scene.worker(), poll)
    poll.end()
    scene.payloads.away = True
    await scene.at_last()
    await scene.queue(b=b"2")

    assert {} == poll.answer, "it is not answered twice"
    assert JobState.IN_QUEUE is (await scene.job("a")).state


async def test_the_time_of_a_poll_may_be_over_while_its_job_is_given_back(scene: Scene) -> None:
    poll = await loading(scene, parked=True)
    scene.payloads.away = True
    scene.store.saves.clear()
    scene.payloads.opens.set()
    await scene.meanwhile()
    assert scene.dispatch.leave(scene.worker(), poll)
    poll.end()
    scene.store.saves.set()
    await scene.at_last()
    await scene.queue(b=b"2")

    assert {} == poll.answer, "it is not answered twice"


async def test_who_waits_for_workers_hears_of_a_job_that_fails_for_its_input(scene: Scene) -> None:
    await scene.queue(a=LARGE)
    scene.payloads.held.clear()
    woken: list[int] = []
    await scene.poll("w0")
    scene.signals.subscribe(topics.demand(ENDPOINT), lambda: woken.append(1))
    await scene.jobs.retry(ENDPOINT, JobId("a"))

    assert JobState.FAILED is (await scene.job("a")).state
    assert 2 == len(woken), "it was queued, and it has failed"
