"""Which ends owe a webhook: each of the four, once (contract K37)."""

from collections.abc import Callable
from typing import Any

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.domain.attempt import ATTEMPTS_MAX, EXCUSED_MAX
from runyard.domain.errors import Expired
from runyard.domain.job import Job, JobId, WorkerId
from runyard.services.dispatch import Dispatch, end_state
from runyard.services.jobs import Jobs, Request
from runyard.services.roster import LiveWorker, Roster
from runyard.services.sweeper import Sweeper
from tests.builders import ENDPOINT, a_worker, an_endpoint
from tests.control_doubles import CountingIds, SetClock
from tests.payload_kit import MemoryPayloads, inputs_in

ID = JobId("job")
URL = "http://receiver.test/"
DONE = end_state(b"1", None)
FAILED = end_state(None, "boom")


class Yard:
    """The job services over a store with an outbox."""

    def __init__(self) -> None:
        self.owed: list[Job] = []
        """Rendered, and so owed."""
        self.clock, self.roster = SetClock(), Roster()
        self.store = MemoryJobs(outbox=MemoryOutbox(self._render))
        signals = LocalSignals()
        inputs = inputs_in(MemoryPayloads(), self.store, signals, self.clock)
        self.dispatch = Dispatch(self.store, self.roster, inputs, signals, self.clock)
        self.jobs = Jobs(self.store, self.dispatch, inputs, signals, self.clock, CountingIds())
        self.sweeper = Sweeper(self.store, self.dispatch, signals, self.clock)

    def _render(self, job: Job) -> bytes:
        self.owed.append(job)
        return b""

    async def submit(self, webhook: str | None = URL, id: JobId = ID) -> None:
        await self.jobs.submit(an_endpoint(), Request(input=b"1", webhook=webhook), id)

    async def take(self, worker_id: str = "worker") -> LiveWorker:
        """A worker that has taken the job."""
        live = self.roster.add(a_worker(worker_id))
        for job in await self.store.take(ENDPOINT, live.id, 1, self.clock.now()):
            live.took(job.id, self.clock.now())
        return live

    async def report(self, live: LiveWorker, end: Callable[[Job, float], Job]) -> None:
        await self.dispatch.report(live, ID, end)

    async def pass_time(self, seconds: float) -> None:
        self.clock.at += seconds
        await self.sweeper.sweep()

    @property
    def states(self) -> list[str]:
        return [job.state.value for job in self.owed]


@pytest.fixture
def yard() -> Yard:
    return Yard()


@pytest.mark.parametrize(("end", "state"), [(DONE, "COMPLETED"), (FAILED, "FAILED")])
async def test_a_result_owes_one_and_what_comes_later_none(yard: Yard, end: Any, state: str) -> None:
    await yard.submit()
    live = await yard.take()
    await yard.dispatch.progress(live, ID, b"2")

    assert [] == yard.states
    await yard.report(live, end)
    await yard.report(live, DONE)
    await yard.dispatch.progress(live, ID, b"2")
    await yard.jobs.cancel(ENDPOINT, ID)
    await yard.jobs.expire_in(ENDPOINT, ID, 60)
    await yard.pass_time(100)

    assert [state] == yard.states
    with pytest.raises(Expired):
        await yard.jobs.get(ENDPOINT, ID)


async def test_a_lost_job_owes_one_when_no_attempt_is_left(yard: Yard) -> None:
    await yard.submit()
    for attempt in range(ATTEMPTS_MAX):
        assert [] == yard.states
        await yard.dispatch.worker_gone(await yard.take(f"worker-{attempt}"), "it crashed")

    assert ["FAILED"] == yard.states


async def test_a_cancelled_job_owes_one_waiting_or_running(yard: Yard) -> None:
    await yard.submit()
    await yard.jobs.cancel(ENDPOINT, ID)
    await yard.jobs.cancel(ENDPOINT, ID)
    await yard.submit(id=JobId("other"))
    await yard.take()
    await yard.jobs.cancel(ENDPOINT, JobId("other"))

    assert ["CANCELLED", "CANCELLED"] == yard.states
    assert [ID, "other"] == [job.id for job in yard.owed]


async def test_a_purged_job_owes_one(yard: Yard) -> None:
    await yard.submit(webhook=None, id=JobId("silent"))
    await yard.submit()
    await yard.jobs.purge(ENDPOINT)

    assert [(ID, "CANCELLED")] == [(job.id, job.state) for job in yard.owed]


async def test_a_job_that_runs_too_long_owes_one(yard: Yard) -> None:
    await yard.submit()
    live = await yard.take()
    await yard.pass_time(601)
    await yard.report(live, DONE)
    await yard.pass_time(1)

    assert ["TIMED_OUT"] == yard.states


async def test_each_run_owes_its_own(yard: Yard) -> None:
    await yard.submit()
    await yard.report(await yard.take(), FAILED)
    await yard.jobs.retry(ENDPOINT, ID)

    assert ["FAILED"] == yard.states
    await yard.report(await yard.take("another"), DONE)

    assert ["FAILED", "COMPLETED"] == yard.states


async def test_a_job_that_expires_unseen_has_no_end_to_tell(yard: Yard) -> None:
    await yard.submit()
    await yard.pass_time(86_400)

    with pytest.raises(Expired):
        await yard.jobs.get(ENDPOINT, ID)
    assert [] == yard.states


async def test_a_job_without_a_webhook_owes_none(yard: Yard) -> None:
    await yard.submit(webhook=None)
    await yard.report(await yard.take(), DONE)

    assert [] == yard.states


async def test_jobs_of_a_deleted_endpoint_owe_theirs(yard: Yard) -> None:
    await yard.submit()
    await yard.take()
    await yard.submit(id=JobId("waiting"))
    await yard.jobs.remove_endpoint(ENDPOINT)

    assert {ID: "CANCELLED", "waiting": "CANCELLED"} == {job.id: job.state.value for job in yard.owed}
    assert yard.store.outbox is not None
    taken = [await yard.store.outbox.take(yard.clock.now(), ()) for _ in range(2)]
    assert {ID, "waiting"} == {delivery.job_id for delivery in taken if delivery is not None}


async def test_a_running_job_whose_worker_nobody_knows_owes_one_after_its_last_attempt(yard: Yard) -> None:
    await yard.submit()
    for attempt in range(EXCUSED_MAX + ATTEMPTS_MAX):
        [job] = await yard.store.take(ENDPOINT, WorkerId(f"worker-{attempt}"), 1, yard.clock.now())
        await yard.dispatch.forsaken(job, "nobody knows it")

    assert ["FAILED"] == yard.states
