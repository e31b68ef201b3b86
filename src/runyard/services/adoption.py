"""What a platform process takes over from the one before it: workers that still run, and the jobs they hold.

1. A worker is recorded (`Records`) before the runtime starts it, whenever its record changes, and until nothing of it runs.
2. What runs and is recorded is *adopted*: it goes on polling with the secret it has, and neither it nor its jobs notice.
   What runs and is not recorded is ended, since nothing is known of it. What is recorded and does not run is gone.
3. Who holds which job is read from the jobs' own leases. A job whose worker is gone goes back to the queue.

All this happens before the worker port answers: a worker that is not known yet would be turned away, with its result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any, Protocol

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import NotFound
from runyard.domain.job import EndpointId, Job, JobState, WorkerId
from runyard.domain.worker import Worker
from runyard.ports.runtime import WorkerRuntime
from runyard.ports.stores import FleetStore, JobQuery, JobStore
from runyard.ports.system import Clock
from runyard.services.dispatch import Dispatch
from runyard.services.roster import LiveWorker, Roster

log = logging.getLogger("runyard.fleet")

_PAGE = 1000
_RUNNING = frozenset({JobState.IN_PROGRESS})


class Records:
    """The stored picture of live workers. Writes come one after the other, each with the newest facts."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._kept: dict[WorkerId, Worker] = {}
        self._turn = asyncio.Lock()

    async def load(self) -> list[Worker]:
        workers = await self._store.workers()
        self._kept = {worker.id: worker for worker in workers}
        return workers

    def differs(self, live: LiveWorker) -> bool:
        """Whether the stored record is not what the worker is now."""
        return self._kept.get(live.id) is not live.worker

    async def keep(self, live: LiveWorker) -> None:
        """Store the worker as it is when its turn comes; one that has ended by then is not stored."""
        async with self._turn:
            worker = live.worker
            if worker.alive and self.differs(live):
                await self._store.save(worker)
                self._kept[worker.id] = worker

    async def forget(self, worker_id: WorkerId) -> None:
        async with self._turn:
            if worker_id in self._kept:
                await self._store.forget(worker_id)
                del self._kept[worker_id]


class EndpointBook(Protocol):
    """The endpoints as they are now. `get` raises `NotFound`."""

    def list(self) -> list[Endpoint]: ...

    def get(self, endpoint_id: EndpointId) -> Endpoint: ...


class Heirs(Protocol):
    """Whoever looks after workers from now on."""

    async def adopted(self, live: LiveWorker) -> None:
        """It runs, and is in the roster with what it holds."""
        ...

    async def gone(self, live: LiveWorker) -> None:
        """It is in the roster with what it held, and does not run."""
        ...

    async def see_to(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this now, or in the background if the store cannot write now."""
        ...

    def stop_soon(self, live: LiveWorker, reason: str) -> None: ...


class Adoption:
    """`run` it once, with endpoints and jobs loaded and before any worker is started or heard."""

    def __init__(
        self,
        records: Records,
        store: JobStore,
        endpoints: EndpointBook,
        roster: Roster,
        dispatch: Dispatch,
        clock: Clock,
    ) -> None:
        self._records = records
        self._store = store
        self._endpoints = endpoints
        self._roster = roster
        self._dispatch = dispatch
        self._clock = clock

    async def run(self, runtime: WorkerRuntime, heirs: Heirs) -> None:
        running = set(await runtime.list())
        known = await self._records.load()
        for worker_id in running - {worker.id for worker in known}:
            log.warning("ending worker %s, of which nothing is recorded", worker_id)
            await runtime.stop(worker_id, timedelta(0))
        fleet = [self._roster.add(worker) for worker in known]
        for endpoint in self._endpoints.list():
            forsaken = self._give_jobs(await self._running_jobs(endpoint.id))
            await heirs.see_to(self._forsake(forsaken))
        for live in fleet:
            if live.id in running:
                await self._adopt(live, runtime, heirs)
        await heirs.see_to(self._bury([live for live in fleet if live.id not in running], heirs))

    async def _adopt(self, live: LiveWorker, runtime: WorkerRuntime, heirs: Heirs) -> None:
        if live.worker.ready_at is not None and not live.held:
            live.idle_since = self._clock.now()
        await heirs.adopted(live)
        await runtime.adopt(live.id)
        try:
            self._endpoints.get(live.worker.endpoint_id)
        except NotFound:
            heirs.stop_soon(live, "the endpoint was deleted")

    async def _running_jobs(self, endpoint_id: EndpointId) -> list[Job]:
        """Newest first."""
        jobs: list[Job] = []
        after: str | None = None
        while True:
            page = await self._store.list(endpoint_id, JobQuery(states=_RUNNING, limit=_PAGE, after=after))
            jobs += page.jobs
            after = page.next
            if after is None:
                return jobs

    def _give_jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """To the workers that hold their leases; returns those that nobody holds."""
        for job in reversed(jobs):
            if (live := self._holder(job)) is not None:
                live.took(job.id, self._clock.now() if job.lease is None else job.lease.taken_at)
        return [job for job in jobs if self._holder(job) is None]

    async def _forsake(self, jobs: Sequence[Job]) -> None:
        """Back to the queue, where the oldest must come first."""
        for job in jobs:
            await self._dispatch.forsaken(job, "its worker ended while the platform was away")

    async def _bury(self, ended: Sequence[LiveWorker], heirs: Heirs) -> None:
        for live in ended:
            await heirs.gone(live)

    def _holder(self, job: Job) -> LiveWorker | None:
        return None if job.lease is None else self._roster.get(job.lease.worker_id)
