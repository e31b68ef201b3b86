"""One running copy of a release.

A `Worker` holds facts (phase, times, exit); what people see (`WorkerState`) is derived from them.

    STARTING -> READY -> DRAINING -> STOPPED        STARTING: recorded, perhaps building, nothing heard from it yet
        `---------`--------`-------> STOPPED        READY: it has polled or pinged
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from runyard.domain.attempt import Cause
from runyard.domain.endpoint import Release
from runyard.domain.job import EndpointId, WorkerId


class WorkerPhase(StrEnum):
    """Where a worker is in its one-way life."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


class WorkerState(StrEnum):
    """What people see (contract D.2)."""

    INITIALIZING = "INITIALIZING"
    IDLE = "IDLE"
    RUNNING = "RUNNING"
    THROTTLED = "THROTTLED"
    UNHEALTHY = "UNHEALTHY"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker's process ended: a code, or the signal that killed it."""

    code: int | None
    signal: int | None = None
    with_platform: bool = False
    """What looks after it was gone, and took it along."""
    out_of_memory: bool = False
    """The kernel killed it, or one of its processes, at its limit of memory."""

    def __str__(self) -> str:
        if self.out_of_memory:
            return "killed by the kernel: out of memory"
        return f"killed by signal {self.signal}" if self.signal is not None else f"exit code {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Frozen: every change returns a new `Worker`."""

    id: WorkerId
    endpoint_id: EndpointId
    release: Release
    secret_digest: bytes
    """SHA-256 of the secret that opens this worker's routes and no others."""
    created_at: float
    phase: WorkerPhase = WorkerPhase.STARTING
    spawned_at: float | None = None
    """When its process ran; None while its environment is being built."""
    ready_at: float | None = None
    sdk_version: str | None = None
    """As its pings say."""
    unhealthy_reason: str | None = None
    """What its last unhealthy ping said."""
    stop_reason: str | None = None
    """Why the platform drains or stopped it; None while it is wanted."""
    stopped_at: float | None = None
    exit: Exit | None = None

    @property
    def alive(self) -> bool:
        return self.phase is not WorkerPhase.STOPPED

    @property
    def ending(self) -> str | None:
        """How it ended, for people; None while it has not, or when nobody has seen it."""
        if self.exit is None or not self.exit.out_of_memory:
            return None if self.exit is None else str(self.exit)
        container = self.release.run.container
        limit = None if container is None else container.limits.memory_bytes
        return f"{self.exit}; its limit is " + ("the platform's" if limit is None else f"{limit >> 20} MB")

    @property
    def takes_jobs(self) -> bool:
        return self.phase in (WorkerPhase.STARTING, WorkerPhase.READY)

    def state(self, *, busy: bool) -> WorkerState:
        """What people see, given whether it holds a job."""
        if self.unhealthy_reason is not None or (not self.alive and self.stop_reason is None):
            return WorkerState.UNHEALTHY
        if self.ready_at is None:
            return WorkerState.INITIALIZING
        return WorkerState.RUNNING if busy else WorkerState.IDLE

    def spawned(self, now: float) -> Worker:
        return replace(self, spawned_at=now)

    def heard(self, now: float) -> Worker:
        """It has polled or pinged: the only sign that it is ready (protocol A.3)."""
        phase = WorkerPhase.READY if self.phase is WorkerPhase.STARTING else self.phase
        return replace(self, phase=phase, ready_at=now)

    def runs_sdk(self, version: str) -> Worker:
        return self if version == self.sdk_version else replace(self, sdk_version=version)

    def ailing(self, reason: str) -> Worker:
        """It says itself that it is not fit to work."""
        return replace(self, unhealthy_reason=reason)

    def drain(self, reason: str) -> Worker:
        """No more jobs for it; the first reason stays."""
        return replace(self, phase=WorkerPhase.DRAINING, stop_reason=reason) if self.takes_jobs else self

    def stopped(self, now: float, exit: Exit | None) -> Worker:
        return replace(self, phase=WorkerPhase.STOPPED, stopped_at=now, exit=exit) if self.alive else self


def builder_id(endpoint_id: EndpointId, version: int) -> WorkerId:
    """As if of a worker: what is said while a release is prepared ahead of its first start is logged under this."""
    return WorkerId(f"build-{version}-{endpoint_id}")


def cause_of_end(exit: Exit | None, *, asked: bool) -> Cause:
    """Why the jobs are lost that a worker held when it ended; `asked`: the platform was stopping it.

    Without an `exit` nobody has seen its end: the platform was down, and a machine or a keeper that dies takes all workers.
    """
    if exit is not None and exit.with_platform:
        return Cause.PLATFORM_DIED
    if asked:
        return Cause.WORKER_STOPPED
    return Cause.PLATFORM_DIED if exit is None else Cause.WORKER_DIED
