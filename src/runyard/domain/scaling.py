"""How many workers an endpoint may have, and what makes it want more."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from runyard.domain.errors import BadRequest

WORKERS_MAX = 1000
IDLE_TIMEOUT_MIN = timedelta(seconds=1)
IDLE_TIMEOUT_MAX = timedelta(seconds=3600)
QUEUE_DELAY_MIN = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class QueueDelay:
    """Add a worker when a request has waited longer than `delay` (at least 0.5 s; contract C.2, F078)."""

    delay: timedelta = timedelta(seconds=4)

    def __post_init__(self) -> None:
        if self.delay < QUEUE_DELAY_MIN:
            raise BadRequest(f"scaling.queueDelay must be at least 0.5 seconds, not {self.delay.total_seconds():g}")


@dataclass(frozen=True, slots=True)
class RequestCount:
    """Want one worker for every `per_worker` requests queued or running (at least 1; contract C.2, F079)."""

    per_worker: int = 4

    def __post_init__(self) -> None:
        if self.per_worker < 1:
            raise BadRequest(f"scaling.requestCount must be at least 1, not {self.per_worker}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """Bounds and rule of an endpoint's fleet. `workers_min` are always on; the rest come and go with demand."""

    workers_min: int = 0
    workers_max: int = 3
    idle_timeout: timedelta = timedelta(seconds=5)
    scaler: QueueDelay | RequestCount = field(default_factory=QueueDelay)

    def __post_init__(self) -> None:
        if not 0 <= self.workers_min <= self.workers_max <= WORKERS_MAX:
            raise BadRequest(
                f"workers.min ({self.workers_min}) and workers.max ({self.workers_max}) "
                f"must satisfy 0 <= min <= max <= {WORKERS_MAX}"
            )
        if not IDLE_TIMEOUT_MIN <= self.idle_timeout <= IDLE_TIMEOUT_MAX:
            raise BadRequest(
                f"workers.idleTimeout must be 1 to 3600 seconds, not {self.idle_timeout.total_seconds():g}"
            )
