"""Large results: in beside the job store, out of it, and away when no job names them any more.

A payload is written and kept first, and named by the job's end afterwards, so that a job never names what is not there.
What is not named by the job that it is for is forgotten: of results that came too late, of jobs that expired, were queued
again or went with their endpoint, and of a platform that died in between. A sweep finds it, and so it needs no other care.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, Job, JobId, WorkerId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Draft, Kept, Payloads, Reading
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock

SWEEP_S = 60.0
"""How long what is named no more may still take its space."""
_BATCH = 500

log = logging.getLogger(__name__)


class Spills:
    """`run` is the loop that forgets."""

    def __init__(self, payloads: Payloads, store: JobStore, clock: Clock) -> None:
        self._payloads = payloads
        self._store = store
        self._clock = clock
        self._coming: Counter[tuple[EndpointId, JobId]] = Counter()
        """Jobs for which something comes in that they do not name yet."""

    async def begin(self, endpoint_id: EndpointId, job_id: JobId, worker_id: WorkerId) -> Incoming | None:
        """Take in a result of a worker; None when its word about this job does not count (any more)."""
        job = await self._store.latest(endpoint_id, job_id)
        if job is None or not job.held_by(worker_id):
            return None
        return Incoming(await self._payloads.begin(endpoint_id, job_id), self._coming, (endpoint_id, job_id))

    async def open(self, payload: Spilled) -> Reading:
        """Raises `NotFound`."""
        return await self._payloads.open(payload)

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self.sweep()
            await self._clock.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Forget what no job names."""
        try:
            await self._forget(await self._payloads.kept())
        except OSError as error:
            log.warning("large payloads that nobody needs could not be removed: %s", error)

    async def _forget(self, all_kept: Sequence[Kept]) -> None:
        gone: list[str] = []
        for number, kept in enumerate(all_kept, 1):
            if not self._coming[kept.endpoint_id, kept.job_id] and not await self._is_named(kept):
                gone.append(kept.ref)
            if number % _BATCH == 0:
                await self._clock.sleep(0)  # Let others run.
        await self._payloads.forget(gone)

    async def _is_named(self, kept: Kept) -> bool:
        try:
            job = await self._store.get(kept.endpoint_id, kept.job_id)
        except TooBusy:
            return True  # As long as nobody knows.
        return job is not None and names(job, kept.ref)


class Incoming:
    """A payload that comes in for a job, until the job names it, or nobody wants it. To be closed in any case."""

    def __init__(self, draft: Draft, coming: Counter[tuple[EndpointId, JobId]], job: tuple[EndpointId, JobId]) -> None:
        self._draft = draft
        self._coming = coming
        self._job = job
        coming[job] += 1
        self.write = draft.write
        self.keep = draft.keep

    async def close(self) -> None:
        """If it was kept, it lasts as long as the job names it."""
        self._coming[self._job] -= 1
        if not self._coming[self._job]:
            del self._coming[self._job]
        await self._draft.drop()


def names(job: Job, ref: str) -> bool:
    return isinstance(job.output, Spilled) and job.output.ref == ref
