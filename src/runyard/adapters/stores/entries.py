"""What the index has of each job, and how much of it counts."""

from __future__ import annotations

from typing import NamedTuple

from runyard.domain.job import Job, JobState
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobQuery


class Entry:
    __slots__ = ("change", "chunks", "drained", "due_second", "home", "job", "number", "rank")

    def __init__(self, job: Job, number: int) -> None:
        self.job = job
        self.number = number
        """Counts the jobs of an endpoint as they come."""
        self.rank = 0
        """Its place in the queue: who waits longest has the lowest."""
        self.change = 0
        """Number of its last change; for a store that writes changes down."""
        self.home = 0
        """Where it is written down whole."""
        self.due_second = -1
        """The bucket of `DueTimes` that it is in."""
        self.chunks: list[bytes] | None = None
        """Stream output; few jobs have any."""
        self.drained = 0


class Window(NamedTuple):
    """A part of an endpoint's list of jobs, by their numbers: what was found from below `top` down to `bottom`."""

    jobs: list[tuple[int, Job]]
    top: int
    bottom: int

    def has(self, number: int, job: Job, query: JobQuery) -> bool:
        """Whether a job belongs into it."""
        return self.bottom <= number < self.top and matches(job, query)

    def down_to(self, bottom: int) -> Window:
        return Window([found for found in self.jobs if found[0] >= bottom], self.top, bottom)


class Before(NamedTuple):
    """An entry as it was, so that changes to it can be undone. `chunks` is the list itself, which only grows."""

    job: Job
    chunks: list[bytes] | None
    chunk_count: int
    drained: int

    @classmethod
    def of(cls, entry: Entry) -> Before:
        return cls(entry.job, entry.chunks, len(entry.chunks or ()), entry.drained)


class Totals(NamedTuple):
    """What an endpoint has seen, which outlives its jobs."""

    ended: dict[JobState, int]
    retried: int
    next_number: int


def matches(job: Job, query: JobQuery) -> bool:
    if query.states and job.state not in query.states:
        return False
    return query.worker_id is None or (job.lease is not None and job.lease.worker_id == query.worker_id)


def entry_bytes(entry: Entry) -> int:
    """Of payload."""
    return job_bytes(entry.job) + chunks_bytes(entry)


def job_bytes(job: Job) -> int:
    size = len(job.input) if isinstance(job.input, bytes) else 0
    return size + len(job.s3_config or b"") + len(job.webhook or "") + result_bytes(job)


def result_bytes(job: Job) -> int:
    size = len(job.output if isinstance(job.output, bytes) else b"") + len(job.error or "")
    return size + sum(attempt.size for attempt in job.attempts) if job.attempts else size


def spilled_bytes(job: Job) -> int:
    """What of it lies elsewhere."""
    return sum(payload.size for payload in (job.input, job.output) if isinstance(payload, Spilled))


def chunks_bytes(entry: Entry) -> int:
    return 0 if entry.chunks is None else sum(map(len, entry.chunks))
