"""The data plane's use cases: submit, read, cancel, retry, purge (contract A.5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import Conflict, Expired, NotFound, RunyardError, TooBusy
from runyard.domain.idempotency import check_same, fingerprint
from runyard.domain.job import (
    DEFAULT_POLICY,
    POLICY_MAX,
    TERMINAL,
    EndpointId,
    ExecutionPolicy,
    Job,
    JobId,
    JobState,
)
from runyard.domain.stream import Place
from runyard.domain.terms import DEFAULT_TERMS, JobTerms
from runyard.domain.tombstone import Tombstone
from runyard.ports.stores import JobCounts, JobPage, JobQuery, JobStore
from runyard.ports.system import Clock, Ids, Signals
from runyard.services import topics
from runyard.services.dispatch import Dispatch
from runyard.services.inputs import Inputs

PURGE_BATCH = 500
STREAM_REPLY_BYTES_MAX = 8 << 20
"""Chunks in one `/stream` reply of a running job; the reply that ends a stream carries all that is left."""
_CAS_ATTEMPTS_MAX = 10


class Request(NamedTuple):
    """What a client submits; `sync_wait_s` is how long a `runsync` waits, None for `run`."""

    input: bytes
    webhook: str | None = None
    policy: ExecutionPolicy = DEFAULT_POLICY
    s3_config: bytes | None = None
    sync_wait_s: float | None = None
    chosen_id: JobId | None = None
    """The id that the client wants the job to have."""


class Page(NamedTuple):
    """What a reader finds at its place in a stream."""

    job: Job
    chunks: list[bytes]
    begins_at: Place
    anew: bool
    """The chunks that the reader had are of an attempt that has been given up."""

    @property
    def ends_at(self) -> Place:
        return self.begins_at.behind(len(self.chunks))


class Jobs:
    """Jobs as their clients see them."""

    def __init__(
        self,
        store: JobStore,
        dispatch: Dispatch,
        inputs: Inputs,
        signals: Signals,
        clock: Clock,
        ids: Ids,
        *,
        terms: Callable[[EndpointId], JobTerms] = lambda endpoint_id: DEFAULT_TERMS,
        endpoint_of: Callable[[EndpointId], object] = lambda endpoint_id: None,
    ) -> None:
        """`terms` are what holds for the jobs of an endpoint; every one that is submitted asks. `endpoint_of` raises
        `NotFound` for an endpoint that has been deleted.
        """
        self._terms = terms
        self._endpoint_of = endpoint_of
        self._store = store
        self._dispatch = dispatch
        self._inputs = inputs
        self._signals = signals
        self._clock = clock
        self._ids = ids
        self.closing = False
        """The platform stops and takes no new job."""
        self.admit: Callable[[], None] = lambda: None
        """Set by the composition root: raises `TooBusy` while there is no room for what is new."""

    def new_id(self, *, sync: bool) -> JobId:
        """An id for a job that is about to be submitted."""
        return self._ids.job(sync=sync)

    @property
    def outlive_process(self) -> bool:
        """Whether jobs go on under the next process when this one ends."""
        return self._store.outlives_process

    def takes_a_moment(self, request: Request) -> bool:
        """To submit it: its input is kept first. Until then nobody finds the job."""
        return len(request.input) > self._inputs.inline_bytes_max

    async def submit(
        self,
        endpoint: Endpoint,
        request: Request,
        job_id: JobId,
        if_lost: Callable[[RunyardError], None] | None = None,
        *,
        fingerprint: bytes | None = None,
    ) -> Job:
        """Keep a new job and hand it to a waiting worker. Once this returns the job is as safe as the store is.

        For who waits for the job to end, that may be some milliseconds later: `if_lost` is told if it could not be kept. Not
        so where it `takes_a_moment`.
        `fingerprint` is for a job that its client has named.
        """
        self._check_open()
        self.admit()
        now = self._clock.now()
        terms, policy = self._terms(endpoint.id), request.policy
        timeout = policy.execution_timeout or endpoint.execution_timeout
        ttl_s = terms.ttl_s if policy.ttl is None else policy.ttl.total_seconds()
        job = Job(
            id=job_id,
            endpoint_id=endpoint.id,
            input=request.input,
            webhook=request.webhook,
            s3_config=request.s3_config,
            policy=policy,
            created_at=now,
            queued_at=now,
            execution_timeout_s=timeout.total_seconds(),
            expires_at=now + ttl_s,
            ttl_s=ttl_s,
            ttl_scope=terms.ttl_scope,
            # A client that names its job comes back for it, perhaps by `run` when it came by `runsync`.
            retention_s=terms.retention_of(request.sync_wait_s if fingerprint is None else None),
            fingerprint=fingerprint,
        )
        if len(request.input) > self._inputs.inline_bytes_max:
            return await self._inputs.spill(job, self._submit_spilled)
        return await self._dispatch.submit(job, if_lost)

    async def _submit_spilled(self, job: Job) -> Job:
        """Much may have happened while its input was being kept: one of its name may have come, ended, and be gone."""
        if job.fingerprint is not None and await self._store.find(job.endpoint_id, job.id) is not None:
            raise Conflict(f"job {job.id} has come meanwhile")
        self._check_open()
        self._endpoint_of(job.endpoint_id)
        return await self._dispatch.submit(job)

    async def submit_once(self, endpoint: Endpoint, request: Request, job_id: JobId) -> tuple[Job, bool]:
        """As `submit`, for a job that its client has named; or the job of that name, if there is one: as it is kept, and
        True. Raises `Conflict` if that was another request, `Expired` if its time is over: it does not run again.
        """
        asked = fingerprint(request.input, request.webhook, request.policy, request.s3_config)
        for _ in range(_CAS_ATTEMPTS_MAX):
            known = await self._store.find(endpoint.id, job_id)
            if known is not None:
                check_same(job_id, known.fingerprint, asked)
                return self._here(known), True
            # Another one may come first, and may yet fail to be kept; then this one is the first.
            with suppress(Conflict):
                return await self.submit(endpoint, request, job_id, fingerprint=asked), False
        raise Conflict(f"the id {job_id} is that of a job at another endpoint; choose another")

    async def get(self, endpoint_id: EndpointId, job_id: JobId) -> Job:
        """Raises `Expired` for a job whose time is over, `NotFound` for one that never was."""
        return self._here(await self._find(endpoint_id, job_id))

    async def get_kept(self, endpoint_id: EndpointId, job_id: JobId) -> Job:
        """As `get`, or a job that is kept behind its time."""
        return self._there(await self._find(endpoint_id, job_id))

    async def expire_in(self, endpoint_id: EndpointId, job_id: JobId, ttl_s: float) -> Job:
        """Set when the job is deleted, counted from now (F006)."""
        ttl_s = min(ttl_s, POLICY_MAX.total_seconds())
        return await self._change(endpoint_id, job_id, lambda job, now: job.expire_in(ttl_s, now))

    async def cancel(self, endpoint_id: EndpointId, job_id: JobId) -> Job:
        """Cancel a waiting or running job, stopping it on its worker. One that has ended stays as it ended."""
        before = await self.get(endpoint_id, job_id)
        if before.terminal:
            return before
        after = await self._change(endpoint_id, job_id, lambda job, now: job if job.terminal else job.cancel(now))
        self._dispatch.stop_job(after)
        self._ended(after)
        return after

    async def retry(self, endpoint_id: EndpointId, job_id: JobId, *, force: bool = False, kept: bool = False) -> Job:
        """Queue a FAILED or TIMED_OUT job again; `kept`: one whose time is over, too. Raises `InvalidTransition` for any
        other (F010), and for one that is quarantined, unless `force`.
        """
        self.admit()  # It will have a result again, which nobody has promised yet.
        job = await self._change(endpoint_id, job_id, lambda job, now: job.retry(now, force=force), kept=kept)
        await self._dispatch.requeued(endpoint_id)
        return job

    async def purge(self, endpoint_id: EndpointId) -> int:
        """Cancel all jobs that waited when this was called; running ones go on (F011). Returns how many."""
        left = (await self._store.counts(endpoint_id)).in_queue
        removed = 0
        while left > 0:
            job_ids = await self._store.purge(endpoint_id, self._clock.now(), min(left, PURGE_BATCH))
            if not job_ids:
                break
            removed += len(job_ids)
            left -= len(job_ids)
            for job_id in job_ids:
                self._signals.fire(job_id)
            await self._clock.sleep(0)  # Let others run: a million jobs take seconds.
        self._signals.fire(topics.demand(endpoint_id))
        return removed

    async def stream(self, endpoint_id: EndpointId, job_id: JobId) -> tuple[Job, list[bytes]]:
        """The job and the chunks not drained before; with a job that has ended come all that are left."""
        job = await self.get(endpoint_id, job_id)
        return job, await self._store.drain_output(job, None if job.terminal else STREAM_REPLY_BYTES_MAX)

    async def read_stream(self, endpoint_id: EndpointId, job_id: JobId, place: Place, bytes_max: int) -> Page:
        """The job and the chunks behind a place, which stay there for others. It is all read when an ended job has none."""
        job = await self.get(endpoint_id, job_id)
        begins_at = place.in_attempt_of(job)
        chunks = await self._store.read_output(job, begins_at.seen, bytes_max)
        return Page(job, chunks, begins_at, anew=begins_at.seen < place.seen)

    async def list(self, endpoint_id: EndpointId, query: JobQuery) -> JobPage:
        return await self._store.list(endpoint_id, query)

    async def counts(self, endpoint_id: EndpointId) -> JobCounts:
        return await self._store.counts(endpoint_id)

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        """Cancel the waiting and running jobs of a deleted endpoint, then forget all it had (D.7).

        Who waits for one gets it CANCELLED, before it is forgotten.
        """
        active = frozenset({JobState.IN_QUEUE, JobState.IN_PROGRESS})
        query = JobQuery(states=active, limit=1000)
        while True:
            page = await self._store.list(endpoint_id, query)
            for job in page.jobs:
                with suppress(NotFound):  # It has just expired.
                    await self.cancel(endpoint_id, job.id)
            if page.next is None:
                break
            query = replace(query, after=page.next)
        await self._store.remove_endpoint(endpoint_id)

    def on_change(self, job_id: JobId, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when the job ends or gets stream chunks, until the returned function is called."""
        return self._signals.subscribe(job_id, wake)

    def _check_open(self) -> None:
        if self.closing:
            raise TooBusy("the platform is stopping; send the job again when it is back")

    async def _find(self, endpoint_id: EndpointId, job_id: JobId) -> Job | Tombstone:
        found = await self._store.find(endpoint_id, job_id)
        if found is None:
            raise NotFound(f"job {job_id} not found on endpoint {endpoint_id}: it never was here, or long ago")
        return found

    def _here(self, found: Job | Tombstone) -> Job:
        job = self._there(found)
        if job.has_expired(self._clock.now()):
            raise _expired(job)
        return job

    def _there(self, found: Job | Tombstone) -> Job:
        # One that has not ended is on its way to what is left of it.
        if isinstance(found, Tombstone) or (not found.terminal and found.has_expired(self._clock.now())):
            raise _expired(found)
        return found

    async def _change(
        self, endpoint_id: EndpointId, job_id: JobId, change: Callable[[Job, float], Job], *, kept: bool = False
    ) -> Job:
        for _ in range(_CAS_ATTEMPTS_MAX):
            was = await (self.get_kept if kept else self.get)(endpoint_id, job_id)
            job = change(was, self._clock.now())
            if job is was:
                return job
            if await self._store.save(job, was=was):
                return job
        raise Conflict(f"job {job_id} keeps changing; try again")

    def _ended(self, job: Job) -> None:
        self._signals.fire(job.id)
        self._signals.fire(topics.demand(job.endpoint_id))


def _expired(of: Job | Tombstone) -> Expired:
    """What became of it, said to who asks."""
    path = f"/v2/{of.endpoint_id}/requests/{of.id}" if isinstance(of, Job) and of.terminal else None
    job_id, ended_at = (of.id, of.finished_at) if isinstance(of, Job) else (of.job_id, of.ended_at)
    if path is not None:
        message = f"job {job_id} has expired: it ended {of.state}, and what it gave can still be read at {path}"
    elif of.state in TERMINAL:
        message = f"job {job_id} has expired: it ended {of.state}, and what it gave is kept no more"
    else:
        message = f"job {job_id} has expired: its time to live was over while it was {of.state}"
    return Expired(message, job_id=job_id, state=of.state.value, created_at=of.created_at, ended_at=ended_at, path=path)
