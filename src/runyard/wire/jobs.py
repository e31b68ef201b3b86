"""Bodies of the data plane (contract A.3-A.5) and of the worker plane (protocol A.2)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    executionTimeout: int | None = None
    lowPriority: bool | None = None
    ttl: int | None = None


class AddedBody(msgspec.Struct, forbid_unknown_fields=True):
    """Our additions to a request."""

    id: str | None = None


class SubmitBody(msgspec.Struct):
    input: Raw | UnsetType = UNSET
    webhook: str | None = None
    policy: PolicyBody | None = None
    s3Config: dict[str, Any] | None = None
    runyard: AddedBody | None = None


class WorkerBody(msgspec.Struct):
    """What a worker posts: a result, a stream chunk, or (`status`) a progress update."""

    output: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    stopPod: bool = False
    status: str | None = None


class JobForWorker(msgspec.Struct, omit_defaults=True):
    id: str
    input: Raw
    webhook: str | None = None
    s3Config: Raw | None = None


class ReasonBody(msgspec.Struct, omit_defaults=True):
    code: str
    message: str


class AttemptBody(msgspec.Struct, omit_defaults=True):
    """An attempt that gave no result: our addition."""

    run: int
    workerId: str
    takenAt: str
    endedAt: str
    cause: str
    counted: bool
    """Whether it used up one of the job's attempts."""
    reason: str
    exitCode: int | None = None
    signal: int | None = None
    lastLines: list[str] = []


class JobBody(msgspec.Struct, omit_defaults=True):
    """A job as `/status` shows it; absent fields are left out (A.4)."""

    id: str
    status: str
    delayTime: int | None = None
    executionTime: int | None = None
    workerId: str | None = None
    output: Raw | UnsetType = UNSET
    outputPath: str | None = None
    """In a webhook, in place of an output that is too large for one: where to GET it."""
    error: str | None = None
    input: Raw | UnsetType = UNSET
    queueReason: ReasonBody | None = None
    quarantined: bool = False
    attempts: list[AttemptBody] = []
    expiresAt: str | None = None
    """When it goes, or has gone, from the other routes."""


class GoneJob(msgspec.Struct, omit_defaults=True):
    """What became of a job whose time is over."""

    id: str
    status: str
    createdAt: str
    endedAt: str | None = None
    path: str | None = None
    """Where it can still be read."""


class ExpiredBody(msgspec.Struct):
    error: str
    runyard: GoneJob


class StreamItem(msgspec.Struct):
    output: Raw


class StreamBody(msgspec.Struct, omit_defaults=True):
    """`stream` is always there: the official client needs it on every reply (protocol B.1)."""

    id: str
    status: str
    stream: list[StreamItem]
    error: str | None = None
    queueReason: ReasonBody | None = None


class ListedJob(msgspec.Struct, omit_defaults=True):
    """One row of `/requests`: everything but the payloads."""

    id: str
    status: str
    createdAt: str
    run: int
    attemptsLost: int
    delayTime: int | None = None
    executionTime: int | None = None
    workerId: str | None = None
    error: str | None = None
    expiresAt: str | None = None


class JobListBody(msgspec.Struct):
    requests: list[ListedJob]
    next: str | None


class HealthJobs(msgspec.Struct):
    completed: int
    failed: int
    inProgress: int
    inQueue: int
    retried: int


class HealthWorkers(msgspec.Struct):
    idle: int
    initializing: int
    ready: int
    running: int
    throttled: int
    unhealthy: int


class HealthBody(msgspec.Struct):
    jobs: HealthJobs
    workers: HealthWorkers
