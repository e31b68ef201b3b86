"""Where jobs, endpoints and keys are kept. Every method is atomic; what a call has returned is durable as promised."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runyard.domain.account import ApiKey
from runyard.domain.endpoint import Endpoint, Release, ReleaseId
from runyard.domain.errors import RunyardError
from runyard.domain.fleet import Demand
from runyard.domain.job import EndpointId, Job, JobId, JobState, WorkerId
from runyard.domain.tombstone import Tombstone
from runyard.domain.worker import Worker
from runyard.ports.archive import Archive

Ready = Callable[[Job], bool]
"""Whether a job can be taken now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """Totals since the endpoint exists (finished, retried) and now (queued, running), as /health shows (F012)."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    retried: int = 0
    in_queue: int = 0
    in_progress: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs to list, newest first. `after` is the `next` of the page before."""

    states: frozenset[JobState] = frozenset()
    worker_id: WorkerId | None = None
    limit: int = 50
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    jobs: tuple[Job, ...]
    next: str | None


class JobStore(Protocol):
    """Jobs of queue endpoints and their stream output. FIFO per endpoint, except that returned jobs go first.

    Jobs whose time is over, and others that have ended, are in its `Archive` (see `put_away`). A store that has an `Outbox`
    keeps in it, in the commit of each end of a job with a webhook, what that end owes.
    """

    @property
    def outlives_process(self) -> bool:
        """Whether what it keeps is there again for the next process: then a job goes on when this one ends."""
        ...

    @property
    def archive(self) -> Archive: ...

    async def add(self, job: Job) -> None:
        """Keep a new job, waiting or already leased. Raises `Conflict` if the id exists, `TooBusy` when full."""
        ...

    async def add_soon(self, job: Job) -> int:
        """As `add`, but it is kept a moment later: when `kept` returns for this change. Until then nobody may be told of
        the job but the worker that it is, or will be, leased to: lease and job are kept together.
        """
        ...

    async def kept(self, change: int) -> None:
        """Until a change is kept. Raises `TooBusy` when it cannot be: then it never happened."""
        ...

    def if_lost(self, change: int, tell: Callable[[RunyardError], None]) -> None:
        """For who does not wait: `tell` is called with what `kept` would raise, if it would. Nothing is hurried: the change
        may be kept some milliseconds later, together with what comes next.
        """
        ...

    async def get(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        """A job as it is kept, put away or not."""
        ...

    async def find(self, endpoint_id: EndpointId, job_id: JobId) -> Job | Tombstone | None:
        """As `get`, or what is left of a job that is gone."""
        ...

    async def latest(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        """A job as it is, kept or about to be. For who changes it: both changes will be kept, or neither."""
        ...

    async def take(
        self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float, ready: Ready | None = None
    ) -> list[Job]:
        """Lease up to `limit` waiting jobs to a worker, oldest first, passing over jobs fenced from it and such as have
        expired.

        With `ready` none is taken from the first on for which that says no: nobody overtakes it. Only jobs whose inputs are
        spilled are asked about, in the order in which they are taken, at the moment of the take.
        """
        ...

    async def first(self, endpoint_id: EndpointId, limit: int) -> list[Job]:
        """Up to `limit` waiting jobs, those first that are taken first; as they are now, kept or about to be."""
        ...

    async def save(self, job: Job, was: Job) -> bool:
        """Replace `was` by `job`; False, changing nothing, when the stored job is no longer `was`.

        A job that has lost its worker goes to the *head* of the queue; one whose take is undone, to the place it had; one
        that comes from an end state, to the tail; one that goes on waiting keeps its place. A job that waits again has no
        stream output any more. One that was put away is back with this.
        """
        ...

    async def put_away(self, jobs: Sequence[Job], now: float) -> list[Job]:
        """Put jobs into the archive whose time is over: whole if they have ended, else what is left of them is a tombstone.
        Returns those that went; a job that is stored otherwise than it is given stays where it is.

        They can be read and listed as before, but for their streams, and are no longer due. `add` does not look for their
        ids. A store may put away jobs that have ended by itself, at any time, with their streams.
        """
        ...

    async def purge(self, endpoint_id: EndpointId, now: float, limit: int) -> list[JobId]:
        """Cancel up to `limit` waiting jobs, the first in the queue first; returns which."""
        ...

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        """Forget all of an endpoint's jobs, output and counts, but for its archive: see `Archive.clear`."""
        ...

    async def append_output(self, job: Job, chunks: Sequence[bytes]) -> bool:
        """Add stream chunks (JSON); False when the job is no longer leased as `job` is. Raises `TooBusy` when full."""
        ...

    async def drain_output(self, job: Job, bytes_max: int | None) -> list[bytes]:
        """The next chunks nobody has drained yet, at least one if there are any, else up to `bytes_max` in all."""
        ...

    async def read_output(self, job: Job, after: int, bytes_max: int) -> list[bytes]:
        """The chunks that follow the first `after` ones, drained or not: at least one if there are any, else up to
        `bytes_max` in all. Nothing when the stored job's lease is not that of `job`: another attempt's chunks do not follow
        what the reader has.
        """
        ...

    async def due(self, now: float, limit: int) -> list[Job]:
        """Jobs whose `due_at` has come, the longest due first, to the second."""
        ...

    async def demand(self, endpoint_id: EndpointId, overdue_at: float, limit: int) -> Demand:
        """Cost grows with `limit`, not with the queue."""
        ...

    async def counts(self, endpoint_id: EndpointId) -> JobCounts: ...

    async def list(self, endpoint_id: EndpointId, query: JobQuery) -> JobPage: ...

    async def close(self) -> None:
        """Nothing is asked of it after this."""
        ...


class ControlStore(Protocol):
    """Endpoints with their releases, and keys."""

    async def endpoints(self) -> list[Endpoint]: ...

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        """Keep a new endpoint and its first release. Raises `Conflict` when the name is taken."""
        ...

    async def save_endpoint(self, endpoint: Endpoint, *, generation: int) -> bool:
        """Replace the endpoint (and add its release if new); False when the stored generation is another."""
        ...

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None: ...

    async def releases(self, endpoint_id: EndpointId) -> list[Release]:
        """All releases, newest first."""
        ...

    async def set_lock(self, release_id: ReleaseId, lock: str) -> None:
        """Remember what the release's requirements resolved to; the first answer stays."""
        ...

    async def keys(self) -> list[ApiKey]: ...

    async def add_key(self, key: ApiKey) -> None: ...

    async def revoke_key(self, key_id: str, now: float) -> bool:
        """False when there is no such live key."""
        ...

    async def endpoint_number(self, endpoint_id: EndpointId) -> int:
        """A small number that is this endpoint's alone for ever, from 0 on; process workers derive their uid from it."""
        ...

    async def close(self) -> None:
        """Nothing is asked of it after this."""
        ...


class FleetStore(Protocol):
    """Workers that are alive, for the platform process that comes next. What each holds is in the jobs' leases."""

    async def workers(self) -> list[Worker]:
        """Oldest first."""
        ...

    async def save(self, worker: Worker) -> None:
        """Keep a worker, new or changed."""
        ...

    async def forget(self, worker_id: WorkerId) -> None:
        """It has ended; nothing happens when it is not known."""
        ...

    async def close(self) -> None:
        """Nothing is asked of it after this."""
        ...


class Blobs(Protocol):
    """Immutable bytes by SHA-256 (hex)."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes], bytes_max: int) -> None:
        """Keep the bytes. Raises `BadRequest` when they are not what `digest` says, `TooLarge` over the limit."""
        ...

    async def exists(self, digest: str) -> bool: ...

    async def path(self, digest: str) -> Path:
        """A local file with the bytes. Raises `NotFound`."""
        ...
