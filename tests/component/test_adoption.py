"""A platform process takes over from the one before: the same stores, the same workers, another process."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.stores.fleet import MemoryFleet
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.adapters.stores.secrets import MemorySecrets
from runyard.adapters.system import LoopClock, RandomIds
from runyard.adapters.vault import MemoryVault
from runyard.config import Settings
from runyard.domain.attempt import Cause
from runyard.domain.job import Job, JobState, WorkerId
from runyard.domain.worker import Exit, WorkerPhase
from runyard.edge.bodies import job_body
from runyard.platform import Adapters, Platform
from runyard.ports.runtime import RuntimeObserver
from runyard.services.roster import LiveWorker
from runyard.services.spill import Carried
from tests.builders import ENDPOINT, a_job, a_scaling, an_endpoint
from tests.component.wire import NoWebhooks
from tests.control_doubles import MemoryBlobs, SetDisk
from tests.payload_kit import MemoryPayloads
from tests.slow_store import SlowJobs


class Poll:
    """A worker's poll that takes one job."""

    limit = 1
    idle = False

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def give(self, jobs: Any) -> bool:
        self.jobs += jobs
        return True

    def end(self, *, soon: bool = False) -> None: ...


@dataclass
class House:
    """What outlives a platform process."""

    store: MemoryJobs = field(default_factory=MemoryJobs)
    control: MemoryControl = field(default_factory=MemoryControl)
    fleet: MemoryFleet = field(default_factory=MemoryFleet)
    secrets: MemorySecrets = field(default_factory=MemorySecrets)
    vault: MemoryVault = field(default_factory=MemoryVault)
    runtimes: list[FakeRuntime] = field(default_factory=list)

    @property
    def runtime(self) -> FakeRuntime:
        return self.runtimes[-1]

    def _runtime(self, observer: RuntimeObserver) -> FakeRuntime:
        runtime = FakeRuntime(observer)
        if self.runtimes:
            runtime.succeed(self.runtime)
        self.runtimes.append(runtime)
        return runtime

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Platform]:
        adapters = Adapters(
            store=self.store,
            outbox=MemoryOutbox(job_body),
            control=self.control,
            fleet=self.fleet,
            secrets=self.secrets,
            vault=self.vault,
            blobs=MemoryBlobs(),
            payloads=MemoryPayloads(),
            carried=Carried(0),
            signals=LocalSignals(),
            clock=LoopClock(),
            ids=RandomIds(),
            runtime=lambda observer, credentials: self._runtime(observer),
            webhooks=NoWebhooks(),
            disk=SetDisk(),
        )
        platform = Platform(adapters, Settings(), "http://workers.test")
        async with platform.running():
            yield platform
            platform.handing_over = True


@pytest.fixture
async def house() -> House:
    """With one endpoint that has one worker, always."""
    house = House()
    await house.control.add_endpoint(an_endpoint(scaling=a_scaling(workers_min=1, workers_max=1)))
    return house


async def the_worker(platform: Platform) -> LiveWorker:
    await until(lambda: any(live.worker.spawned_at for live in platform.roster))
    return next(iter(platform.roster))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  Fakes have no event for each of their facts.
            await asyncio.sleep(0.01)


async def a_running_job(platform: Platform, live: LiveWorker, id: str = "job-1") -> Job:
    await platform.dispatch.submit(a_job(id))
    poll = Poll()
    await platform.dispatch.poll(live, poll)
    return poll.jobs[0]


async def test_a_worker_and_its_job_go_on(house: House) -> None:
    async with house.process() as first:
        before = await the_worker(first)
        job = await a_running_job(first, before)
    async with house.process() as second:
        live = await the_worker(second)

        assert [live.id] == house.runtime.adopted
        assert before.worker == live.worker
        assert [job.id] == list(live.held)
        await second.dispatch.report(live, job.id, lambda job, now: job.complete(b"1", now))
        ended = await house.store.get(ENDPOINT, job.id)
        assert ended is not None
        assert (JobState.COMPLETED, 0) == (ended.state, ended.attempts_lost)
        await asyncio.sleep(1)
        assert [live.id] == list(house.runtime.running), "and no other is started beside it"


async def test_an_idle_worker_is_idle_from_now_on(house: House) -> None:
    async with house.process() as first:
        live = await the_worker(first)
        first.dispatch.heard(live)
    async with house.process() as second:
        again = await the_worker(second)

        assert (WorkerPhase.READY, True) == (again.worker.phase, again.idle_since is not None)


async def test_the_end_of_a_worker_that_nobody_saw_is_seen_by_the_next(house: House) -> None:
    async with house.process() as first:
        live = await the_worker(first)
        job = await a_running_job(first, live)
    house.runtime.exit(live.id, Exit(7))
    async with house.process() as second:
        await asyncio.sleep(0)

        [stopped, *_] = second.roster.stopped_of(ENDPOINT)
        assert (live.id, Exit(7)) == (stopped.id, stopped.exit)
        waiting = await house.store.get(ENDPOINT, job.id)
        assert waiting is not None
        assert (JobState.IN_QUEUE, 1) == (waiting.state, waiting.attempts_lost)
        [attempt] = waiting.attempts
        assert (Cause.WORKER_DIED, 7, True) == (attempt.evidence.cause, attempt.evidence.exit_code, attempt.counted)


async def test_a_worker_that_is_recorded_and_gone_gives_its_jobs_back(house: House) -> None:
    async with house.process() as first:
        live = await the_worker(first)
        job = await a_running_job(first, live)
        house.runtime.running.clear()
    async with house.process():
        waiting = await house.store.get(ENDPOINT, job.id)

        assert waiting is not None
        assert (JobState.IN_QUEUE, {live.id}) == (waiting.state, waiting.fenced_from)
        assert [(Cause.PLATFORM_DIED, False)] == [(a.evidence.cause, a.counted) for a in waiting.attempts]
    assert live.id not in [worker.id for worker in await house.fleet.workers()]


async def test_jobs_of_workers_that_nobody_recorded_go_back_oldest_first(house: House) -> None:
    for number in (1, 2, 3):
        await house.store.add(a_job(f"job-{number}").take(WorkerId("unheard-of"), 0))
    async with house.process():
        taken = await house.store.take(ENDPOINT, WorkerId("w"), 3, 0)

        assert ["job-1", "job-2", "job-3"] == [job.id for job in taken]
        assert [(1, 1)] * 3 == [(job.attempts_lost, job.attempts_excused) for job in taken], "they were not to blame"


async def test_a_worker_that_runs_and_is_not_recorded_is_ended(house: House) -> None:
    async with house.process() as first:
        live = await the_worker(first)
    await house.fleet.forget(live.id)
    async with house.process():
        assert live.id not in house.runtime.running


async def test_a_draining_worker_is_stopped_by_the_next(house: House) -> None:
    async with house.process() as first:
        live = await the_worker(first)
        house.runtime.stubborn.add(live.id)
        first.lifecycle.replace(live, "a test wants it")
    async with house.process() as second:
        house.runtime.stubborn.clear()
        await until(lambda: live.id not in house.runtime.running)

        [stopped] = [worker for worker in second.roster.stopped_of(ENDPOINT) if worker.id == live.id]
        assert "a test wants it" == stopped.stop_reason


async def test_a_worker_of_a_deleted_endpoint_is_stopped(house: House) -> None:
    async with house.process() as first:
        live = await the_worker(first)
    await house.control.remove_endpoint(ENDPOINT)
    async with house.process():
        await asyncio.sleep(0.01)

        assert [] == list(house.runtime.running)
    assert [] == await house.fleet.workers(), live.id


async def test_what_is_recorded_follows_the_worker(house: House) -> None:
    async with house.process() as platform:
        live = await the_worker(platform)
        platform.dispatch.heard(live)
        live.worker = live.worker.runs_sdk("1.12.0")
        await asyncio.sleep(0.2)
        assert [live.worker] == await house.fleet.workers()

        house.runtime.exit(live.id, Exit(0))
        await asyncio.sleep(0.01)
        assert live.id not in [worker.id for worker in await house.fleet.workers()]


async def test_once_a_platform_has_stopped_its_jobs_are_back_however_slow_the_store() -> None:
    slow = SlowJobs(random.Random(7), pause_s_max=0.5)
    house = House(store=slow)  # type: ignore[arg-type]
    await house.control.add_endpoint(an_endpoint(scaling=a_scaling(workers_min=1, workers_max=1)))
    async with house.process() as platform:
        job = await a_running_job(platform, await the_worker(platform))
        await platform.drain()
        waiting = await slow._store.get(ENDPOINT, job.id)

        assert waiting is not None
        assert (JobState.IN_QUEUE, 1, 1) == (waiting.state, waiting.attempts_lost, waiting.attempts_excused)
