"""What callers ask of an endpoint: wire bodies as values of the services, with the rules that span fields.

A setting that is not acted on is never taken in silence: it may have the value it has anyway (none, off, empty), and any
other value is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from runyard.api.terms import terms_asked
from runyard.domain.container import GB, check_image, split_words
from runyard.domain.endpoint import EndpointKind, RunSpec
from runyard.domain.errors import BadRequest, Unprocessable
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.terms import OwnTerms
from runyard.services.endpoints import EndpointChange, check_idle_timeout
from runyard.services.runs import MB, RunChange, changed_run
from runyard.wire import control as wire

# The defaults of this surface; the console's and REST v1's are others (contract C.1, K5, K6).
TIMEOUT_DEFAULT_MS = 300_000
IDLE_TIMEOUT_DEFAULT_S = 10
WORKERS_MIN_DEFAULT = 0
WORKERS_MAX_DEFAULT = 3

_T = TypeVar("_T")
_D = TypeVar("_D")
_AS_IT_IS: dict[str, Any] = {
    "dataCenterIds": [],
    "networkVolumes": [],
    "flashboot": "OFF",
    "templateId": "",
}
_NOT_YET = {
    "gpu": "GPUs are not assigned yet, workers see every GPU of the machine: leave it out",
    "cpu": "CPU flavors are not assigned, workers share all CPUs of the machine: leave it out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A checked create body."""

    name: str
    run: RunSpec
    kind: EndpointKind
    scaling: ScalingPolicy
    execution_timeout: timedelta
    terms: OwnTerms


def creation(body: wire.CreateEndpointRequest) -> Creation:
    """Raises `Unprocessable` where the documented schema is broken, `BadRequest` for the rest (contract G.2)."""
    _check_kind(body)
    ours = _or(body.runyard, wire.RunyardRequest())
    if ours.bundle is UNSET and body.image is UNSET and body.templateId is UNSET:
        problem = "$: missing property 'image' (or, on Runyard, 'runyard.bundle')"
        raise Unprocessable(f"the body does not say what to run: {problem}", (problem,))
    _check_supported(body)
    return Creation(
        name=body.name,
        run=changed_run(None, RunChange(**_run_asked(body))),
        kind=EndpointKind(body.type),
        scaling=_scaling_policy(body),
        execution_timeout=timedelta(milliseconds=_or(body.timeout, TIMEOUT_DEFAULT_MS)),
        terms=OwnTerms(**terms_asked(ours.jobs)),
    )


def change(body: wire.UpdateEndpointRequest) -> EndpointChange:
    """Only what the body names changes. Raises `BadRequest`."""
    _check_supported(body)
    workers = _or(body.workers, wire.WorkersRequest())
    ours = _or(body.runyard, wire.RunyardRequest())
    return EndpointChange(
        name=_or(body.name, None),
        workers_min=_or(workers.min, None),
        workers_max=_or(workers.max, None),
        idle_timeout=None if workers.idleTimeout is UNSET else timedelta(seconds=workers.idleTimeout),
        scaler=None if body.scaling is UNSET else _scaler(body.scaling),
        execution_timeout=None if body.timeout is UNSET else timedelta(milliseconds=body.timeout),
        terms=terms_asked(ours.jobs),
        **_run_asked(body),
    )


def _check_kind(body: wire.CreateEndpointRequest) -> None:
    if body.type != "LOAD_BALANCER":
        return
    if isinstance(body.scaling, wire.QueueDelayScaling):
        problem = "$.scaling: a LOAD_BALANCER endpoint scales on REQUEST_COUNT"
        raise Unprocessable(f"the body does not have the documented shape: {problem}", (problem,))
    raise BadRequest("type: load-balancing endpoints come with a later release: create a QUEUE endpoint")


def _check_supported(body: wire.CreateEndpointRequest | wire.UpdateEndpointRequest) -> None:
    for name, why in _NOT_YET.items():
        if getattr(body, name) is not UNSET:
            raise BadRequest(f"{name}: {why}")
    for name, value in _AS_IT_IS.items():
        if getattr(body, name) not in (UNSET, value):
            raise BadRequest(f"{name}: this setting is not supported yet: leave it out, or send {value!r}")


def _scaling_policy(body: wire.CreateEndpointRequest) -> ScalingPolicy:
    workers = _or(body.workers, wire.WorkersRequest())
    scaler = _scaler(body.scaling)
    if workers.idleTimeout is not UNSET:
        check_idle_timeout(scaler)
    return ScalingPolicy(
        workers_min=_or(workers.min, WORKERS_MIN_DEFAULT),
        workers_max=_or(workers.max, WORKERS_MAX_DEFAULT),
        idle_timeout=timedelta(seconds=_or(workers.idleTimeout, IDLE_TIMEOUT_DEFAULT_S)),
        scaler=scaler,
    )


def _scaler(body: wire.Scaling) -> QueueDelay | RequestCount:
    match body:
        case wire.QueueDelayScaling(queueDelay=seconds):
            return QueueDelay(timedelta(seconds=seconds))
        case wire.RequestCountScaling(requestCount=per_worker):
            return RequestCount(per_worker)


def _run_asked(body: wire.EndpointRequest) -> dict[str, Any]:
    """The fields of `RunChange`. Raises `BadRequest`."""
    ours = _or(body.runyard, wire.RunyardRequest())
    return {
        "image": _image(body),
        "bundle": _or(ours.bundle, None),
        "dockerfile": _or(ours.dockerfile, None),
        "handler": _or(ours.handler, None),
        "env": None if body.env is UNSET else _pairs(body.env),
        "container": _container_asked(body, ours),
        "limits": _limits_asked(body, _or(ours.limits, wire.LimitsRequest())),
    }


def _image(body: wire.EndpointRequest) -> str | None:
    if body.image is UNSET:
        return None
    check_image(body.image)
    return body.image


def _container_asked(body: wire.EndpointRequest, ours: wire.RunyardRequest) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if body.args is not UNSET:
        asked |= {"args": split_words("args", body.args), "args_text": body.args}
    if body.ports is not UNSET:
        asked["ports"] = tuple(body.ports)
    if body.registry is not UNSET:
        asked["registry"] = body.registry
    if ours.entrypoint is not UNSET:
        asked["entrypoint"] = tuple(ours.entrypoint)
    if ours.buildArgs is not UNSET:
        asked["build_args"] = _pairs(ours.buildArgs)
    return asked


def _limits_asked(body: wire.EndpointRequest, ours: wire.LimitsRequest) -> dict[str, Any]:
    asked = {
        "disk_bytes": _in_bytes(body.disk, GB),
        "cpus": ours.cpus,
        "memory_bytes": _in_bytes(ours.memoryMb, MB),
        "shm_bytes": _in_bytes(ours.shmMb, MB),
        "pids": ours.pids,
    }
    return {name: value for name, value in asked.items() if value is not UNSET}


def _in_bytes(number: int | UnsetType | None, unit: int) -> int | UnsetType | None:
    return number * unit if isinstance(number, int) else number


def _pairs(table: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(table.items()))


def _or(value: _T | UnsetType, default: _D) -> _T | _D:
    return default if value is UNSET else value
