"""What runs, as the control plane shows it in `runyard`."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.services.runs import MB, in_units
from runyard.wire import control as wire


def run_view(run: RunSpec) -> dict[str, Any]:
    """The fields of `wire.EndpointRunyard` that there are of it."""
    if run.container is None:
        return {"runtime": "process", "bundle": run.bundle, "handler": run.handler}
    return {
        "runtime": "docker",
        "entrypoint": list(run.container.entrypoint),
        "limits": _limits_view(run.container),
        "imageDigest": image_digest(run) or UNSET,
        **(_build_view(run, run.container) if run.container.built else {}),
    }


def image_digest(run: RunSpec) -> str | None:
    """As in `sha256:...`: of the registry's manifest, or of an image that only this machine has."""
    return None if run.container is None or not run.lock else run.lock.rpartition("@")[2]


def _build_view(run: RunSpec, spec: ContainerSpec) -> dict[str, Any]:
    return {"bundle": run.bundle, "dockerfile": spec.dockerfile, "buildArgs": dict(spec.build_args)}


def _limits_view(spec: ContainerSpec) -> wire.Limits:
    limits = spec.limits
    return wire.Limits(
        cpus=limits.cpus,
        memoryMb=in_units(limits.memory_bytes, MB),
        shmMb=in_units(limits.shm_bytes, MB),
        pids=limits.pids,
    )
