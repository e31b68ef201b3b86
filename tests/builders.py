"""Builders: they fill in what a test does not speak about."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from runyard.domain.account import digest_of
from runyard.domain.endpoint import Endpoint, Release, ReleaseId, RunSpec
from runyard.domain.fleet import Demand, Failures, FleetView, WorkerView
from runyard.domain.job import EndpointId, Job, JobId, JobState, WorkerId
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.worker import Worker, WorkerPhase

START = 1_800_000_000.0
"""2027-01-15T08:00:00Z"""
ENDPOINT = EndpointId("endpoint-1")
WORKER = WorkerId("worker-1")
SECRET = "a secret of a worker"


def a_job(id: str = "job-1", *, at: float = START, **changes: Any) -> Job:
    """A job queued at `at`, that may run for 10 minutes and lives for a day."""
    values = {
        "endpoint_id": ENDPOINT,
        "input": b'{"n":1}',
        "created_at": at,
        "queued_at": at,
        "execution_timeout_s": 600.0,
        "expires_at": at + 86_400,
    }
    return Job(id=JobId(id), **values | changes)


def a_job_that_is(
    state: JobState, *, id: str = "job-1", at: float = START, worker_id: WorkerId = WORKER, **changes: Any
) -> Job:
    """A job queued at `at` that has come to `state` by the usual way, each step a second after the one before."""
    queued = a_job(id, at=at, **changes)
    return _WAYS[state](queued, worker_id, at)


_WAYS: dict[JobState, Callable[[Job, WorkerId, float], Job]] = {
    JobState.IN_QUEUE: lambda job, worker, at: job,
    JobState.IN_PROGRESS: lambda job, worker, at: job.take(worker, at + 1),
    JobState.COMPLETED: lambda job, worker, at: job.take(worker, at + 1).complete(b'"done"', at + 2),
    JobState.FAILED: lambda job, worker, at: job.take(worker, at + 1).fail("boom", None, at + 2),
    JobState.CANCELLED: lambda job, worker, at: job.take(worker, at + 1).cancel(at + 2),
    JobState.TIMED_OUT: lambda job, worker, at: job.take(worker, at + 1).time_out(at + 2),
}


def a_release(version: int = 1, *, endpoint_id: EndpointId = ENDPOINT, **run: Any) -> Release:
    """A release of one handler file."""
    return Release(
        id=ReleaseId(f"release-{endpoint_id}-{version}"),
        endpoint_id=endpoint_id,
        version=version,
        run=RunSpec(**{"bundle": "a" * 64, "handler": "handler.py", "lock": ""} | run),
        created_at=START,
    )


def an_endpoint(id: str = ENDPOINT, *, scaling: ScalingPolicy | None = None, **changes: Any) -> Endpoint:
    """A queue endpoint, without workers unless `scaling` says otherwise."""
    values = {
        "name": f"named {id}",
        "release": a_release(endpoint_id=EndpointId(id)),
        "scaling": scaling or a_scaling(workers_max=0),
        "created_at": START,
    }
    return Endpoint(id=EndpointId(id), **values | changes)


def a_scaling(
    *,
    workers_min: int = 0,
    workers_max: int = 3,
    idle_s: float = 5,
    delay_s: float | None = None,
    per_worker: int | None = None,
) -> ScalingPolicy:
    """Scaling by queue delay (4 s), or by request count where `per_worker` is given."""
    delay = QueueDelay(timedelta(seconds=4 if delay_s is None else delay_s))
    return ScalingPolicy(
        workers_min=workers_min,
        workers_max=workers_max,
        idle_timeout=timedelta(seconds=idle_s),
        scaler=delay if per_worker is None else RequestCount(per_worker),
    )


def a_worker(id: str = WORKER, *, endpoint_id: EndpointId = ENDPOINT, **changes: Any) -> Worker:
    """A worker that has just been recorded; `SECRET` opens its routes."""
    values = {
        "release": a_release(endpoint_id=endpoint_id),
        "secret_digest": digest_of(SECRET),
        "created_at": START,
    }
    return Worker(id=WorkerId(id), endpoint_id=endpoint_id, **values | changes)


def a_view(*workers: WorkerView, scaling: ScalingPolicy | None = None, **changes: Any) -> FleetView:
    """What the planner sees: these workers, a quiet queue, no failures."""
    values: dict[str, Any] = {"demand": Demand(), "failures": Failures()}
    return FleetView(scaling=scaling or a_scaling(), workers=workers, **values | changes)


def a_busy(id: str = "busy", *, jobs: int = 1, **changes: Any) -> WorkerView:
    """A worker, as the planner sees it, that holds jobs."""
    return WorkerView(id=WorkerId(id), **{"phase": WorkerPhase.READY, "jobs": jobs} | changes)


def an_idle(id: str = "idle", *, since: float = START, **changes: Any) -> WorkerView:
    """A worker, as the planner sees it, that waits for a job since `since`."""
    return WorkerView(id=WorkerId(id), **{"phase": WorkerPhase.READY, "idle_since": since} | changes)


def a_starting(id: str = "starting", **changes: Any) -> WorkerView:
    """A worker, as the planner sees it, of which nothing has been heard yet."""
    return WorkerView(id=WorkerId(id), **{"phase": WorkerPhase.STARTING} | changes)


def a_draining(id: str = "draining", *, jobs: int = 1, **changes: Any) -> WorkerView:
    """A worker, as the planner sees it, that finishes what it holds."""
    return WorkerView(id=WorkerId(id), **{"phase": WorkerPhase.DRAINING, "jobs": jobs} | changes)
