"""A stage for films of the planner: one endpoint whose queue and workers do what a script says, and what plans say."""

from dataclasses import dataclass, field, replace

from runyard.domain.fleet import (
    Demand,
    Drain,
    Failures,
    FleetView,
    Plan,
    Start,
    WorkerView,
    demand_limit,
    overdue_at,
    plan,
)
from runyard.domain.job import WorkerId
from runyard.domain.scaling import ScalingPolicy
from runyard.domain.worker import WorkerPhase


@dataclass(frozen=True)
class Waiting:
    """A job in the stage's queue."""

    at: float
    low: bool = False
    fenced_from: frozenset[WorkerId] = frozenset()


@dataclass
class Stage:
    """Idle workers take waiting jobs at once, as parked polls do. Time is in seconds, from any start."""

    scaling: ScalingPolicy
    concurrency: int = 1
    now: float = 0.0
    queue: list[Waiting] = field(default_factory=list)
    workers: dict[WorkerId, WorkerView] = field(default_factory=dict)
    failures: Failures = field(default_factory=Failures)
    started: int = 0

    @property
    def fleet(self) -> str:
        """A letter for each worker, oldest first: Starting, Idle, Busy, Draining."""
        return "".join(_letter(worker) for worker in self.workers.values())

    def view(self, now: float) -> FleetView:
        limit = demand_limit(self.scaling, max((w.concurrency for w in self.workers.values()), default=1))
        return FleetView(
            scaling=self.scaling,
            demand=self.demand(now, limit),
            workers=tuple(self.workers.values()),
            failures=self.failures,
        )

    def demand(self, now: float, limit: int) -> Demand:
        threshold = overdue_at(self.scaling, now)
        pressing = [job.at for job in self.queue if not job.low][:limit]
        return Demand(
            queued=len(self.queue),
            pressing=len(pressing),
            overdue=sum(1 for at in pressing if at <= threshold),
            oldest_at=min(pressing, default=None),
            next_at=min((at for at in pressing if at > threshold), default=None),
            in_progress=sum(worker.jobs for worker in self.workers.values()),
        )

    def plan(self) -> Plan:
        """Plan now, and do as the plan says."""
        made = plan(self.view(self.now), self.now)
        for action in made.actions:
            match action:
                case Start():
                    self.started += 1
                    id = WorkerId(f"w{self.started}")
                    self.workers[id] = WorkerView(id=id, phase=WorkerPhase.STARTING)
                case Drain(id):
                    self.workers[id] = replace(self.workers[id], phase=WorkerPhase.DRAINING, idle_since=None)
        return made

    # What a script may say

    def submit(self, count: int = 1, *, low: bool = False) -> None:
        self.queue += [Waiting(self.now, low)] * count
        self._take()

    def retry(self) -> None:
        """Queue a job that none of the present workers may have again."""
        self.queue.append(Waiting(self.now, fenced_from=frozenset(self.workers)))

    def ready(self) -> None:
        """The worker that began to start first is ready."""
        for worker in self._first("S"):
            self._put(worker, phase=WorkerPhase.READY, idle_since=self.now, concurrency=self.concurrency)
        self._take()

    def done(self) -> None:
        """The first busy worker finishes a job."""
        for worker in self._first("B"):
            left = worker.jobs - 1
            self._put(worker, jobs=left, idle_since=None if left else self.now)
        self._take()

    def crash(self) -> None:
        """The worker that began to start first fails to."""
        for worker in self._first("S"):
            del self.workers[worker.id]
            self.failures = Failures(count=self.failures.count + 1, last_at=self.now, message="it ended")

    def gone(self) -> None:
        """All that drain have finished and ended."""
        for worker in list(self.workers.values()):
            if _letter(worker) == "D":
                del self.workers[worker.id]

    def release(self) -> None:
        """A new release: what runs is outdated."""
        for worker in list(self.workers.values()):
            self._put(worker, current=False)

    def scale(self, scaling: ScalingPolicy) -> None:
        self.scaling = scaling

    def _first(self, letter: str) -> list[WorkerView]:
        return [worker for worker in self.workers.values() if _letter(worker) == letter][:1]

    def _put(self, worker: WorkerView, **changes: object) -> None:
        self.workers[worker.id] = replace(worker, **changes)

    def _take(self) -> None:
        for job in list(self.queue):
            for worker in self.workers.values():
                free = worker.phase is WorkerPhase.READY and worker.jobs < worker.concurrency
                if free and worker.id not in job.fenced_from:
                    self.queue.remove(job)
                    self._put(worker, jobs=worker.jobs + 1, idle_since=None)
                    break


def _letter(worker: WorkerView) -> str:
    match worker.phase:
        case WorkerPhase.DRAINING:
            return "D"
        case WorkerPhase.STARTING:
            return "S"
        case _:
            return "B" if worker.jobs else "I"
