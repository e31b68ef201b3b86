"""Keeps each endpoint's workers as `domain.fleet.plan` wants them.

One loop plans; it is woken by demand and by the clock, and plans an endpoint at most every `PLAN_EVERY_S`, so that its cost
does not grow with traffic. What it decides is recorded before it is done: a worker is in the roster, STARTING, before the
runtime hears of it. Starting and stopping take time and happen in tasks beside the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from runyard.domain.account import digest_of
from runyard.domain.endpoint import Endpoint, Release, ReleaseId, RunSpec
from runyard.domain.errors import BuildFailed, NotFound, RunyardError
from runyard.domain.fleet import (
    Drain,
    Failures,
    FleetView,
    Plan,
    QueueReason,
    Start,
    WorkerView,
    demand_limit,
    overdue_at,
    plan,
)
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit, Worker, WorkerPhase, WorkerState
from runyard.ports.runtime import Launch, LogSource, WorkerRuntime
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Ids, Signals
from runyard.services import topics
from runyard.services.dispatch import Dispatch
from runyard.services.logs import Logs
from runyard.services.roster import LiveWorker, Roster
from runyard.services.worker_env import worker_env

log = logging.getLogger("runyard.fleet")

PLAN_EVERY_S = 0.05
EVIDENCE_LINES = 5
_STOP = "stop a worker"


class EndpointBook(Protocol):
    """The endpoints as they are now."""

    def list(self) -> list[Endpoint]: ...

    def get(self, endpoint_id: EndpointId) -> Endpoint:
        """Raises `NotFound`."""
        ...

    async def set_lock(self, endpoint_id: EndpointId, release_id: ReleaseId, lock: str) -> None:
        """Remember what a release's requirements resolved to."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """How workers reach the platform, and how much time they get to end."""

    worker_url: str
    ping_interval_ms: int = 10_000
    stop_grace: timedelta = timedelta(seconds=10)
    job_stop_grace: timedelta = timedelta(seconds=5)


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

    __slots__ = ("failures", "planned_at", "prepared", "unsubscribe", "waiting", "wake_at")

    def __init__(self, unsubscribe: Callable[[], None]) -> None:
        self.unsubscribe = unsubscribe
        self.planned_at = float("-inf")
        self.wake_at: float | None = None
        self.failures = Failures()
        self.waiting: QueueReason | None = None
        self.prepared: str | None = None
        """The release whose environment was asked for ahead of its first start."""


class Fleet:
    """All fleets. `run` is the loop; as `RuntimeObserver` it hears of workers that end."""

    def __init__(
        self,
        endpoints: EndpointBook,
        store: JobStore,
        dispatch: Dispatch,
        roster: Roster,
        signals: Signals,
        clock: Clock,
        ids: Ids,
        logs: Logs,
        options: FleetOptions,
    ) -> None:
        self._endpoints = endpoints
        self._store = store
        self._dispatch = dispatch
        self._roster = roster
        self._signals = signals
        self._clock = clock
        self._ids = ids
        self._logs = logs
        self._options = options
        self._runtime: WorkerRuntime | None = None
        self._watches: dict[EndpointId, _Watch] = {}
        self._secrets: dict[WorkerId, str] = {}
        self._stopping: set[WorkerId] = set()
        self._closing = False
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        dispatch.replace_worker = self.replace

    # The loop

    async def run(self, runtime: WorkerRuntime) -> None:
        """Clear away what an earlier process left, then plan for ever. Ends by cancellation."""
        self._runtime = runtime
        for worker_id in await runtime.list():
            if self._roster.get(worker_id) is None:
                log.info("killing worker %s, left by an earlier process", worker_id)
                await runtime.stop(worker_id, timedelta(0))
        unsubscribe = self._signals.subscribe(topics.ENDPOINTS, self._sync)
        self._sync()
        try:
            while True:
                await self._plan_due()
                await self._wait()
        finally:
            unsubscribe()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def shutdown(self) -> None:
        """Stop all workers, each with its grace, and start no more. They can still report while this waits."""
        self._closing = True
        for live in self._roster:
            self.replace(live, "the platform stops")
            self._stop(live)
        while stops := [task for task in self._tasks if task.get_name() == _STOP]:
            await asyncio.wait(stops)

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
        now = {endpoint.id for endpoint in self._endpoints.list()}
        for endpoint_id in self._watches.keys() - now:
            self._watches.pop(endpoint_id).unsubscribe()
        for endpoint_id in now - self._watches.keys():
            self._watches[endpoint_id] = _Watch(self._subscribe(endpoint_id))
        for endpoint_id in now:
            self.touch(endpoint_id)

    def _subscribe(self, endpoint_id: EndpointId) -> Callable[[], None]:
        return self._signals.subscribe(topics.demand(endpoint_id), lambda: self.touch(endpoint_id))

    async def _plan_due(self) -> None:
        self._wake.clear()
        now = self._clock.now()
        for endpoint_id, watch in list(self._watches.items()):
            if watch.wake_at is not None and watch.wake_at <= now:
                endpoint = self._endpoint(endpoint_id)
                if endpoint is None or self._closing:
                    watch.wake_at = None
                else:
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
        now = self._clock.now()
        watch.planned_at, watch.wake_at = now, None
        self._prepare_ahead(endpoint, watch)
        self._forgive(endpoint, watch)
        view = await self._view(endpoint, watch, now)
        made = plan(view, now)
        watch.waiting = made.waiting
        self._apply(endpoint, made)
        times = (made.wake_at, watch.wake_at, self._replace_stuck(endpoint.id, now))
        watch.wake_at = min((at for at in times if at is not None), default=None)

    async def _view(self, endpoint: Endpoint, watch: _Watch, now: float) -> FleetView:
        scaling = endpoint.scaling
        return FleetView(
            scaling=scaling,
            demand=await self._store.demand(endpoint.id, overdue_at(scaling, now), demand_limit(scaling)),
            workers=tuple(_worker_view(live, endpoint) for live in self._roster.of_endpoint(endpoint.id)),
            failures=watch.failures,
        )

    def _apply(self, endpoint: Endpoint, made: Plan) -> None:
        for action in made.actions:
            match action:
                case Start(reason):
                    self._start(endpoint, reason)
                case Drain(worker_id, reason):
                    live = self._roster.get(worker_id)
                    if live is not None:
                        self.replace(live, reason)
        for live in self._roster.of_endpoint(endpoint.id):
            if live.worker.phase is WorkerPhase.DRAINING and not live.held:
                self._stop(live)

    # Starts

    def _start(self, endpoint: Endpoint, reason: str) -> None:
        secret = self._ids.secret()
        worker = Worker(
            id=self._ids.worker(),
            endpoint_id=endpoint.id,
            release=endpoint.release,
            secret_digest=digest_of(secret),
            created_at=self._clock.now(),
        )
        self._secrets[worker.id] = secret
        live = self._roster.add(worker)
        self._say(live, f"starting for release {worker.release.version}: {reason}")
        self._spawn(self._launch(live))

    async def _launch(self, live: LiveWorker) -> None:
        worker = live.worker
        try:
            run = await self._prepare(worker.endpoint_id, worker.release, lambda line: self._say(live, line))
            if live.worker.takes_jobs:
                live.worker = live.worker.spawned(self._clock.now())
                self.touch(worker.endpoint_id)
                await self._runtime_now.start(self._launch_of(live, run))
            else:
                await self._ended(live, None)
        except RunyardError as error:
            self._failed_to_start(live, error)
            await self._ended(live, None)
        if not live.worker.takes_jobs and live.worker.alive and not live.held:
            # Drained while the runtime was starting it, when there was nothing to stop yet.
            self._stopping.discard(live.id)
            self._stop(live)

    async def _prepare(self, endpoint_id: EndpointId, release: Release, say: Callable[[str], None]) -> RunSpec:
        run = await self._runtime_now.prepare(endpoint_id, release.run, say)
        if run.lock is not None and run.lock != release.run.lock:
            await self._endpoints.set_lock(endpoint_id, release.id, run.lock)
        return run

    def _launch_of(self, live: LiveWorker, run: RunSpec) -> Launch:
        worker = live.worker
        env = worker_env(
            base_url=self._options.worker_url,
            endpoint_id=worker.endpoint_id,
            worker_id=worker.id,
            secret=self._secrets[worker.id],
            ping_interval_ms=self._options.ping_interval_ms,
            user_env=dict(run.env),
        )
        return Launch(worker_id=worker.id, endpoint_id=worker.endpoint_id, run=run, env=env)

    def _failed_to_start(self, live: LiveWorker, error: RunyardError) -> None:
        self._say(live, f"did not start: {error.message}")
        self._count_failure(live.worker.endpoint_id, live.worker.release, _code(error), _evidence(error))
        live.worker = live.worker.drain(error.message)

    def _prepare_ahead(self, endpoint: Endpoint, watch: _Watch) -> None:
        """Build a new release's environment when it is deployed, not when its first job waits for it."""
        if watch.prepared == endpoint.release.id:
            return
        watch.prepared = endpoint.release.id
        watch.failures = Failures()
        self._spawn(self._build_ahead(endpoint))

    async def _build_ahead(self, endpoint: Endpoint) -> None:
        try:
            await self._prepare(endpoint.id, endpoint.release, lambda line: log.info("%s: %s", endpoint.id, line))
        except RunyardError as error:
            self._count_failure(endpoint.id, endpoint.release, _code(error), _evidence(error))

    # Ends

    def replace(self, live: LiveWorker, reason: str) -> None:
        """Give the worker no more jobs, and stop it once it holds none."""
        if not live.worker.takes_jobs:
            return
        live.worker = live.worker.drain(reason)
        self._say(live, f"draining: {reason}")
        if not live.held:
            self._stop(live)

    def _stop(self, live: LiveWorker, grace: timedelta | None = None) -> None:
        if live.id not in self._stopping and live.worker.spawned_at is not None:
            self._stopping.add(live.id)
            self._dispatch.release_polls(live)
            grace = self._options.stop_grace if grace is None else grace
            self._spawn(self._runtime_now.stop(live.id, grace), name=_STOP)

    def _replace_stuck(self, endpoint_id: EndpointId, now: float) -> float | None:
        """Stop workers that do not let go of a job they were told to stop; returns when to look again.

        A blocking handler hears no stop signal (protocol A.2), so the worker goes with the job. Others that run beside it
        finish first.
        """
        grace_s = self._options.job_stop_grace.total_seconds()
        times: list[float] = []
        for live in self._roster.of_endpoint(endpoint_id):
            for job_id, since in live.stopping.items():
                if since + grace_s > now:
                    times.append(since + grace_s)
                else:
                    self.replace(live, f"did not stop job {job_id} within {grace_s:g} s")
            if not live.worker.takes_jobs and live.held and live.held.keys() <= live.stopping.keys():
                overdue = max(live.stopping.values()) + grace_s <= now
                if overdue:
                    self._stop(live, timedelta(0))
        return min(times, default=None)

    def worker_exited(self, worker_id: WorkerId, exit: Exit) -> None:
        """From the runtime: nothing of this worker runs any more."""
        live = self._roster.get(worker_id)
        if live is not None:
            self._spawn(self._ended(live, exit))

    def worker_said(self, worker_id: WorkerId, line: str) -> None:
        """From the runtime: a line of the worker's output."""
        live = self._roster.get(worker_id)
        if live is not None:
            self._logs.append(worker_id, live.worker.endpoint_id, line, job_id=live.sole_job())

    async def _ended(self, live: LiveWorker, exit: Exit | None) -> None:
        worker = live.worker
        if not worker.alive:
            return
        live.worker = worker.stopped(self._clock.now(), exit)
        self._secrets.pop(worker.id, None)
        self._stopping.discard(worker.id)
        reason = f"worker {worker.id} ended ({exit})" if exit is not None else f"worker {worker.id} did not start"
        self._say(live, reason)
        if exit is not None and _unexpected(live, exit):
            message = self._crash_message(live, exit)
            self._count_failure(worker.endpoint_id, worker.release, "crash_loop", message, fresh=live.finished > 0)
        self._roster.retire(live)
        self._logs.worker_stopped(live.id)
        await self._dispatch.worker_gone(live, reason if worker.stop_reason is None else worker.stop_reason)
        self.touch(worker.endpoint_id)

    def _crash_message(self, live: LiveWorker, exit: Exit) -> str:
        when = "before it was ready" if live.worker.ready_at is None else "while it ran"
        said = [
            line.line for line in self._logs.tail(live.id, 2 * EVIDENCE_LINES) if line.source is LogSource.CONTAINER
        ]
        last = " | ".join(said[-EVIDENCE_LINES:]) or "it said nothing"
        return f"worker {live.id} of release {live.worker.release.version} ended {when} ({exit}): {last}"

    def _count_failure(
        self, endpoint_id: EndpointId, release: Release, code: str, message: str, *, fresh: bool = False
    ) -> None:
        watch = self._watches.get(endpoint_id)
        endpoint = self._endpoint(endpoint_id)
        if watch is None or endpoint is None or endpoint.release.id != release.id:
            return
        count = 1 if fresh else watch.failures.count + 1
        watch.failures = Failures(count=count, last_at=self._clock.now(), code=code, message=message)
        log.warning("%s: %s", endpoint_id, message)
        self.touch(endpoint_id)

    def _forgive(self, endpoint: Endpoint, watch: _Watch) -> None:
        """A worker that came after the last failure and has finished a job ends the row of failures."""
        if watch.failures.count and any(
            live.finished and live.worker.created_at >= watch.failures.last_at
            for live in self._roster.of_endpoint(endpoint.id)
        ):
            watch.failures = Failures()

    def ailing(self, live: LiveWorker, reason: str) -> None:
        """Its own fitness check failed; the process ends itself right after saying so (F125)."""
        live.worker = live.worker.ailing(reason)
        self._say(live, f"unhealthy: {reason}")

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        """Stop all workers of a deleted endpoint, whatever they hold."""
        for live in self._roster.of_endpoint(endpoint_id):
            self.replace(live, "the endpoint was deleted")
            self._stop(live)
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
        return None if watch is None else watch.waiting

    @property
    def _runtime_now(self) -> WorkerRuntime:
        assert self._runtime is not None, "the fleet is not running"
        return self._runtime

    def _say(self, live: LiveWorker, line: str) -> None:
        self._logs.append(live.id, live.worker.endpoint_id, line, source=LogSource.SYSTEM)

    def _endpoint(self, endpoint_id: EndpointId) -> Endpoint | None:
        try:
            return self._endpoints.get(endpoint_id)
        except NotFound:
            return None

    def _spawn(self, coro: Coroutine[Any, Any, None], *, name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a fleet task failed", exc_info=error)


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


def _unexpected(live: LiveWorker, exit: Exit) -> bool:
    """A worker that ends by itself has failed, unless it was ready and left in good order (config `refresh_worker`)."""
    worker = live.worker
    if worker.stop_reason is not None:
        return False
    return worker.ready_at is None or worker.unhealthy_reason is not None or exit.code != 0


def _code(error: RunyardError) -> str:
    return error.code if isinstance(error, BuildFailed) else "start_failed"


def _evidence(error: RunyardError) -> str:
    tail = error.log_tail[-EVIDENCE_LINES:] if isinstance(error, BuildFailed) else ()
    return " | ".join((error.message, *tail))
