"""Jobs to workers and back, without a wire: who gets what, what a worker's silence means, what is said to stop."""

import asyncio
from collections.abc import Sequence

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.attempt import ATTEMPTS_MAX
from runyard.domain.job import Job, JobId, JobState
from runyard.services import topics
from runyard.services.dispatch import SUSPICION_S, Dispatch, end_state
from runyard.services.roster import LiveWorker, Roster
from tests.builders import ENDPOINT, a_job, a_worker
from tests.control_doubles import SetClock
from tests.payload_kit import MemoryPayloads, inputs_in

GOOD = end_state(b"1", None)


class Poll:
    """An open poll for jobs; `client` says whether its client is still there."""

    def __init__(self, limit: int = 1, *, idle: bool = True, client: bool = True) -> None:
        self.limit = limit
        self.idle = idle
        self.client = client
        self.answer: list[JobId] | None = None
        self.soon = False

    def give(self, jobs: Sequence[Job]) -> bool:
        if self.client:
            self.answer = [job.id for job in jobs]
        return self.client

    def end(self, *, soon: bool = False) -> None:
        self.answer, self.soon = [], soon


class StopPoll:
    """An open poll of the stop channel."""

    def __init__(self, *, client: bool = True) -> None:
        self.client = client
        self.answer: list[JobId] | None = None

    def give(self, job_ids: Sequence[JobId]) -> bool:
        if self.client:
            self.answer = sorted(job_ids)
        return self.client

    def end(self) -> None:
        self.answer = []


class Scene:
    """A dispatch over memory adapters. `replaced` has the workers it wanted replaced, with the reasons."""

    def __init__(self) -> None:
        self.clock, self.signals, self.store, self.roster = SetClock(), LocalSignals(), MemoryJobs(), Roster()
        inputs = inputs_in(MemoryPayloads(), self.store, self.signals, self.clock)
        self.dispatch = Dispatch(self.store, self.roster, inputs, self.signals, self.clock)
        self.dispatch.replace_worker = self._replace
        self.replaced: dict[str, str] = {}

    def _replace(self, live: LiveWorker, reason: str) -> None:
        self.replaced[live.id] = reason
        live.worker = live.worker.drain(reason)

    def worker(self, id: str = "w1") -> LiveWorker:
        return self.roster.add(a_worker(id))

    async def queue(self, *ids: str) -> None:
        for id in ids:
            await self.dispatch.submit(a_job(id, at=self.clock.at))

    async def poll(self, live: LiveWorker, *, limit: int = 1, idle: bool = True, client: bool = True) -> Poll:
        poll = Poll(limit, idle=idle, client=client)
        await self.dispatch.poll(live, poll)
        return poll

    async def holding(self, *ids: str, id: str = "w1") -> LiveWorker:
        """A worker that holds these jobs."""
        live = self.worker(id)
        await self.queue(*ids)
        assert list(ids) == (await self.poll(live, limit=len(ids))).answer
        return live

    async def job(self, id: str) -> Job:
        job = await self.store.get(ENDPOINT, JobId(id))
        assert job is not None
        return job


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Who gets what


async def test_a_poll_is_answered_at_once_when_jobs_wait(scene: Scene) -> None:
    await scene.queue("a", "b", "c")

    assert ["a"] == (await scene.poll(scene.worker("w1"))).answer
    assert ["b", "c"] == (await scene.poll(scene.worker("w2"), limit=9)).answer


async def test_a_job_goes_to_the_worker_that_parked_last_so_that_others_can_go_idle(scene: Scene) -> None:
    cold, warm = await scene.poll(scene.worker("cold")), await scene.poll(scene.worker("warm"))
    await scene.queue("a")

    assert (None, ["a"]) == (cold.answer, warm.answer)


async def test_a_job_handed_over_is_stored_with_its_lease_in_one_step(scene: Scene) -> None:
    live = scene.worker()
    await scene.poll(live)
    await scene.queue("a")

    assert (await scene.job("a")).held_by(live.id)
    assert {"a"} == live.held.keys()


async def test_a_client_that_left_before_the_answer_has_no_job_and_the_next_gets_it(scene: Scene) -> None:
    other = await scene.poll(scene.worker("other"))
    gone = scene.worker("gone")
    await scene.poll(gone, client=False)
    await scene.queue("a")

    assert ["a"] == other.answer
    assert {} == gone.held


async def test_a_batch_that_reached_nobody_is_back_in_its_order(scene: Scene) -> None:
    await scene.queue("a", "b", "c", "d")
    await scene.poll(scene.worker("gone"), limit=3, client=False)

    assert ["a", "b", "c", "d"] == (await scene.poll(scene.worker("here"), limit=9)).answer
    assert 0 == (await scene.job("a")).attempts_lost


async def test_a_poll_that_has_left_is_not_parked(scene: Scene) -> None:
    live = scene.worker()
    poll = await scene.poll(live)

    assert scene.dispatch.leave(live, poll)
    assert not scene.dispatch.leave(live, poll)
    await scene.queue("a")
    assert None is poll.answer
    assert JobState.IN_QUEUE == (await scene.job("a")).state


async def test_a_draining_worker_gets_nothing_and_is_told_so_after_a_moment(scene: Scene) -> None:
    live = scene.worker()
    await scene.queue("a")
    live.worker = live.worker.drain("scaled down")
    poll = await scene.poll(live)

    assert ([], True) == (poll.answer, poll.soon)
    assert JobState.IN_QUEUE == (await scene.job("a")).state


async def test_a_worker_that_drains_while_its_poll_is_parked_gets_nothing(scene: Scene) -> None:
    other = await scene.poll(scene.worker("other"))
    live = scene.worker("draining")
    poll = await scene.poll(live)
    live.worker = live.worker.drain("scaled down")
    await scene.queue("a")

    assert ([], ["a"]) == (poll.answer, other.answer)


async def test_all_polls_of_a_worker_are_answered_before_it_is_told_to_end(scene: Scene) -> None:
    live = scene.worker()
    first, second, stop = await scene.poll(live), await scene.poll(live, idle=False), StopPoll()
    scene.dispatch.stop_poll(live, stop)
    scene.dispatch.release_polls(live)

    assert ([], [], []) == (first.answer, second.answer, stop.answer)


# What workers say, and what they do not


async def test_a_worker_that_says_it_works_on_nothing_is_given_a_moment(scene: Scene) -> None:
    live = await scene.holding("a")
    await scene.queue("b")
    poll = await scene.poll(live)

    assert ([], True) == (poll.answer, poll.soon), "no job for a worker in doubt"
    scene.clock.at += SUSPICION_S - 0.1
    await scene.poll(live)
    assert (await scene.job("a")).held_by(live.id)
    await scene.dispatch.report(live, JobId("a"), GOOD)
    assert JobState.COMPLETED == (await scene.job("a")).state
    assert ["b"] == (await scene.poll(live)).answer
    assert {} == scene.replaced


async def test_a_result_that_never_came_is_lost_and_its_worker_replaced(scene: Scene) -> None:
    live = await scene.holding("a")
    await scene.poll(live)
    scene.clock.at += SUSPICION_S
    await scene.poll(live)
    job = await scene.job("a")

    assert (JobState.IN_QUEUE, 1, scene.clock.at) == (job.state, job.attempts_lost, job.queued_at)
    assert {"w1": "lost the result of job a"} == scene.replaced
    assert ["a"] == (await scene.poll(scene.worker("fresh"))).answer


async def test_a_job_whose_result_is_lost_again_and_again_fails_and_says_why(scene: Scene) -> None:
    await scene.queue("a")
    for number in range(ATTEMPTS_MAX):
        live = scene.worker(f"w{number}")
        assert ["a"] == (await scene.poll(live)).answer
        await scene.poll(live)
        scene.clock.at += SUSPICION_S
        await scene.poll(live)
    job = await scene.job("a")

    assert JobState.FAILED == job.state
    assert job.error == ("the worker finished the job without sending a result (attempt 3 of 3; no attempt is left)")


async def test_a_worker_that_says_it_is_busy_again_is_in_doubt_no_more(scene: Scene) -> None:
    live = await scene.holding("a")
    await scene.poll(live)
    scene.clock.at += 1
    await scene.poll(live, idle=False)
    scene.clock.at += 1
    await scene.poll(live)
    scene.clock.at += 1
    await scene.poll(live)

    assert (await scene.job("a")).held_by(live.id)


async def test_the_first_poll_or_ping_makes_a_worker_ready_and_wakes_the_planner(scene: Scene) -> None:
    woken: list[str] = []
    scene.signals.subscribe(topics.demand(ENDPOINT), lambda: woken.append("plan"))
    live = scene.worker()
    scene.dispatch.pinged(live, frozenset())
    scene.dispatch.pinged(live, frozenset())

    assert (["plan"], scene.clock.at) == (woken, live.idle_since)


async def test_a_worker_that_dies_gives_all_its_jobs_back_to_the_head_in_their_order(scene: Scene) -> None:
    live = await scene.holding("a", "b")
    await scene.queue("c")
    await scene.dispatch.worker_gone(live, "killed by signal 9")

    assert ["a", "b", "c"] == (await scene.poll(scene.worker("w2"), limit=9)).answer
    assert [1, 1, 0] == [(await scene.job(id)).attempts_lost for id in "abc"]


async def test_the_polls_of_a_worker_that_dies_are_answered(scene: Scene) -> None:
    live = scene.worker()
    poll = await scene.poll(live)
    await scene.dispatch.worker_gone(live, "killed by signal 9")

    assert [] == poll.answer


async def test_a_lost_job_goes_straight_to_a_worker_that_waits(scene: Scene) -> None:
    live = await scene.holding("a")
    poll = await scene.poll(scene.worker("w2"))
    await scene.dispatch.worker_gone(live, "it died")

    assert ["a"] == poll.answer


# Stopping


async def test_a_stop_is_told_at_once_where_the_worker_listens(scene: Scene) -> None:
    live = await scene.holding("a", "b")
    poll = StopPoll()
    scene.dispatch.stop_poll(live, poll)
    scene.dispatch.stop_job(await scene.job("a"))

    assert ["a"] == poll.answer


async def test_a_stop_waits_for_the_next_stop_poll_and_is_told_once(scene: Scene) -> None:
    live = await scene.holding("a", "b", "c")
    for id in "ab":
        scene.dispatch.stop_job(await scene.job(id))
    gone, first, second = StopPoll(client=False), StopPoll(), StopPoll()
    for poll in (gone, first, second):
        scene.dispatch.stop_poll(live, poll)

    assert (["a", "b"], None) == (first.answer, second.answer)


async def test_a_newer_stop_poll_takes_the_place_of_an_older_one(scene: Scene) -> None:
    live = await scene.holding("a")
    older, newer = StopPoll(), StopPoll()
    scene.dispatch.stop_poll(live, older)
    scene.dispatch.stop_poll(live, newer)
    scene.dispatch.stop_poll_left(live, older)
    scene.dispatch.stop_job(await scene.job("a"))

    assert ([], ["a"]) == (older.answer, newer.answer)


async def test_a_stop_poll_that_has_left_is_told_nothing(scene: Scene) -> None:
    live = await scene.holding("a")
    poll = StopPoll()
    scene.dispatch.stop_poll(live, poll)
    scene.dispatch.stop_poll_left(live, poll)
    scene.dispatch.stop_job(await scene.job("a"))

    assert (None, {"a"}) == (poll.answer, live.untold)


async def test_a_stopped_job_is_off_its_worker_once_that_says_it_is_idle(scene: Scene) -> None:
    live = await scene.holding("a")
    scene.dispatch.stop_job(await scene.job("a"))
    await scene.queue("b")

    assert ["b"] == (await scene.poll(live)).answer
    assert {} == scene.replaced


async def test_a_stopped_job_is_off_its_worker_once_a_later_ping_names_it_no_more(scene: Scene) -> None:
    live = await scene.holding("a", "b")
    scene.dispatch.stop_job(await scene.job("a"))
    scene.dispatch.pinged(live, frozenset({"b"}))
    assert {"a", "b"} == live.held.keys(), "a ping may lag"
    scene.clock.at += SUSPICION_S + 0.1
    scene.dispatch.pinged(live, frozenset({"a", "b"}))
    assert {"a", "b"} == live.held.keys()
    scene.dispatch.pinged(live, frozenset({"b"}))

    assert {"b"} == live.held.keys()


async def test_nobody_is_told_to_stop_what_it_does_not_hold(scene: Scene) -> None:
    live = await scene.holding("a")
    poll = StopPoll()
    scene.dispatch.stop_poll(live, poll)
    await scene.dispatch.report(live, JobId("a"), GOOD)
    scene.dispatch.stop_job(await scene.job("a"))
    scene.dispatch.stop_job(a_job("waiting"))

    assert None is poll.answer


async def test_a_full_store_refuses_a_job_and_the_poll_stays_parked() -> None:
    scene = Scene()
    scene.store = MemoryJobs(bytes_max=10)
    inputs = inputs_in(MemoryPayloads(), scene.store, scene.signals, scene.clock)
    scene.dispatch = Dispatch(scene.store, scene.roster, inputs, scene.signals, scene.clock)
    poll = await scene.poll(scene.worker())
    with pytest.raises(Exception, match="full"):
        await scene.dispatch.submit(a_job("a", input=b"x" * 11))
    await asyncio.sleep(0)
    await scene.dispatch.submit(a_job("b", input=b"x"))

    assert ["b"] == poll.answer
