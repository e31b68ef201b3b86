"""Dispatch over a store that takes its time: whatever comes in between, every job runs once and none is forgotten."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.system import LoopClock
from runyard.domain.job import Job, JobId, JobState
from runyard.ports.stores import JobQuery
from runyard.services.dispatch import Dispatch, end_state
from runyard.services.jobs import Jobs, Request
from runyard.services.roster import LiveWorker, Roster
from tests.builders import ENDPOINT, a_worker, an_endpoint
from tests.control_doubles import CountingIds
from tests.payload_kit import inputs_in
from tests.slow_store import SlowJobs, SlowPayloads

pytestmark = pytest.mark.looptime

HOLD_S = 1000.0
"""Longer than a test lasts: a poll that is forgotten is not saved by the next one."""
INLINE_BYTES_MAX = 10


class Poll:
    """A poll over a connection that may go at any time. `answered` is set when it is answered."""

    idle = True

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.client = True
        self.answered = asyncio.Event()
        self.jobs: list[Job] = []

    def give(self, jobs: Sequence[Job]) -> bool:
        if not self.client or self.answered.is_set():
            return False
        self.jobs = list(jobs)
        self.answered.set()
        return True

    def end(self, *, soon: bool = False) -> None:
        self.answered.set()


class Rush:
    """Clients and workers that all act at once, each by its own chance."""

    def __init__(self, seed: int, *, jobs: int, workers: int, over_s: float) -> None:
        self.chance, self.job_count, self.worker_count, self.over_s = random.Random(seed), jobs, workers, over_s
        self.store, self.roster, clock, signals = SlowJobs(self.chance), Roster(), LoopClock(), LocalSignals()
        inputs = inputs_in(SlowPayloads(self.chance), self.store, signals, clock, inline_bytes_max=INLINE_BYTES_MAX)
        self.dispatch = Dispatch(self.store, self.roster, inputs, signals, clock)
        self.jobs = Jobs(self.store, self.dispatch, inputs, signals, clock, CountingIds())
        self.ran: Counter[JobId] = Counter()
        self.running: set[JobId] = set()
        self.inputs: dict[JobId, bytes] = {}
        self.had: dict[JobId, object] = {}
        """The input that it ran with."""
        self.over = False

    async def submit(self, number: int) -> None:
        await asyncio.sleep(self.chance.uniform(0, self.over_s))
        input = b"%d" % number * self.chance.choice([1, 1 + INLINE_BYTES_MAX])
        job = await self.jobs.submit(an_endpoint(), Request(input=input), self.jobs.new_id(sync=False))
        self.inputs[job.id] = input

    async def work(self, live: LiveWorker, *, leaves: bool) -> None:
        """Poll and work; a client that `leaves` often hangs up in the middle of a poll, and goes when the rush is over."""
        while not (leaves and self.over):
            poll = Poll(self.chance.choice([1, 1, 3]))
            polling = asyncio.create_task(self.dispatch.poll(live, poll))
            patience = self.chance.uniform(0, 0.15) if leaves else HOLD_S
            try:
                async with asyncio.timeout(patience):
                    await poll.answered.wait()
            except TimeoutError:
                poll.client = poll.answered.is_set()
                await polling
                self.dispatch.leave(live, poll)
            await polling
            for job in poll.jobs:
                await self.run(live, job)

    async def run(self, live: LiveWorker, job: Job) -> None:
        assert job.id not in self.running, "two workers never share a job"
        self.running.add(job.id)
        self.had[job.id] = job.input
        await asyncio.sleep(self.chance.uniform(0, 0.2))
        self.running.discard(job.id)
        self.ran[job.id] += 1
        await self.dispatch.report(live, job.id, end_state(b"1", None))

    async def play(self) -> None:
        workers = [self.roster.add(a_worker(f"w{number}")) for number in range(self.worker_count)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.work(live, leaves=number > 0)) for number, live in enumerate(workers)]
            await asyncio.gather(*(self.submit(number) for number in range(self.job_count)))
            self.over = True
            await asyncio.sleep(HOLD_S / 2)
            for task in tasks:
                task.cancel()

    async def check(self) -> None:
        await self.play()
        jobs = (await self.store.list(ENDPOINT, JobQuery(limit=999))).jobs

        assert {JobState.COMPLETED: self.job_count} == Counter(job.state for job in jobs)
        assert {1} == set(self.ran.values())
        assert self.inputs == self.had
        assert [] == [live.id for live in self.roster if live.held]


@pytest.mark.parametrize("seed", range(5))
async def test_in_a_long_rush_every_job_runs_once(seed: int) -> None:
    await Rush(seed, jobs=60, workers=5, over_s=5).check()


@pytest.mark.parametrize("hundred", range(0, 600, 100))
async def test_no_job_is_forgotten_when_polls_park_and_go_while_it_comes(hundred: int) -> None:
    for seed in range(hundred, hundred + 100):
        await Rush(seed, jobs=2, workers=3, over_s=0.1).check()
