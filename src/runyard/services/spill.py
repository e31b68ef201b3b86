"""Large inputs and results: in beside the job store, out of it, and away when no job names them any more.

A payload is written and kept first, and named by the job, or its end, afterwards, so that a job never names what is not
there. What is not named by the job that it is for is forgotten: of jobs that were not taken, of results that came too late,
of jobs that expired, were queued again or went with their endpoint, and of a platform that died in between. A sweep finds
it, and so it needs no other care.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from runyard.domain.errors import NotFound, RunyardError, TooBusy
from runyard.domain.job import EndpointId, Job, JobId, WorkerId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Draft, Kept, Payloads, Reading
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock

SWEEP_S = 60.0
"""How long what is named no more may still take its space, but for `REST`."""
REST = 50.0
"""After a sweep there is none for so many times as long as it took: it looks at each payload's job."""
REST_S_MAX = 3600.0
"""A clock that is set while it sweeps must not put off the next one for long."""
_BATCH = 500

log = logging.getLogger(__name__)


class Carried:
    """Outputs that webhooks carry, while the ends of their jobs are being stored.

    What an end owes is rendered in the instant in which that end is stored, and nobody may wait for a disk or a network
    then. So the output is brought here before.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        """The largest that is carried."""
        self._outputs: dict[str, bytes] = {}

    def get(self, payload: Spilled) -> bytes | None:
        """None when it is not carried."""
        return self._outputs.get(payload.ref)

    def put(self, payload: Spilled, output: bytes) -> None:
        self._outputs[payload.ref] = output

    def drop(self, payload: Spilled) -> None:
        self._outputs.pop(payload.ref, None)


class Spills:
    """`run` is the loop that forgets."""

    def __init__(self, payloads: Payloads, store: JobStore, clock: Clock, carried: Carried) -> None:
        self._payloads = payloads
        self._store = store
        self._clock = clock
        self._carried = carried
        self._coming: Counter[tuple[EndpointId, JobId]] = Counter()
        """Jobs for which something comes in that they do not name yet."""

    async def begin(self, endpoint_id: EndpointId, job_id: JobId, worker_id: WorkerId) -> Incoming | None:
        """Take in a result of a worker; None when its word about this job does not count (any more)."""
        job = await self._store.latest(endpoint_id, job_id)
        if job is None or not job.held_by(worker_id):
            return None
        draft = await self._payloads.begin(endpoint_id, job_id)
        kept = self._carry if job.webhook is not None else None
        return Incoming(draft, self._coming, (endpoint_id, job_id), kept=kept, over=self._carried.drop)

    async def begin_input(self, job: Job) -> Incoming:
        """Take in the input of a job that is about to be stored. Raises `TooBusy`."""
        draft = await self._payloads.begin(job.endpoint_id, job.id)
        return Incoming(draft, self._coming, (job.endpoint_id, job.id), kept=None, over=lambda payload: None)

    async def drop_unless_named(self, payload: Spilled, job: Job) -> None:
        """Forget what was kept for this job, if that does not name it. Where it cannot be now, the sweep does it."""
        kept = Kept(payload.ref, job.endpoint_id, job.id)
        with suppress(OSError, TooBusy):
            if not await self._is_named(kept):
                await self._payloads.forget([kept.ref])

    async def open(self, payload: Spilled) -> Reading:
        """Raises `NotFound`."""
        return await self._payloads.open(payload)

    async def load(self, payload: Spilled) -> bytes:
        """All of it, where it is small enough to be in memory. Raises `NotFound`."""
        reading = await self._payloads.open(payload)
        try:
            pieces: list[bytes] = []
            while piece := await reading.read(payload.size):
                pieces.append(piece)
        finally:
            await reading.close()
        data = b"".join(pieces)
        if len(data) != payload.size:
            raise NotFound(
                f"a payload of {payload.size} bytes, {payload.ref}, is not whole any more: {len(data)} are left"
            )
        return data

    async def _carry(self, payload: Spilled) -> None:
        if payload.size > self._carried.bytes_max:
            return
        try:
            self._carried.put(payload, await self.load(payload))
        except (RunyardError, OSError) as error:  # The webhook will say where it is instead.
            log.warning("a large output will not go with its webhook: %s", error)

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            began = self._clock.now()
            await self.sweep()
            took = self._clock.now() - began
            await self._clock.sleep(max(SWEEP_S, min(REST * took, REST_S_MAX)))

    async def sweep(self) -> None:
        """Forget what no job names."""
        try:
            await self._forget(await self._payloads.kept())
        except (OSError, TooBusy) as error:
            log.warning("large payloads that nobody needs could not be removed: %s", error)

    async def _forget(self, all_kept: Sequence[Kept]) -> None:
        gone: list[str] = []
        for number, kept in enumerate(all_kept, 1):
            if not self._coming[kept.endpoint_id, kept.job_id] and not await self._is_named(kept):
                gone.append(kept.ref)
            if number % _BATCH == 0:
                await self._clock.sleep(0)  # Let others run.
        if gone:
            await self._payloads.forget(gone)

    async def _is_named(self, kept: Kept) -> bool:
        try:
            job = await self._store.get(kept.endpoint_id, kept.job_id)
        except TooBusy:
            return True  # As long as nobody knows.
        return job is not None and names(job, kept.ref)


class Incoming:
    """A payload that comes in for a job, until the job names it, or nobody wants it. To be closed in any case."""

    def __init__(
        self,
        draft: Draft,
        coming: Counter[tuple[EndpointId, JobId]],
        job: tuple[EndpointId, JobId],
        *,
        kept: Callable[[Spilled], Awaitable[None]] | None,
        over: Callable[[Spilled], None],
    ) -> None:
        """`kept` is done before the job can name it, `over` when it does, or nobody wants it."""
        self._draft = draft
        self._coming = coming
        self._job = job
        self._kept = kept
        self._over = over
        self._payload: Spilled | None = None
        coming[job] += 1
        self.write = draft.write

    @property
    def spoiled(self) -> bool:
        """It can only be closed."""
        return self._draft.spoiled

    async def keep(self) -> Spilled:
        """Raises `TooBusy`; it can be tried again unless it is spoiled."""
        self._payload = await self._draft.keep()
        if self._kept is not None:
            await self._kept(self._payload)
        return self._payload

    async def close(self) -> None:
        """If it was kept, it lasts as long as the job names it."""
        if self._payload is not None:
            self._over(self._payload)
        self._coming[self._job] -= 1
        if not self._coming[self._job]:
            del self._coming[self._job]
        try:
            await self._draft.drop()
        except (OSError, RunyardError) as error:  # It is in nobody's way, and why it is dropped matters more.
            log.warning("what came in for job %s and is not wanted could not be removed: %s", self._job[1], error)


def names(job: Job, ref: str) -> bool:
    return any(isinstance(payload, Spilled) and payload.ref == ref for payload in (job.input, job.output))
