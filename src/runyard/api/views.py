"""What the control plane shows: domain values as wire bodies."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import UNSET, UnsetType
from starlette.requests import Request

from runyard.api.runs import image_digest, run_view
from runyard.api.services import WorkerReport
from runyard.api.terms import terms_view, whole
from runyard.domain import endpoint as domain
from runyard.domain import fleet
from runyard.domain.account import ApiKey
from runyard.domain.attempt import Attempt
from runyard.domain.container import GB, ContainerSpec
from runyard.domain.job import Job, JobState
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.terms import JobTerms
from runyard.domain.worker import WorkerState
from runyard.services.endpoints import ReleaseView
from runyard.services.runs import WIRE_NAMES
from runyard.wire import control as wire
from runyard.wire.jobs import AttemptBody
from runyard.wire.times import rfc3339

_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def base_url(request: Request) -> str:
    """Where the caller reached the platform; a `Host` that no URL can hold is replaced by the listener's address."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        name, port = request.scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    return f"{request.scope['scheme']}://{host}"


def endpoint_view(
    endpoint: domain.Endpoint,
    base: str,
    terms: JobTerms,
    reason: fleet.QueueReason | None,
    preparation: fleet.Preparation | None,
) -> wire.Endpoint:
    run = endpoint.release.run
    spec = run.container or ContainerSpec()
    return wire.Endpoint(
        id=endpoint.id,
        name=endpoint.name,
        type=endpoint.kind.value,
        requestUrls=_request_urls(f"{base}/v2/{endpoint.id}"),
        image=spec.image or UNSET,
        disk=UNSET if spec.limits.disk_bytes is None else spec.limits.disk_bytes // GB,
        args=spec.args_line,
        ports=list(spec.ports),
        registry=spec.registry,
        env=dict(run.env),
        workers=_workers_view(endpoint.scaling),
        scaling=_scaling_view(endpoint.scaling.scaler),
        timeout=round(endpoint.execution_timeout.total_seconds() * 1000),
        createdAt=rfc3339(endpoint.created_at),
        runyard=wire.EndpointRunyard(
            version=endpoint.release.version,
            generation=endpoint.generation,
            jobs=terms_view(terms, endpoint.terms),
            preparation=UNSET if preparation is None else _preparation_view(preparation),
            queueReason=UNSET if reason is None else wire.QueueReason(reason.code, reason.message),
            **run_view(run),
        ),
    )


def worker_list_view(
    endpoint: domain.Endpoint, live: Sequence[WorkerReport], stopped: Iterable[WorkerReport], now: float
) -> wire.WorkerList:
    """Live workers and their counts; the ones that ended stand apart (contract D.2, F099, F134)."""
    return wire.WorkerList(
        workers=[worker_view(report, endpoint, now) for report in live],
        summary=_summary(live),
        endpointVersion=endpoint.release.version,
        runyard=wire.WorkersRunyard(stopped=[worker_view(report, endpoint, now) for report in stopped]),
    )


def worker_view(report: WorkerReport, endpoint: domain.Endpoint, now: float) -> wire.Worker:
    worker = report.worker
    until = now if worker.stopped_at is None else worker.stopped_at
    is_current = worker.release.id == endpoint.release.id
    # What the release was resolved to may have been learnt after the worker was recorded.
    run = endpoint.release.run if is_current else worker.release.run
    return wire.Worker(
        id=worker.id,
        status=report.state.value,
        isStale=not is_current,
        version=worker.release.version,
        image=None if run.container is None else run.container.image or run.lock,
        uptimeSeconds=None if worker.spawned_at is None else max(0, math.floor(until - worker.spawned_at)),
        startedAt=_time_or_none(worker.spawned_at),
        runyard=wire.WorkerRunyard(
            jobs=report.jobs,
            phase=worker.phase.value,
            sdkVersion=worker.sdk_version,
            reason=worker.stop_reason or worker.unhealthy_reason,
            exit=worker.ending,
            stoppedAt=_time_or_none(worker.stopped_at),
        ),
    )


def release_list_view(
    endpoint: domain.Endpoint, releases: Iterable[ReleaseView], live: Sequence[WorkerReport]
) -> wire.ReleaseList:
    """Releases, newest first, and how many live workers run each (contract D.6, F107)."""
    running = Counter(report.worker.release.version for report in live)
    latest = running[endpoint.release.version]
    return wire.ReleaseList(
        endpointVersion=endpoint.release.version,
        rollout=wire.Rollout(
            inProgress=latest < len(live),
            workersOnLatest=latest,
            workersTotal=len(live),
            percentOnLatest=100 * latest // len(live) if live else 0,
        ),
        releases=[_release_view(view, running) for view in releases],
    )


def dead_letter_view(job: Job) -> wire.DeadLetter:
    """A job that ended FAILED or TIMED_OUT, without its payloads."""
    return wire.DeadLetter(
        id=job.id,
        status="FAILED" if job.state is JobState.FAILED else "TIMED_OUT",
        createdAt=rfc3339(job.created_at),
        finishedAt=rfc3339(job.created_at if job.finished_at is None else job.finished_at),
        expiresAt=rfc3339(job.expires_at),
        run=job.run,
        attemptsLost=job.attempts_lost,
        quarantined=job.quarantined,
        error=job.error,
        workerId=None if job.lease is None else job.lease.worker_id,
        delayTime=_ms_or_none(job.delay_s),
        executionTime=_ms_or_none(job.execution_s),
        attempts=[_attempt_view(attempt) for attempt in job.attempts],
    )


def key_view(key: ApiKey) -> wire.Key:
    return wire.Key(id=key.id, name=key.name, createdAt=rfc3339(key.created_at))


def _release_view(view: ReleaseView, running: Counter[int]) -> wire.Release:
    release = view.release
    return wire.Release(
        id=release.id,
        version=release.version,
        workerCount=running[release.version],
        createdAt=rfc3339(release.created_at),
        diff=[wire.ReleaseDiff(WIRE_NAMES[diff.field], diff.old, diff.new) for diff in view.diff],
        runyard=UNSET if (digest := image_digest(release.run)) is None else wire.ReleaseRunyard(digest),
    )


def _preparation_view(preparation: fleet.Preparation) -> wire.Preparation:
    return wire.Preparation(preparation.state.value, preparation.code, preparation.message)


def _request_urls(base: str) -> wire.RequestUrls:
    return wire.RequestUrls(
        run=f"{base}/run",
        runSync=f"{base}/runsync",
        status=f"{base}/status/{{job_id}}",
        stream=f"{base}/stream/{{job_id}}",
        cancel=f"{base}/cancel/{{job_id}}",
        retry=f"{base}/retry/{{job_id}}",
        purgeQueue=f"{base}/purge-queue",
        health=f"{base}/health",
    )


def _workers_view(scaling: ScalingPolicy) -> wire.EndpointWorkers:
    idle_timeout: int | UnsetType = UNSET
    if isinstance(scaling.scaler, QueueDelay):
        idle_timeout = round(scaling.idle_timeout.total_seconds())
    return wire.EndpointWorkers(scaling.workers_min, scaling.workers_max, idle_timeout)


def _scaling_view(scaler: QueueDelay | RequestCount) -> wire.Scaling:
    match scaler:
        case QueueDelay(delay):
            return wire.QueueDelayScaling(whole(delay.total_seconds()))
        case RequestCount(per_worker):
            return wire.RequestCountScaling(per_worker)


def _summary(live: Sequence[WorkerReport]) -> wire.WorkerSummary:
    counts = Counter(report.state for report in live)
    return wire.WorkerSummary(
        running=counts[WorkerState.RUNNING],
        idle=counts[WorkerState.IDLE],
        initializing=counts[WorkerState.INITIALIZING],
        throttled=counts[WorkerState.THROTTLED],
        unhealthy=counts[WorkerState.UNHEALTHY],
        total=len(live),
    )


def _attempt_view(attempt: Attempt) -> AttemptBody:
    evidence = attempt.evidence
    return AttemptBody(
        run=attempt.run,
        workerId=attempt.worker_id,
        takenAt=rfc3339(attempt.taken_at),
        endedAt=rfc3339(attempt.ended_at),
        cause=evidence.cause.value,
        counted=attempt.counted,
        reason=attempt.reason,
        exitCode=evidence.exit_code,
        signal=evidence.signal,
        lastLines=list(evidence.last_lines),
    )


def _ms_or_none(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _time_or_none(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
