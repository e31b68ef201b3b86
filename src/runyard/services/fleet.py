"""Keeps each endpoint's workers as `domain.fleet.plan` wants them.

One loop plans; it is woken by demand and by the clock, and plans an endpoint at most every `PLAN_EVERY_S`, so that its cost
does not grow with traffic. The lifecycle carries out what it decides.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import NotFound
from runyard.domain.fleet import (
    Drain,
    FleetView,
    Plan,
    Preparation,
    QueueReason,
    Start,
    WorkerView,
    demand_limit,
    overdue_at,
    plan,
)
from runyard.domain.job import EndpointId
from runyard.domain.worker import Worker, WorkerState
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Signals
from runyard.services import topics
from runyard.services.lifecycle import EndpointBook, Lifecycle
from runyard.services.roster import LiveWorker, Roster

PLAN_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker and how many jobs it holds."""

    worker: Worker
    jobs: int

    @property
    def state(self) -> WorkerState:
        return self.worker.state(busy=self.jobs > 0)


class _Watch:
    """What the loop remembers of one endpoint."""

    __slots__ = ("planned_at", "prepared", "unsubscribe", "waiting", "wake_at")

    def __init__(self, unsubscribe: Callable[[], None]) -> None:
        self.unsubscribe = unsubscribe
        self.planned_at = float("-inf")
        self.wake_at: float | None = None
        self.waiting: QueueReason | None = None
        self.prepared: str | None = None
        """The release whose environment was asked for ahead of its first start."""


class Fleet:
    """All fleets: `run` is the loop."""

    def __init__(
        self,
        endpoints: EndpointBook,
        store: JobStore,
        roster: Roster,
        signals: Signals,
        clock: Clock,
        lifecycle: Lifecycle,
    ) -> None:
        self._endpoints = endpoints
        self._store = store
        self._roster = roster
        self._signals = signals
        self._clock = clock
        self._lifecycle = lifecycle
        self._watches: dict[EndpointId, _Watch] = {}
        self._closing = False
        self._wake = asyncio.Event()

    # The loop

    async def run(self) -> None:
        """Plan for ever. Ends by cancellation."""
        unsubscribe = self._signals.subscribe(topics.ENDPOINTS, self._sync)
        self._sync()
        try:
            while True:
                await self._plan_due()
                await self._wait()
        finally:
            unsubscribe()

    async def shutdown(self) -> None:
        """Stop all workers, each with its grace, and start no more. They can still report while this waits."""
        self._closing = True
        for live in self._roster:
            self._lifecycle.stop_soon(live, "the platform stops")
        await self._lifecycle.stopped()

    def pause(self) -> None:
        """Plan nothing any more: another process does."""
        self._closing = True

    def touch(self, endpoint_id: EndpointId) -> None:
        """Plan this endpoint soon."""
        watch = self._watches.get(endpoint_id)
        if watch is not None:
            soon = watch.planned_at + PLAN_EVERY_S
            if watch.wake_at is None or watch.wake_at > soon:
                watch.wake_at = soon
                self._wake.set()

    def _sync(self) -> None:
        """Watch the endpoints there are."""
        endpoints = {endpoint.id: endpoint for endpoint in self._endpoints.list()}
        for endpoint_id in self._watches.keys() - endpoints.keys():
            self._watches.pop(endpoint_id).unsubscribe()
        for endpoint_id in endpoints.keys() - self._watches.keys():
            self._watches[endpoint_id] = _Watch(self._subscribe(endpoint_id))
        for endpoint_id in endpoints:
            self.touch(endpoint_id)
        self._lifecycle.forget({endpoint.release.id for endpoint in endpoints.values()})

    def _subscribe(self, endpoint_id: EndpointId) -> Callable[[], None]:
        return self._signals.subscribe(topics.demand(endpoint_id), lambda: self.touch(endpoint_id))

    async def _plan_due(self) -> None:
        self._wake.clear()
        now = self._clock.now()
        for endpoint_id, watch in list(self._watches.items()):
            if watch.wake_at is not None and watch.wake_at <= now:
                watch.wake_at = None
                endpoint = self._endpoint(endpoint_id)
                if endpoint is not None and not self._closing:
                    await self._plan(endpoint, watch)

    async def _wait(self) -> None:
        times = [watch.wake_at for watch in self._watches.values() if watch.wake_at is not None]
        timeout = max(0.0, min(times) - self._clock.now()) if times else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _plan(self, endpoint: Endpoint, watch: _Watch) -> None:
        now = watch.planned_at = self._clock.now()
        if watch.prepared != endpoint.release.id:
            watch.prepared = endpoint.release.id
            self._lifecycle.prepare_ahead(endpoint)
        made = plan(await self._view(endpoint, now), now)
        watch.waiting = made.waiting
        self._apply(endpoint, made)
        live = self._roster.of_endpoint(endpoint.id)
        for worker in live:
            self._lifecycle.record(worker)
        times = [made.wake_at, watch.wake_at, *(self._lifecycle.replace_if_stuck(worker, now) for worker in live)]
        watch.wake_at = min((at for at in times if at is not None), default=None)

    async def _view(self, endpoint: Endpoint, now: float) -> FleetView:
        scaling = endpoint.scaling
        fleet = self._roster.of_endpoint(endpoint.id)
        limit = demand_limit(scaling, max((live.concurrency for live in fleet), default=1))
        demand = await self._store.demand(endpoint.id, overdue_at(scaling, now), limit)
        return FleetView(
            scaling=scaling,
            demand=demand,
            workers=tuple(_worker_view(live, endpoint) for live in self._roster.of_endpoint(endpoint.id)),
            failures=self._lifecycle.failures_of(endpoint),
            preparing=self._lifecycle.preparations.reason(endpoint),
        )

    def _apply(self, endpoint: Endpoint, made: Plan) -> None:
        for action in made.actions:
            match action:
                case Start(reason):
                    self._lifecycle.start(endpoint, reason)
                case Drain(worker_id, reason):
                    live = self._roster.get(worker_id)
                    if live is not None:
                        self._lifecycle.replace(live, reason)
        for live in self._roster.of_endpoint(endpoint.id):
            self._lifecycle.stop_if_free(live)

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        """Begin to stop all workers of a deleted endpoint, whatever they hold."""
        for live in self._roster.of_endpoint(endpoint_id):
            self._lifecycle.stop_soon(live, "the endpoint was deleted")
        self._roster.forget_endpoint(endpoint_id)

    # What others may know

    def workers(self, endpoint_id: EndpointId) -> list[WorkerReport]:
        """Workers that are alive."""
        return [WorkerReport(live.worker, len(live.held)) for live in self._roster.of_endpoint(endpoint_id)]

    def stopped_workers(self, endpoint_id: EndpointId) -> list[WorkerReport]:
        """The last few that ended, newest first."""
        return [WorkerReport(worker, 0) for worker in self._roster.stopped_of(endpoint_id)]

    def worker_states(self, endpoint_id: EndpointId) -> Mapping[WorkerState, int]:
        return Counter(report.state for report in self.workers(endpoint_id))

    def queue_reason(self, endpoint_id: EndpointId) -> QueueReason | None:
        """Why a job of this endpoint that waits now waits."""
        watch = self._watches.get(endpoint_id)
        return None if watch is None or watch.waiting is None else watch.waiting.at(self._clock.now())

    def preparation(self, endpoint_id: EndpointId) -> Preparation | None:
        """How far the release is that the endpoint has now; None: nothing was tried yet."""
        endpoint = self._endpoint(endpoint_id)
        return None if endpoint is None else self._lifecycle.preparations.of(endpoint)

    def _endpoint(self, endpoint_id: EndpointId) -> Endpoint | None:
        try:
            return self._endpoints.get(endpoint_id)
        except NotFound:
            return None


def _worker_view(live: LiveWorker, endpoint: Endpoint) -> WorkerView:
    return WorkerView(
        id=live.id,
        phase=live.worker.phase,
        current=live.worker.release.id == endpoint.release.id,
        jobs=len(live.held),
        idle_since=live.idle_since,
        concurrency=live.concurrency,
        building=live.worker.spawned_at is None,
    )
