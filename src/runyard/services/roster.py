"""The workers this process knows, and what each holds right now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.domain.worker import Worker

LAST_WORDS_S = 1.0
"""How long after a result lines may come that its handler has written before: they take another way than the result."""
STOPPED_KEPT_MAX = 50
"""Stopped workers remembered per endpoint, as evidence."""


class StopPoll(Protocol):
    """An open poll of a worker's stop channel."""

    def give(self, job_ids: Sequence[JobId]) -> bool:
        """Answer with the jobs to stop; False when the client has left."""
        ...

    def end(self) -> None:
        """Answer that there is nothing to stop."""
        ...


class LiveWorker:
    """A worker's record beside the facts that change with every job.

    `held` has every job handed to it that is not known to be over for it, also those it was told to stop (`stopping`).
    """

    __slots__ = (
        "concurrency",
        "finished",
        "heeded",
        "held",
        "idle_since",
        "last_held",
        "stop_poll",
        "stopping",
        "suspected",
        "untold",
        "worker",
    )

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.held: dict[JobId, float] = {}
        """Job -> when it was handed over."""
        self.stopping: dict[JobId, float] = {}
        """Job -> when it was told to stop it."""
        self.untold: set[JobId] = set()
        """Those of `stopping` that have not gone out on the stop channel."""
        self.heeded: set[JobId] = set()
        """Those of `stopping` whose handlers the worker has cancelled; a ping will tell whether they have ended."""
        self.suspected: dict[JobId, float] = {}
        """Job -> when the worker first said it works on nothing though it holds this job."""
        self.concurrency = 1
        self.idle_since: float | None = None
        self.last_held: JobId | None = None
        self.stop_poll: StopPoll | None = None
        self.finished = 0
        """Results it has sent."""

    @property
    def id(self) -> WorkerId:
        return self.worker.id

    def heard(self, now: float) -> bool:
        """It has polled or pinged. True for the first time."""
        if self.worker.ready_at is not None:
            return False
        self.worker = self.worker.heard(now)
        self.idle_since = None if self.held else now
        return True

    def took(self, job_id: JobId, now: float) -> None:
        self.held[job_id] = now
        self.idle_since = None

    def dropped(self, job_id: JobId, now: float) -> None:
        """The job is over for this worker; harmless when it never held it."""
        if self.held.pop(job_id, None) is None:
            return
        self.stopping.pop(job_id, None)
        self.untold.discard(job_id)
        self.heeded.discard(job_id)
        self.suspected.pop(job_id, None)
        if not self.held:
            self.idle_since, self.last_held = now, job_id

    def job_of_output(self, now: float) -> JobId | None:
        """The job a line of output must be about: the only one it holds, or the one it has just finished."""
        if self.idle_since is not None and now - self.idle_since < LAST_WORDS_S:
            return self.last_held
        return next(iter(self.held)) if len(self.held) == 1 else None


class Roster:
    """Live workers by id and by endpoint, and the last few that stopped."""

    def __init__(self) -> None:
        self._live: dict[WorkerId, LiveWorker] = {}
        self._by_endpoint: dict[EndpointId, dict[WorkerId, LiveWorker]] = {}
        self._stopped: dict[EndpointId, deque[Worker]] = {}

    def add(self, worker: Worker) -> LiveWorker:
        live = LiveWorker(worker)
        self._live[worker.id] = live
        self._by_endpoint.setdefault(worker.endpoint_id, {})[worker.id] = live
        return live

    def get(self, worker_id: WorkerId) -> LiveWorker | None:
        return self._live.get(worker_id)

    def of_endpoint(self, endpoint_id: EndpointId) -> list[LiveWorker]:
        return list(self._by_endpoint.get(endpoint_id, {}).values())

    def workers(self) -> list[Worker]:
        """The records of all that live."""
        return [live.worker for live in self._live.values()]

    def stopped_of(self, endpoint_id: EndpointId) -> list[Worker]:
        """Newest first."""
        return list(reversed(self._stopped.get(endpoint_id, ())))

    def retire(self, live: LiveWorker) -> None:
        """Forget a worker whose record says STOPPED, but for its record."""
        endpoint_id = live.worker.endpoint_id
        self._live.pop(live.id, None)
        of_endpoint = self._by_endpoint.get(endpoint_id, {})
        of_endpoint.pop(live.id, None)
        if not of_endpoint:
            self._by_endpoint.pop(endpoint_id, None)
        self._stopped.setdefault(endpoint_id, deque(maxlen=STOPPED_KEPT_MAX)).append(live.worker)

    def forget_endpoint(self, endpoint_id: EndpointId) -> None:
        """Drop the memory of its stopped workers."""
        self._stopped.pop(endpoint_id, None)

    def __iter__(self) -> Iterator[LiveWorker]:
        return iter(list(self._live.values()))
