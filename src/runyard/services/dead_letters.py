"""Jobs that ended without a result, FAILED or TIMED_OUT, and their way back into the queue.

To *redrive* a job is to retry it: the same id and input, in a new run. In bulk the oldest go first, so that they queue in
the order in which they came. A quarantined job, which has killed workers, goes back only when it is named and forced.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from runyard.domain.errors import Conflict, NotFound, Quarantined, RunyardError
from runyard.domain.job import RETRYABLE, EndpointId, Job, JobId
from runyard.ports.stores import JobPage, JobQuery, JobStore
from runyard.ports.system import Clock
from runyard.services.jobs import Jobs

BATCH = 100
"""Jobs that are redriven at once: they share a commit of the store."""
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A named job that was not redriven, and why."""

    job_id: JobId
    error: RunyardError


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What became of the jobs: those that `redriven` counts wait again, in the order of their redrive."""

    redriven: int = 0
    quarantined: int = 0
    """Left as they are: they need force."""
    refused: tuple[Refusal, ...] = ()
    """Of jobs that were named; quarantined ones are among them."""


class DeadLetters:
    """All endpoints'. For an endpoint that nobody knows there are none."""

    def __init__(self, store: JobStore, jobs: Jobs, clock: Clock) -> None:
        self._store = store
        self._jobs = jobs
        self._clock = clock

    async def list(self, endpoint_id: EndpointId, *, limit: int, after: str | None = None) -> JobPage:
        """Newest first, those that are kept behind their time, too. A page may be short and still have a `next`."""
        return await self._store.list(endpoint_id, JobQuery(states=RETRYABLE, limit=limit, after=after))

    async def redrive(self, endpoint_id: EndpointId, job_ids: Sequence[JobId], *, force: bool = False) -> Redriven:
        """These jobs, in this order; what cannot go is refused by name and keeps nobody else back."""
        errors: dict[JobId, RunyardError] = {}
        done = 0
        for start in range(0, len(job_ids), BATCH):
            batch = job_ids[start : start + BATCH]
            retries = (self._jobs.retry(endpoint_id, job_id, force=force, kept=True) for job_id in batch)
            for job_id, outcome in zip(batch, await asyncio.gather(*retries, return_exceptions=True), strict=True):
                match outcome:
                    case Job():
                        done += 1
                    case RunyardError():
                        errors[job_id] = outcome
                    case _:
                        raise outcome
        return Redriven(
            redriven=done,
            quarantined=sum(isinstance(error, Quarantined) for error in errors.values()),
            refused=tuple(Refusal(job_id, error) for job_id, error in errors.items()),
        )

    async def redrive_all(self, endpoint_id: EndpointId) -> Redriven:
        """All that are dead when this is called, the oldest first, but for the quarantined."""
        ids = [job.id async for job in self._all(endpoint_id)]
        ids.reverse()
        done = quarantined = 0
        for start in range(0, len(ids), _PAGE):
            outcome = await self.redrive(endpoint_id, ids[start : start + _PAGE])
            for refusal in outcome.refused:
                # Some have expired or were retried by somebody else meanwhile.
                if not isinstance(refusal.error, NotFound | Conflict):
                    raise refusal.error
            done, quarantined = done + outcome.redriven, quarantined + outcome.quarantined
            await self._clock.sleep(0)
        return Redriven(redriven=done, quarantined=quarantined)

    async def _all(self, endpoint_id: EndpointId) -> AsyncIterator[Job]:
        """Newest first."""
        after: str | None = None
        while True:
            page = await self.list(endpoint_id, limit=_PAGE, after=after)
            for job in page.jobs:
                yield job
            after = page.next
            if after is None:
                return
            await self._clock.sleep(0)  # Let others run: a page takes a millisecond or more.
