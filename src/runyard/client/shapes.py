"""What clients see of a job. Open: fields of a newer platform are passed over."""

from __future__ import annotations

from typing import Any

import msgspec

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


class QueueReason(msgspec.Struct):
    """Why a job waits."""

    code: str
    message: str


class Attempt(msgspec.Struct, rename="camel", omit_defaults=True):
    """A try of one worker at a job that gave no result. Times are RFC 3339."""

    run: int
    worker_id: str
    taken_at: str
    ended_at: str
    cause: str
    counted: bool
    """Whether it used up one of the job's attempts."""
    reason: str
    exit_code: int | None = None
    signal: int | None = None
    last_lines: list[str] = []


_WIRE_NAMES = {
    "delay_ms": "delayTime",
    "execution_ms": "executionTime",
    "worker_id": "workerId",
    "queue_reason": "queueReason",
}


class JobStatus(msgspec.Struct, omit_defaults=True, rename=_WIRE_NAMES):
    """A job at one moment (contract A.4)."""

    id: str
    status: str
    output: Any = None
    """Any JSON value: the result, or while the job runs its latest progress."""
    error: str | None = None
    delay_ms: int | None = None
    execution_ms: int | None = None
    worker_id: str | None = None
    queue_reason: QueueReason | None = None
    quarantined: bool = False
    """It has killed workers, and runs again only where somebody insists. Here and in `attempts` only from `Job.detail`."""
    attempts: list[Attempt] = []

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def ok(self) -> bool:
        return self.status == "COMPLETED"


class Chunk(msgspec.Struct):
    output: Any = None


class Chunks(msgspec.Struct):
    """What `/stream` gave: the chunks nobody has read yet, and where the job is."""

    status: str
    stream: list[Chunk]

    @property
    def last(self) -> bool:
        """The job has ended and its chunks are all read."""
        return self.status in ENDED and not self.stream


class Purged(msgspec.Struct):
    removed: int
