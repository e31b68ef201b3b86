"""Jobs in memory: the fastest store, and the meaning of the port. It forgets everything when the process ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runyard.adapters.stores.archive import MemoryArchive, page
from runyard.adapters.stores.entries import Entry
from runyard.adapters.stores.index import IndexedJobs, JobIndex
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.domain.errors import RunyardError
from runyard.domain.job import EndpointId, Job, JobId, WorkerId
from runyard.domain.tombstone import Tombstone, tombstone_of
from runyard.domain.webhook import owes
from runyard.ports.stores import JobPage, JobQuery, Ready


class MemoryJobs(IndexedJobs):
    """A `JobStore` that holds at most `bytes_max` bytes of payload. Without an outbox ends owe their webhooks nothing."""

    outlives_process = False

    def __init__(self, *, bytes_max: int = 1 << 31, outbox: MemoryOutbox | None = None) -> None:
        super().__init__(JobIndex(bytes_max=bytes_max))
        self.outbox = outbox
        self.archive = MemoryArchive()

    async def close(self) -> None:
        """Nothing is kept."""
        if self.outbox is not None:
            self.outbox.close()

    async def add(self, job: Job) -> None:
        self._index.add(job)

    async def add_soon(self, job: Job) -> int:
        self._index.add(job)
        return 0

    async def kept(self, change: int) -> None:
        """It is, as well as it ever will be."""

    def if_lost(self, change: int, tell: Callable[[RunyardError], None]) -> None:
        """It never is."""

    async def latest(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        entry = self._index.find(endpoint_id, job_id)
        return None if entry is None else entry.job

    async def get(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        found = await self.find(endpoint_id, job_id)
        return None if isinstance(found, Tombstone) else found

    async def find(self, endpoint_id: EndpointId, job_id: JobId) -> Job | Tombstone | None:
        found = self._index.find(endpoint_id, job_id) or self.archive.find(endpoint_id, job_id)
        return found.job if isinstance(found, Entry) else found

    async def take(
        self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float, ready: Ready | None = None
    ) -> list[Job]:
        chosen = self._index.takeable(endpoint_id, worker_id, limit, now, ready)
        for entry in chosen:
            self._index.change(entry, entry.job.take(worker_id, now))
        return [entry.job for entry in chosen]

    async def save(self, job: Job, was: Job) -> bool:
        entry = self._index.current(was) or self._back(was)
        if entry is None:
            return False
        self._change(entry, job)
        return True

    async def put_away(self, jobs: Sequence[Job], now: float) -> list[Job]:
        entries = [entry for job in jobs if (entry := self._index.current(job)) is not None]
        for entry in entries:
            self._index.remove(entry)
            if entry.job.terminal:
                entry.chunks = None
                self.archive.keep(entry)
            else:
                self.archive.mark(tombstone_of(entry.job, now))
        return [entry.job for entry in entries]

    async def purge(self, endpoint_id: EndpointId, now: float, limit: int) -> list[JobId]:
        doomed = self._index.waiting(endpoint_id, limit)
        for entry in doomed:
            self._change(entry, entry.job.cancel(now))
        return [entry.job.id for entry in doomed]

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        self._index.remove_endpoint(endpoint_id)

    async def append_output(self, job: Job, chunks: Sequence[bytes]) -> bool:
        entry = self._index.leased_as(job)
        if entry is None:
            return False
        self._index.append_output(entry, chunks)
        return True

    async def drain_output(self, job: Job, bytes_max: int | None) -> list[bytes]:
        entry = self._entry(job)
        return [] if entry is None else self._index.drain_output(entry, bytes_max)

    async def read_output(self, job: Job, after: int, bytes_max: int) -> list[bytes]:
        entry = self._entry(job)
        return [] if entry is None or entry.job.lease != job.lease else self._index.read_output(entry, after, bytes_max)

    async def list(self, endpoint_id: EndpointId, query: JobQuery) -> JobPage:
        window = self._index.window(endpoint_id, query)
        return page(window, self.archive.between(endpoint_id, query, window), query)

    def _entry(self, job: Job) -> Entry | None:
        found = self._index.find(job.endpoint_id, job.id) or self.archive.find(job.endpoint_id, job.id)
        return found if isinstance(found, Entry) else None

    def _back(self, was: Job) -> Entry | None:
        """The entry of a job that was put away as this, among the others again."""
        found = self.archive.find(was.endpoint_id, was.id)
        if not isinstance(found, Entry) or found.job != was or self._index.entry(was.id) is not None:
            return None
        self._index.readmit(found)
        self.archive.take(was.endpoint_id, was.id)
        return found

    def _change(self, entry: Entry, job: Job) -> None:
        was = entry.job
        self._index.change(entry, job)
        if job.webhook is not None and self.outbox is not None and owes(job, was):
            self.outbox.owe(job)
