"""Who has asked for too much: one key of one endpoint and operation at a time (contract A.9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from runyard.domain.account import KeyId
from runyard.domain.errors import TooManyRequests
from runyard.domain.job import EndpointId
from runyard.domain.limits import Counters, Limit, TooFast, TooManyOpen
from runyard.domain.worker import WorkerState

OPEN_RETRY_AFTER_S = 1
"""When an open request will be answered nobody knows; a second spares both sides most of the asking."""


class FleetFacts(Protocol):
    """How many workers are in each state."""

    def worker_states(self, endpoint_id: EndpointId) -> Mapping[WorkerState, int]: ...


class RateLimits:
    """The limits of each operation. What has been asked for lately is in memory alone: a restart forgets it."""

    def __init__(self, limits: Mapping[str, Limit], fleet: FleetFacts) -> None:
        self._limits = limits
        self._fleet = fleet
        self._counters = Counters()

    def covers(self, operation: str) -> bool:
        return operation in self._limits

    def enter(self, key_id: KeyId, endpoint_id: EndpointId, operation: str, now: float) -> Callable[[], None]:
        """Count a request; returns what to call when it is over. Raises `TooManyRequests`."""
        limit = self._limits[operation]
        counter = self._counters.of((key_id, endpoint_id, operation), now)
        refusal = counter.enter(limit, now)
        if isinstance(refusal, TooFast) and limit.per_worker:
            # Workers are only counted for those that are over the base limit: it takes long where there are many.
            refusal = counter.enter(limit.carried_by(self._running(endpoint_id)), now)
        if refusal is not None:
            raise _too_many(refusal, endpoint_id, operation)
        return counter.leave

    def _running(self, endpoint_id: EndpointId) -> int:
        """Workers that have a job or would take one at once."""
        states = self._fleet.worker_states(endpoint_id)
        return states.get(WorkerState.RUNNING, 0) + states.get(WorkerState.IDLE, 0)


def _too_many(refusal: TooFast | TooManyOpen, endpoint_id: EndpointId, operation: str) -> TooManyRequests:
    limit, setting = refusal.limit, f"limits_{operation.replace('-', '_')}"
    match refusal:
        case TooManyOpen():
            return TooManyRequests(
                f"this key may have {limit.in_flight} {operation} requests to endpoint {endpoint_id} open at once, and has: "
                f"wait until one is answered; the platform's setting {setting} raises this (in_flight)",
                OPEN_RETRY_AFTER_S,
            )
        case TooFast():
            workers = f", and so do more running workers ({limit.per_worker} for each)" if limit.per_worker else ""
            return TooManyRequests(
                f"this key may send {limit.requests} {operation} requests in {limit.window_s:g} s to endpoint "
                f"{endpoint_id}, and has: try again in {refusal.retry_after_s} s; the platform's setting {setting} "
                f"raises this (requests){workers}",
                refusal.retry_after_s,
            )
