"""What happens to jobs by the clock alone: execution timeouts and expiry."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.domain.errors import TooBusy
from runyard.domain.job import Job, JobState
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Signals
from runyard.services import topics
from runyard.services.dispatch import Dispatch

TICK_S = 0.5
BATCH = 500


class Sweeper:
    """Times out jobs that run too long and puts away those whose time is over (A.7)."""

    def __init__(self, store: JobStore, dispatch: Dispatch, signals: Signals, clock: Clock) -> None:
        self._store = store
        self._dispatch = dispatch
        self._signals = signals
        self._clock = clock

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            full = await self.sweep()
            await self._clock.sleep(0 if full else TICK_S)

    async def sweep(self) -> bool:
        """One pass; True when more may be due."""
        now = self._clock.now()
        jobs = await self._store.due(now, BATCH)
        try:
            for job in jobs:
                if not job.has_expired(now):
                    await self._time_out(job, now)
            await self._put_away([job for job in jobs if job.has_expired(now)], now)
        except TooBusy:
            return False  # Nothing can be written now; the next pass tries again.
        return len(jobs) == BATCH

    async def _put_away(self, jobs: Sequence[Job], now: float) -> None:
        for job in await self._store.put_away(jobs, now):
            self._done(job)

    async def _time_out(self, job: Job, now: float) -> None:
        if job.state is JobState.IN_PROGRESS and job.lease is not None:
            ended = job.time_out(now, self._dispatch.last_words(job.lease.worker_id, job.id))
            if await self._store.save(ended, was=job):
                self._done(job)

    def _done(self, job: Job) -> None:
        if job.state is JobState.IN_PROGRESS:
            self._dispatch.stop_job(job)
        self._signals.fire(job.id)
        if not job.terminal:
            self._signals.fire(topics.demand(job.endpoint_id))
