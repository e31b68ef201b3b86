"""The state of all jobs in memory, behind the memory store and the embedded one.

Every job is one `Entry`, found by id. Per endpoint (`_Shelf`) there are the waiting ones in order, and all by number for
listing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice

from runyard.adapters.stores.due import DueTimes
from runyard.adapters.stores.entries import (
    Before,
    Entry,
    Totals,
    Window,
    chunks_bytes,
    entry_bytes,
    job_bytes,
    matches,
    result_bytes,
)
from runyard.adapters.stores.waiting import Waiting
from runyard.domain.errors import Conflict, TooBusy
from runyard.domain.fleet import Demand
from runyard.domain.job import IN_PROGRESS, IN_QUEUE, EndpointId, Job, JobId, JobState, WorkerId
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobCounts, JobQuery, Ready

LIST_SCAN_MAX = 10_000
"""Entries one `list` looks at; a page may be short and still have a `next`."""


class _Shelf:
    __slots__ = ("ended", "entries", "in_progress", "next_number", "retried", "waiting")

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.entries: dict[int, Entry] = {}
        self.next_number = 1
        self.in_progress = 0
        self.retried = 0
        self.ended: dict[JobState, int] = dict.fromkeys(JobState, 0)


class JobIndex:
    """What `JobStore` asks for, at once and without a promise to keep it. Holds at most `bytes_max` bytes of payload."""

    def __init__(self, *, bytes_max: int = 1 << 31) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: dict[JobId, Entry] = {}
        self._shelves: dict[EndpointId, _Shelf] = {}
        self._due = DueTimes()
        self._ended: OrderedDict[JobId, Entry] = OrderedDict()
        """In the order of their ends."""
        self._first = self._last = 0
        """Ranks of the first and the last place that were ever given."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def payload_bytes(self) -> int:
        return self._bytes

    @property
    def ended_count(self) -> int:
        return len(self._ended)

    def ended(self, limit: int, stream_bytes_max: int) -> list[Entry]:
        """Jobs that have ended, those first that have for longest, but for those with a longer stream."""
        return list(islice((e for e in self._ended.values() if chunks_bytes(e) <= stream_bytes_max), limit))

    def add(self, job: Job) -> Entry:
        if job.id in self._entries:
            raise Conflict(f"job {job.id} exists already")
        self._reserve(job_bytes(job))
        shelf = self._shelf(job.endpoint_id)
        entry = Entry(job, shelf.next_number)
        shelf.next_number += 1
        self._last += 1
        entry.rank = self._last
        shelf.entries[entry.number] = entry
        self._entries[job.id] = entry
        self._enter(shelf, entry, None)
        self._schedule(entry)
        return entry

    def restore(self, entry: Entry) -> None:
        """Put back what was written down. Waiting jobs are to come in the order of their rank."""
        job, shelf = entry.job, self._shelf(entry.job.endpoint_id)
        self._bytes += entry_bytes(entry)
        self._entries[job.id] = shelf.entries[entry.number] = entry
        shelf.next_number = max(shelf.next_number, entry.number + 1)
        self._first, self._last = min(self._first, entry.rank), max(self._last, entry.rank)
        self._enter(shelf, entry, None)
        shelf.ended[job.state] -= job.terminal  # Totals are written down by themselves.
        self._schedule(entry)

    def readmit(self, entry: Entry) -> None:
        """As `restore`, if there is room for it. Raises `TooBusy`."""
        self._check_room(entry_bytes(entry))
        self.restore(entry)

    def put_back(self, entry: Entry) -> None:
        """Undo its removal."""
        self.restore(entry)
        if entry.job.state is IN_QUEUE:
            self._shelf(entry.job.endpoint_id).waiting.move_up(entry)

    def undo(self, entry: Entry, before: Before | None) -> None:
        """Make it what it was before changes that could not be kept; None: it was not there."""
        shelf, job = self._shelf(entry.job.endpoint_id), entry.job
        if before is None:
            shelf.ended[job.state] -= job.terminal
            self._delete(shelf, entry)
            return
        was, moved = before.job, job.state is not before.job.state
        if job.terminal and (moved or job.run != was.run):
            shelf.ended[job.state] -= 1
        if was.terminal and moved:
            shelf.ended[was.state] -= 1  # Moving it back will count it again.
        if job.run == was.run:
            shelf.retried -= max(0, job.attempts_lost - was.attempts_lost)
        self._bytes -= chunks_bytes(entry)
        entry.chunks, entry.drained = before.chunks and before.chunks[: before.chunk_count], before.drained
        self._bytes += chunks_bytes(entry)
        self._move(shelf, entry, before.job)

    def totals(self, endpoint_id: EndpointId) -> Totals:
        shelf = self._shelf(endpoint_id)
        return Totals(ended=dict(shelf.ended), retried=shelf.retried, next_number=shelf.next_number)

    def set_totals(self, endpoint_id: EndpointId, totals: Totals) -> None:
        shelf = self._shelf(endpoint_id)
        shelf.ended |= totals.ended
        shelf.retried, shelf.next_number = totals.retried, max(shelf.next_number, totals.next_number)

    @property
    def endpoints(self) -> list[EndpointId]:
        return list(self._shelves)

    def find(self, endpoint_id: EndpointId, job_id: JobId) -> Entry | None:
        entry = self._entries.get(job_id)
        return entry if entry is not None and entry.job.endpoint_id == endpoint_id else None

    def entry(self, job_id: JobId) -> Entry | None:
        return self._entries.get(job_id)

    def takeable(
        self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float, ready: Ready | None
    ) -> list[Entry]:
        shelf = self._shelves.get(endpoint_id)
        if shelf is None or not shelf.waiting:
            return []
        chosen: list[Entry] = []
        for entry in shelf.waiting:
            job = entry.job
            if worker_id not in job.fenced_from and job.expires_at > now:
                if ready is not None and isinstance(job.input, Spilled) and not ready(job):
                    break
                chosen.append(entry)
                if len(chosen) == limit:
                    break
        return chosen

    def current(self, job: Job) -> Entry | None:
        """The entry of a job that is still as `job` is."""
        entry = self._entries.get(job.id)
        return entry if entry is not None and (entry.job is job or entry.job == job) else None

    def change(self, entry: Entry, job: Job) -> None:
        if job.state is IN_QUEUE:
            self._forget_output(entry)
        self._move(self._shelf(job.endpoint_id), entry, job)

    def remove(self, entry: Entry) -> None:
        self._delete(self._shelf(entry.job.endpoint_id), entry)

    def waiting(self, endpoint_id: EndpointId, limit: int) -> list[Entry]:
        """The first in the queue."""
        return list(islice(self._shelf(endpoint_id).waiting, limit))

    def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        shelf = self._shelves.pop(endpoint_id, None)
        if shelf is not None:
            for entry in list(shelf.entries.values()):
                self._delete(shelf, entry)

    def leased_as(self, job: Job) -> Entry | None:
        """The entry of a running job whose lease is that of `job`."""
        entry = self._entries.get(job.id)
        return entry if entry is not None and entry.job.state is IN_PROGRESS and entry.job.lease == job.lease else None

    def last_leased_as(self, job: Job) -> Entry | None:
        """The entry of a job whose lease is, or at its end was, that of `job`."""
        entry = self._entries.get(job.id)
        return entry if entry is not None and entry.job.lease == job.lease else None

    def append_output(self, entry: Entry, chunks: Sequence[bytes]) -> None:
        self._reserve(sum(map(len, chunks)))
        if entry.chunks is None:
            entry.chunks = []
        entry.chunks.extend(chunks)

    def drain_output(self, entry: Entry, bytes_max: int | None) -> list[bytes]:
        page = self.read_output(entry, entry.drained, bytes_max)
        entry.drained += len(page)
        return page

    def read_output(self, entry: Entry, after: int, bytes_max: int | None) -> list[bytes]:
        return list(_within(entry.chunks or [], after, bytes_max))

    def due(self, now: float, limit: int) -> list[Job]:
        found: list[Job] = []
        for bucket in self._due.until(now):
            jobs = (self._entries[job_id].job for job_id in bucket)
            found += islice((job for job in jobs if job.due_at <= now), limit - len(found))
            if len(found) >= limit:
                break
        return sorted(found, key=lambda job: job.due_at)

    def demand(self, endpoint_id: EndpointId, overdue_at: float, limit: int) -> Demand:
        shelf = self._shelf(endpoint_id)
        pressing = shelf.waiting.pressing(limit)
        return Demand(
            queued=len(shelf.waiting),
            pressing=len(pressing),
            overdue=sum(1 for job in pressing if job.queued_at <= overdue_at),
            oldest_at=min((job.queued_at for job in pressing), default=None),
            next_at=min((job.queued_at for job in pressing if job.queued_at > overdue_at), default=None),
            in_progress=shelf.in_progress,
        )

    def counts(self, endpoint_id: EndpointId) -> JobCounts:
        shelf = self._shelf(endpoint_id)
        return JobCounts(
            completed=shelf.ended[JobState.COMPLETED],
            failed=shelf.ended[JobState.FAILED],
            cancelled=shelf.ended[JobState.CANCELLED],
            timed_out=shelf.ended[JobState.TIMED_OUT],
            retried=shelf.retried,
            in_queue=len(shelf.waiting),
            in_progress=shelf.in_progress,
        )

    def window(self, endpoint_id: EndpointId, query: JobQuery) -> Window:
        """The newest jobs that a query wants."""
        shelf = self._shelf(endpoint_id)
        top = shelf.next_number if query.after is None else min(int(query.after), shelf.next_number)
        bottom = max(1, top - LIST_SCAN_MAX)
        jobs: list[tuple[int, Job]] = []
        for number in range(top - 1, bottom - 1, -1):
            entry = shelf.entries.get(number)
            if entry is not None and matches(entry.job, query):
                jobs.append((number, entry.job))
                if len(jobs) == query.limit:
                    return Window(jobs, top, number)
        return Window(jobs, top, bottom)

    def _shelf(self, endpoint_id: EndpointId) -> _Shelf:
        shelf = self._shelves.get(endpoint_id)
        if shelf is None:
            shelf = self._shelves[endpoint_id] = _Shelf()
        return shelf

    def _reserve(self, size: int) -> None:
        self._check_room(size)
        self._bytes += size

    def _check_room(self, size: int) -> None:
        if self._bytes + size > self._bytes_max:
            raise TooBusy(
                f"the job store is full ({self._bytes_max} bytes of payload); retry later, or raise store_bytes_max"
            )

    def _move(self, shelf: _Shelf, entry: Entry, job: Job) -> None:
        was, entry.job = entry.job, job
        if job.output is not was.output or job.error is not was.error or job.attempts is not was.attempts:
            self._bytes += result_bytes(job) - result_bytes(was)
        # One that goes on waiting keeps its place: setting its lifetime must not send it to the end.
        if job.state is not was.state:
            self._leave(shelf, was)
            self._enter(shelf, entry, was)
            shelf.retried += job.state is IN_QUEUE and job.attempts_lost > was.attempts_lost
        self._schedule(entry)

    def _enter(self, shelf: _Shelf, entry: Entry, was: Job | None) -> None:
        job = entry.job
        state = job.state
        if state is IN_QUEUE:
            shelf.waiting.append(entry)
            if was is not None:
                self._place(shelf, entry, was)
        elif state is IN_PROGRESS:
            shelf.in_progress += 1
        else:
            shelf.ended[state] += 1
            self._ended[job.id] = entry

    def _place(self, shelf: _Shelf, entry: Entry, was: Job) -> None:
        """Move a job that is back, and so last in the queue, to its place: the queue is in the order of ranks."""
        if was.state is not IN_PROGRESS:
            self._last += 1
            entry.rank = self._last
            return
        if entry.job.attempts_lost > was.attempts_lost:
            self._first -= 1
            entry.rank = self._first
        # Ahead of one whose take is undone can only be what was passed over, being fenced from that worker.
        shelf.waiting.move_up(entry)

    def _leave(self, shelf: _Shelf, job: Job) -> None:
        if job.state is IN_QUEUE:
            shelf.waiting.remove(job)
        elif job.state is IN_PROGRESS:
            shelf.in_progress -= 1
        else:
            del self._ended[job.id]

    def _schedule(self, entry: Entry) -> None:
        second = int(entry.job.due_at)
        if second != entry.due_second:
            self._due.move(entry.job.id, entry.due_second, second)
            entry.due_second = second

    def _delete(self, shelf: _Shelf, entry: Entry) -> None:
        self._leave(shelf, entry.job)
        self._due.drop(entry.job.id, entry.due_second)
        entry.due_second = -1
        self._bytes -= entry_bytes(entry)
        shelf.entries.pop(entry.number, None)
        del self._entries[entry.job.id]

    def _forget_output(self, entry: Entry) -> None:
        self._bytes -= chunks_bytes(entry)
        entry.chunks, entry.drained = None, 0


class IndexedJobs:
    """The part of a `JobStore` that asks nothing but an index: rough figures, and what to look at next."""

    def __init__(self, index: JobIndex) -> None:
        self._index = index

    async def first(self, endpoint_id: EndpointId, limit: int) -> list[Job]:
        return [entry.job for entry in self._index.waiting(endpoint_id, limit)]

    async def due(self, now: float, limit: int) -> list[Job]:
        return self._index.due(now, limit)

    async def demand(self, endpoint_id: EndpointId, overdue_at: float, limit: int) -> Demand:
        return self._index.demand(endpoint_id, overdue_at, limit)

    async def counts(self, endpoint_id: EndpointId) -> JobCounts:
        return self._index.counts(endpoint_id)


def _within(chunks: list[bytes], start: int, bytes_max: int | None) -> Iterator[bytes]:
    """From `start` on. By index: a copy of what is left would cost a long stream its length for each page."""
    total = 0
    for number in range(start, len(chunks)):
        chunk = chunks[number]
        total += len(chunk)
        if bytes_max is not None and total > bytes_max and total > len(chunk):
            return
        yield chunk
