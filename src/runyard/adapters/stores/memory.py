"""Jobs in memory: the fastest store, and the meaning of the port. It forgets everything when the process ends.

Every job is one `_Entry`, found by id. Per endpoint there is a queue (`_Shelf`): waiting jobs in order, the pressing ones
among them again so that demand is read without walking past low-priority jobs, and all entries by number for listing.
Due times are kept in one-second buckets rather than a heap: a finished job leaves its old bucket at once, where a heap
would carry its 24-hour deadline for 24 hours.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice

from runyard.domain.errors import Conflict, TooBusy
from runyard.domain.fleet import Demand
from runyard.domain.job import IN_PROGRESS, IN_QUEUE, EndpointId, Job, JobId, JobState, WorkerId
from runyard.ports.stores import JobCounts, JobPage, JobQuery

LIST_SCAN_MAX = 10_000
"""Entries one `list` looks at; a page may be short and still have a `next`."""


class _Entry:
    __slots__ = ("chunks", "drained", "due_second", "job", "number")

    def __init__(self, job: Job, number: int) -> None:
        self.job = job
        self.number = number
        self.due_second = -1
        """The bucket it is in."""
        self.chunks: list[bytes] | None = None
        """Stream output; few jobs have any."""
        self.drained = 0


class _Shelf:
    __slots__ = ("ended", "entries", "in_progress", "next_number", "pressing", "retried", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[JobId, _Entry] = OrderedDict()
        self.pressing: OrderedDict[JobId, _Entry] = OrderedDict()
        self.entries: dict[int, _Entry] = {}
        self.next_number = 1
        self.in_progress = 0
        self.retried = 0
        self.ended: dict[JobState, int] = dict.fromkeys(JobState, 0)


class MemoryJobs:
    """A `JobStore` that holds at most `bytes_max` bytes of payload."""

    def __init__(self, *, bytes_max: int = 1 << 31) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: dict[JobId, _Entry] = {}
        self._shelves: dict[EndpointId, _Shelf] = {}
        self._buckets: dict[int, set[JobId]] = {}
        self._seconds: list[int] = []

    async def add(self, job: Job) -> None:
        if job.id in self._entries:
            raise Conflict(f"job {job.id} exists already")
        self._reserve(_size(job))
        shelf = self._shelf(job.endpoint_id)
        entry = _Entry(job, shelf.next_number)
        shelf.next_number += 1
        shelf.entries[entry.number] = entry
        self._entries[job.id] = entry
        self._enter(shelf, entry, None)
        self._schedule(entry)

    async def get(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        entry = self._entries.get(job_id)
        return entry.job if entry is not None and entry.job.endpoint_id == endpoint_id else None

    async def take(self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float) -> list[Job]:
        shelf = self._shelves.get(endpoint_id)
        if shelf is None or not shelf.waiting:
            return []
        chosen: list[_Entry] = []
        for entry in shelf.waiting.values():
            if worker_id not in entry.job.fenced_from:
                chosen.append(entry)
                if len(chosen) == limit:
                    break
        for entry in chosen:
            self._move(shelf, entry, entry.job.take(worker_id, now))
        return [entry.job for entry in chosen]

    async def save(self, job: Job, was: Job) -> bool:
        entry = self._current(was)
        if entry is None:
            return False
        if job.state is IN_QUEUE:
            self._forget_output(entry)
        self._move(self._shelf(job.endpoint_id), entry, job)
        return True

    async def remove(self, job: Job) -> bool:
        entry = self._current(job)
        if entry is None:
            return False
        self._delete(self._shelf(job.endpoint_id), entry)
        return True

    async def purge(self, endpoint_id: EndpointId, now: float, limit: int) -> list[JobId]:
        shelf = self._shelf(endpoint_id)
        doomed = list(islice(shelf.waiting.values(), limit))
        for entry in doomed:
            self._move(shelf, entry, entry.job.cancel(now))
        return [entry.job.id for entry in doomed]

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        shelf = self._shelves.pop(endpoint_id, None)
        if shelf is not None:
            for entry in list(shelf.entries.values()):
                self._delete(shelf, entry)

    async def append_output(self, job: Job, chunks: Sequence[bytes]) -> bool:
        entry = self._entries.get(job.id)
        if entry is None or entry.job.state is not IN_PROGRESS or entry.job.lease != job.lease:
            return False
        self._reserve(sum(map(len, chunks)))
        if entry.chunks is None:
            entry.chunks = []
        entry.chunks.extend(chunks)
        return True

    async def drain_output(self, job: Job, bytes_max: int | None) -> list[bytes]:
        entry = self._entries.get(job.id)
        if entry is None or entry.chunks is None:
            return []
        page = list(_within(entry.chunks, entry.drained, bytes_max))
        entry.drained += len(page)
        return page

    async def read_output(self, job: Job, after: int, bytes_max: int) -> list[bytes]:
        entry = self._entries.get(job.id)
        if entry is None or entry.chunks is None or entry.job.lease != job.lease:
            return []
        return list(_within(entry.chunks, after, bytes_max))

    async def due(self, now: float, limit: int) -> list[Job]:
        found: list[Job] = []
        for second in sorted(s for s in self._passed_seconds(now)):
            bucket = self._buckets[second]
            jobs = (self._entries[job_id].job for job_id in bucket)
            found += islice((job for job in jobs if job.due_at <= now), limit - len(found))
            if len(found) >= limit:
                break
        return sorted(found, key=lambda job: job.due_at)

    async def demand(self, endpoint_id: EndpointId, overdue_at: float, limit: int) -> Demand:
        shelf = self._shelf(endpoint_id)
        pressing = [entry.job for entry in islice(shelf.pressing.values(), limit)]
        return Demand(
            queued=len(shelf.waiting),
            pressing=len(pressing),
            overdue=sum(1 for job in pressing if job.queued_at <= overdue_at),
            oldest_at=min((job.queued_at for job in pressing), default=None),
            next_at=min((job.queued_at for job in pressing if job.queued_at > overdue_at), default=None),
            in_progress=shelf.in_progress,
        )

    async def counts(self, endpoint_id: EndpointId) -> JobCounts:
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

    async def list(self, endpoint_id: EndpointId, query: JobQuery) -> JobPage:
        shelf = self._shelf(endpoint_id)
        top = shelf.next_number if query.after is None else min(int(query.after), shelf.next_number)
        bottom = max(1, top - LIST_SCAN_MAX)
        jobs: list[Job] = []
        for number in range(top - 1, bottom - 1, -1):
            entry = shelf.entries.get(number)
            if entry is not None and _matches(entry.job, query):
                jobs.append(entry.job)
                if len(jobs) == query.limit:
                    return JobPage(jobs=tuple(jobs), next=str(number) if number > 1 else None)
        return JobPage(jobs=tuple(jobs), next=str(bottom) if bottom > 1 else None)

    def _shelf(self, endpoint_id: EndpointId) -> _Shelf:
        shelf = self._shelves.get(endpoint_id)
        if shelf is None:
            shelf = self._shelves[endpoint_id] = _Shelf()
        return shelf

    def _current(self, job: Job) -> _Entry | None:
        entry = self._entries.get(job.id)
        return entry if entry is not None and (entry.job is job or entry.job == job) else None

    def _reserve(self, size: int) -> None:
        if self._bytes + size > self._bytes_max:
            raise TooBusy(
                f"the job store is full ({self._bytes_max} bytes of payload); retry later, or raise store_bytes_max"
            )
        self._bytes += size

    def _move(self, shelf: _Shelf, entry: _Entry, job: Job) -> None:
        was, entry.job = entry.job, job
        if job.output is not was.output or job.error is not was.error:
            self._bytes += _result_size(job) - _result_size(was)
        # One that goes on waiting keeps its place: setting its lifetime must not send it to the end.
        if job.state is not was.state:
            self._leave(shelf, was)
            self._enter(shelf, entry, was.state)
            shelf.retried += job.state is IN_QUEUE and job.attempts_lost > was.attempts_lost
        self._schedule(entry)

    def _enter(self, shelf: _Shelf, entry: _Entry, before: JobState | None) -> None:
        job = entry.job
        state = job.state
        if state is IN_QUEUE:
            shelf.waiting[job.id] = entry
            if not job.policy.low_priority:
                shelf.pressing[job.id] = entry
            if before is IN_PROGRESS:
                shelf.waiting.move_to_end(job.id, last=False)
                if not job.policy.low_priority:
                    shelf.pressing.move_to_end(job.id, last=False)
        elif state is IN_PROGRESS:
            shelf.in_progress += 1
        else:
            shelf.ended[state] += 1

    def _leave(self, shelf: _Shelf, job: Job) -> None:
        if job.state is IN_QUEUE:
            del shelf.waiting[job.id]
            shelf.pressing.pop(job.id, None)
        elif job.state is IN_PROGRESS:
            shelf.in_progress -= 1

    def _schedule(self, entry: _Entry) -> None:
        """Put it into the bucket of its due second."""
        second = int(entry.job.due_at)
        if second == entry.due_second:
            return
        self._unschedule(entry)
        entry.due_second = second
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._new_bucket(second)
        bucket.add(entry.job.id)

    def _unschedule(self, entry: _Entry) -> None:
        bucket = self._buckets.get(entry.due_second)
        if bucket is not None:
            bucket.discard(entry.job.id)

    def _delete(self, shelf: _Shelf, entry: _Entry) -> None:
        self._leave(shelf, entry.job)
        self._unschedule(entry)
        self._forget_output(entry)
        self._bytes -= _size(entry.job)
        shelf.entries.pop(entry.number, None)
        del self._entries[entry.job.id]

    def _forget_output(self, entry: _Entry) -> None:
        if entry.chunks is not None:
            self._bytes -= sum(map(len, entry.chunks))
            entry.chunks, entry.drained = None, 0

    def _new_bucket(self, second: int) -> set[JobId]:
        bucket = self._buckets[second] = set()
        heapq.heappush(self._seconds, second)
        return bucket

    def _passed_seconds(self, now: float) -> Iterator[int]:
        """Seconds up to now whose buckets hold jobs; empty ones that lie wholly in the past are dropped on the way."""
        kept: list[int] = []
        while self._seconds and self._seconds[0] <= now:
            second = heapq.heappop(self._seconds)
            if self._buckets[second] or second + 1 > now:
                kept.append(second)
                yield second
            else:
                del self._buckets[second]
        for second in kept:
            heapq.heappush(self._seconds, second)


def _size(job: Job) -> int:
    return len(job.input) + len(job.s3_config or b"") + len(job.webhook or "") + _result_size(job)


def _result_size(job: Job) -> int:
    return len(job.output or b"") + len(job.error or "")


def _within(chunks: list[bytes], start: int, bytes_max: int | None) -> Iterator[bytes]:
    """From `start` on. By index: a copy of what is left would cost a long stream its length for each page."""
    total = 0
    for number in range(start, len(chunks)):
        chunk = chunks[number]
        total += len(chunk)
        if bytes_max is not None and total > bytes_max and total > len(chunk):
            return
        yield chunk


def _matches(job: Job, query: JobQuery) -> bool:
    if query.states and job.state not in query.states:
        return False
    return query.worker_id is None or (job.lease is not None and job.lease.worker_id == query.worker_id)
