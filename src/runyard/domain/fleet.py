"""How many workers an endpoint should have, and why.

Theory of operation. `plan(view, now)` looks at one endpoint: its scaling policy, what its queue asks for, its workers, and
how its last starts went. It answers with actions, the reason of the wait for a job that waits now, and the time at which
the answer would change by itself (`wake_at`). It keeps no memory: called again with the same view it says the same, and
once its actions are applied it says nothing more.

1. Workers of an older release are drained: they finish what they hold and take nothing new.
2. *Queue delay* starts one worker at once when there is none; after that one for each job that has waited longer than
   the delay. Workers that are starting count as if they were there.
3. *Request count* wants ceil((queued + running) / per_worker).
4. Neither goes below `workers_min` or above `workers_max`; draining workers still count against the maximum.
5. A worker above what is wanted leaves once it has been idle for the idle timeout.
6. A worker that has been idle that long beside a waiting job may not have that job, since it has lost it before. It makes
   room for another, one at a time.
7. After failed starts nothing starts until a back-off has passed: 1 s, doubling up to 5 min.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf, nextafter

from runyard.domain.endpoint import RunSpec
from runyard.domain.job import WorkerId
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.worker import WorkerPhase

BACK_OFF_FIRST_S = 1.0
BACK_OFF_MAX_S = 300.0
CRASH_LOOP, OUT_OF_MEMORY = "crash_loop", "out_of_memory"
"""Codes of workers that have ended by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an endpoint's queue asks of its fleet. Low-priority jobs count in `queued` alone."""

    queued: int = 0
    """All jobs waiting."""
    pressing: int = 0
    """Jobs waiting that may cause a worker to start, counted up to the limit asked for."""
    overdue: int = 0
    """Of those, the ones queued at or before the time asked for."""
    oldest_at: float | None = None
    """When the longest-waiting pressing job was queued."""
    next_at: float | None = None
    """When the longest-waiting pressing job that is not yet overdue was queued."""
    in_progress: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker that is alive, as the planner sees it."""

    id: WorkerId
    phase: WorkerPhase
    current: bool = True
    """Runs the endpoint's current release."""
    jobs: int = 0
    idle_since: float | None = None
    concurrency: int = 1
    building: bool = False
    """Its environment or image is being made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Starts of the current release that went wrong in a row; one finished job ends the row."""

    count: int = 0
    last_at: float = 0.0
    code: str = CRASH_LOOP
    message: str = ""

    @property
    def retry_at(self) -> float:
        """When the next start is allowed."""
        if not self.count:
            return 0.0
        return self.last_at + min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2.0 ** min(self.count - 1, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """One endpoint, at one time."""

    scaling: ScalingPolicy
    demand: Demand = Demand()
    workers: tuple[WorkerView, ...] = ()
    failures: Failures = Failures()
    preparing: QueueReason | None = None
    """What those of its workers wait for that are `building`."""


@dataclass(frozen=True, slots=True)
class QueueReason:
    """Why a job waits: a code for programs, a sentence with evidence for people (decision 13)."""

    code: str
    message: str
    until: float | None = None
    """When the next start is tried; None when it does not wait for a time."""

    def at(self, now: float) -> QueueReason:
        """As it reads now: with the seconds that are left."""
        if self.until is None:
            return self
        return QueueReason(self.code, f"{self.message}; next start in {max(0.0, self.until - now):.0f} s")


class PreparationState(StrEnum):
    PREPARING = "PREPARING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Preparation:
    """How far it is to make what the workers of a release share. `message` is the latest word of that work, `code` that of a
    failure.
    """

    state: PreparationState
    code: str = ""
    message: str = ""


def preparing(run: RunSpec, line: str = "") -> QueueReason:
    """What the first worker of a release waits for; `line` is the latest word of that work."""
    if run.container is None:
        return QueueReason("building_environment", line or "the environment of the release is being built")
    if run.container.built:
        return QueueReason("building_image", line or "the image of the release is being built")
    return QueueReason("pulling_image", line or f"{run.container.image} is being pulled")


@dataclass(frozen=True, slots=True)
class Start:
    """Start one worker of the current release."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Give this worker no more jobs; stop it when it holds none."""

    worker_id: WorkerId
    reason: str


Action = Start | Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    """When to plan again though nothing has happened; None: never."""
    waiting: QueueReason | None = None
    """Why a job that waits now waits; None when none does."""


def plan(view: FleetView, now: float) -> Plan:
    """What to do about one endpoint's fleet now. Pure: same view and time, same plan."""
    outdated = [w for w in view.workers if not w.current and w.phase is not WorkerPhase.DRAINING]
    serving = [w for w in view.workers if w.current and w.phase is not WorkerPhase.DRAINING]
    useless = _useless(view, serving, now)
    serving = [w for w in serving if w not in useless]
    wanted, why = _wanted(view, serving, now)
    starts = _starts(view, serving, wanted, why, now)
    drains = [Drain(w.id, "runs an older release") for w in outdated]
    drains += [Drain(w.id, "idle beside a job that it may not have again") for w in useless]
    drains += _idle_drains(view.scaling, serving, wanted, now)
    return Plan(
        actions=(*drains, *starts),
        wake_at=_wake_at(view, serving, wanted, now),
        waiting=_reason(view, serving, bool(starts), now),
    )


def overdue_at(scaling: ScalingPolicy, now: float) -> float:
    """Jobs queued at or before this time have waited too long."""
    return now - scaling.scaler.delay.total_seconds() if isinstance(scaling.scaler, QueueDelay) else now


def _overdue_from(queued_at: float, delay_s: float) -> float:
    """The first time at which `overdue_at` finds it; the sum may be rounded to just before that."""
    at = queued_at + delay_s
    return at if at - delay_s >= queued_at else nextafter(at, inf)


def demand_limit(scaling: ScalingPolicy, concurrency: int = 1) -> int:
    """Pressing jobs beyond this number cannot change a plan; `concurrency` is the largest of the fleet's workers."""
    per_worker = scaling.scaler.per_worker if isinstance(scaling.scaler, RequestCount) else concurrency
    return max(1, scaling.workers_max * per_worker)


def _wanted(view: FleetView, serving: list[WorkerView], now: float) -> tuple[int, str]:
    """How many workers there should be, and the reason for the last of them."""
    scaling, demand = view.scaling, view.demand
    match scaling.scaler:
        case QueueDelay() as scaler:
            busy = sum(1 for w in serving if w.jobs)
            if demand.overdue:
                concurrency = max((w.concurrency for w in serving), default=1)
                wanted = busy + ceil(demand.overdue / concurrency)
                why = f"{demand.overdue} waited over {scaler.delay.total_seconds():g} s with {busy} busy"
            elif demand.pressing and not serving:
                wanted, why = 1, f"{demand.queued} queued and no worker"
            else:
                wanted, why = 0, ""
        case RequestCount() as scaler:
            load = demand.pressing + demand.in_progress
            wanted = ceil(load / scaler.per_worker)
            why = f"{demand.pressing} queued and {demand.in_progress} running, {scaler.per_worker} per worker"
    if wanted < scaling.workers_min:
        return scaling.workers_min, f"workers.min is {scaling.workers_min}"
    return min(wanted, scaling.workers_max), why


def _starts(view: FleetView, serving: list[WorkerView], wanted: int, why: str, now: float) -> list[Start]:
    if now < view.failures.retry_at:
        return []
    missing = min(wanted - len(serving), view.scaling.workers_max - len(view.workers))
    return [Start(why)] * max(0, missing)


def _useless(view: FleetView, serving: list[WorkerView], now: float) -> list[WorkerView]:
    """The longest idle worker, if that has not helped a job all the while, and no other worker is coming."""
    oldest_at, timeout_s = view.demand.oldest_at, view.scaling.idle_timeout.total_seconds()
    if oldest_at is None or now < max(oldest_at + timeout_s, view.failures.retry_at):
        return []
    coming = any(w.phase is WorkerPhase.STARTING for w in serving)
    going = any(w.phase is WorkerPhase.DRAINING and not w.jobs for w in view.workers)
    return [] if coming or going else _idle_for(timeout_s, serving, now)[:1]


def _idle_drains(scaling: ScalingPolicy, serving: list[WorkerView], wanted: int, now: float) -> list[Drain]:
    """The longest idle leave first, down to what is wanted, each after its idle timeout."""
    timeout_s = scaling.idle_timeout.total_seconds()
    surplus = max(0, len(serving) - wanted)
    return [Drain(w.id, f"idle for {timeout_s:g} s") for w in _idle_for(timeout_s, serving, now)[:surplus]]


def _idle_for(timeout_s: float, serving: list[WorkerView], now: float) -> list[WorkerView]:
    """Workers that have been idle for the timeout, the longest idle first."""
    idle = [(w.idle_since, w.id, w) for w in serving if w.idle_since is not None and now >= w.idle_since + timeout_s]
    return [w for _, _, w in sorted(idle, key=lambda item: item[:2])]


def _wake_at(view: FleetView, serving: list[WorkerView], wanted: int, now: float) -> float | None:
    """The next time at which the plan changes though nothing happens."""
    times: list[float] = []
    scaling, demand = view.scaling, view.demand
    if demand.oldest_at is not None or wanted > len(serving):
        times.append(view.failures.retry_at)
    if isinstance(scaling.scaler, QueueDelay) and demand.next_at is not None:
        times.append(_overdue_from(demand.next_at, scaling.scaler.delay.total_seconds()))
    timeout_s = scaling.idle_timeout.total_seconds()
    idle_since = [w.idle_since for w in serving if w.idle_since is not None]
    if len(serving) > scaling.workers_min:
        times += [since + timeout_s for since in idle_since]
    if demand.oldest_at is not None:
        times += [max(since, demand.oldest_at) + timeout_s for since in idle_since]
    return min((at for at in times if at > now), default=None)


def _reason(view: FleetView, serving: list[WorkerView], starting_now: bool, now: float) -> QueueReason | None:
    scaling, demand = view.scaling, view.demand
    if not demand.queued:
        return None
    if now < view.failures.retry_at:
        return QueueReason(view.failures.code, view.failures.message, until=view.failures.retry_at)
    if view.preparing is not None and any(w.building for w in serving):
        return view.preparing
    if starting_now or any(w.phase is WorkerPhase.STARTING for w in serving):
        count = sum(1 for w in serving if w.phase is WorkerPhase.STARTING)
        return QueueReason("starting_worker", f"{max(count, 1)} worker(s) starting")
    if scaling.workers_max == 0:
        return QueueReason("workers_max_zero", "workers.max is 0; raise it to let workers start")
    if len(view.workers) >= scaling.workers_max:
        return QueueReason(
            "workers_max_reached", f"all {len(view.workers)} of workers.max={scaling.workers_max} workers are busy"
        )
    if not demand.pressing:
        return QueueReason("low_priority", "only low-priority jobs wait; they start no worker")
    return QueueReason("waiting_for_scaler", f"{len(serving)} worker(s) busy; {_threshold(scaling)}")


def _threshold(scaling: ScalingPolicy) -> str:
    match scaling.scaler:
        case QueueDelay(delay):
            return f"another starts when a job has waited {delay.total_seconds():g} s"
        case RequestCount(per_worker):
            return f"another starts for every {per_worker} requests"
