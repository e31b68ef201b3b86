"""Clients and workers over memory adapters, and inputs that can be kept from being read."""

import asyncio
from collections.abc import Callable, Sequence

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.system import LoopClock
from runyard.domain.job import Job, JobId
from runyard.domain.payload import Spilled
from runyard.services.dispatch import Dispatch
from runyard.services.jobs import Jobs, Request
from runyard.services.roster import LiveWorker, Roster
from tests.builders import ENDPOINT, a_worker, an_endpoint
from tests.control_doubles import CountingIds
from tests.payload_kit import MemoryPayloads, MemoryReading, inputs_in

INLINE_BYTES_MAX = 100
LARGE = b"x" * (INLINE_BYTES_MAX + 1)


class Poll:
    """An open poll for jobs; `client` says whether its client is still there."""

    def __init__(self, limit: int = 1, *, idle: bool = True) -> None:
        self.limit = limit
        self.idle = idle
        self.client = True
        self.answer: dict[str, object] | None = None
        """The input of each job."""
        self.ends = 0

    def give(self, jobs: Sequence[Job]) -> bool:
        if self.client:
            self.answer = {job.id: job.input for job in jobs}
        return self.client

    def end(self, *, soon: bool = False) -> None:
        self.answer = {}
        self.ends += 1


class BrokenPayloads(MemoryPayloads):
    """Those of `broken` jobs raise `error` when they are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.error: Exception = OSError(5, "Input/output error")
        self.opened: list[str] = []
        self.opened_at: list[float] = []
        self.closed: list[str] = []

    async def open(self, payload: Spilled) -> MemoryReading:
        job_id = self.held[payload.ref][0].job_id if payload.ref in self.held else ""
        self.opened.append(job_id)
        self.opened_at.append(asyncio.get_running_loop().time())
        if job_id in self.broken:
            raise self.error
        data = (await super().open(payload)).data
        return _Reading(data, lambda: self.closed.append(job_id))


class _Reading(MemoryReading):
    def __init__(self, data: bytes, closed: Callable[[], None]) -> None:
        super().__init__(data)
        self._closed = closed

    async def close(self) -> None:
        self._closed()


class Scene:
    """Clients and workers over memory adapters. What is loaded takes no time, unless `payloads` are held up."""

    def __init__(self, store: MemoryJobs | None = None) -> None:
        self.clock, self.signals, self.roster = LoopClock(), LocalSignals(), Roster()
        self.store = store or MemoryJobs()
        self.payloads = BrokenPayloads()
        self.inputs = inputs_in(self.payloads, self.store, self.signals, self.clock, inline_bytes_max=INLINE_BYTES_MAX)
        self.dispatch = Dispatch(self.store, self.roster, self.inputs, self.signals, self.clock)
        self.jobs = Jobs(self.store, self.dispatch, self.inputs, self.signals, self.clock, CountingIds())

    async def queue(self, **jobs: bytes) -> None:
        for id, input in jobs.items():
            await self.jobs.submit(an_endpoint(), Request(input=input), JobId(id))

    def worker(self, id: str = "w1") -> LiveWorker:
        return self.roster.get(a_worker(id).id) or self.roster.add(a_worker(id))

    async def poll(self, id: str = "w1", *, limit: int = 1) -> Poll:
        """And what can be loaded at once is."""
        poll = Poll(limit, idle=not self.worker(id).held)
        await self.dispatch.poll(self.worker(id), poll)
        await turns()
        return poll

    async def job(self, id: str) -> Job:
        job = await self.store.get(ENDPOINT, JobId(id))
        assert job is not None
        return job


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
