"""What runs: how a change makes the next `RunSpec` out of the one before, and what differs between the two.

1. An image that is named runs as it is. A bundle is built by its Dockerfile where one is named, and else runs as a process.
   What is not named again stays what it is.
2. What belongs to another kind than the one it then is, is refused by name, unless it asks for nothing.
3. Settings of a container stay while it is one, also when what it runs is replaced; build arguments stay with building.
4. The lock stays only while nothing has changed that it came from. A deployment, which names what runs, resolves it anew,
   though it may name the same: a tag may have moved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from runyard.domain.container import DOCKERFILE_DEFAULT, GB, ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BadRequest

HANDLER_DEFAULT = "handler.py"
PATH_LENGTH_MAX = 255
MB = 1 << 20
WIRE_NAMES = {
    "image": "image",
    "bundle": "runyard.bundle",
    "handler": "runyard.handler",
    "dockerfile": "runyard.dockerfile",
    "build_args": "runyard.buildArgs",
    "entrypoint": "runyard.entrypoint",
    "args": "args",
    "disk_bytes": "disk",
    "ports": "ports",
    "registry": "registry",
    "cpus": "runyard.limits.cpus",
    "memory_bytes": "runyard.limits.memoryMb",
    "shm_bytes": "runyard.limits.shmMb",
    "pids": "runyard.limits.pids",
    "env": "env",
}
"""What callers call the fields, also in errors."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What to change of how workers run; None leaves the field as it is, and `env` replaces all variables.

    `container` has the fields of `ContainerSpec` that change, but `image` and `dockerfile`; `limits` those of `Limits`.
    """

    image: str | None = None
    bundle: str | None = None
    dockerfile: str | None = None
    handler: str | None = None
    env: tuple[tuple[str, str], ...] | None = None
    container: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def deploys(self) -> bool:
        """It says what runs, if only again."""
        return self.image is not None or self.bundle is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDiff:
    """One field that a release changed, as `WIRE_NAMES` has it, with the values that callers see; None: there is none."""

    field: str
    old: object
    new: object


def changed_run(was: RunSpec | None, change: RunChange) -> RunSpec:
    """`was` is None for a new endpoint. Raises `BadRequest`."""
    container = _container(was, change)
    if container is None:
        run = RunSpec(bundle=_bundle(was, change), handler=_handler(was, change), env=_env(was, change))
    else:
        run = RunSpec(
            bundle=_bundle(was, change) if container.built else "", env=_env(was, change), container=container
        )
    if was is not None and not change.deploys and _resolved_from(run) == _resolved_from(was):
        return replace(run, lock=was.lock)
    return run


def run_diff(old: RunSpec, new: RunSpec) -> tuple[FieldDiff, ...]:
    before, after = _shown(old), _shown(new)
    return tuple(
        FieldDiff(field=name, old=before[name], new=after[name]) for name in WIRE_NAMES if before[name] != after[name]
    )


def check_run(run: RunSpec) -> None:
    """Raises `BadRequest` for what can never run."""
    if run.container is None:
        _check_path("handler", run.handler, ".py")
    elif run.container.built:
        _check_path("dockerfile", run.container.dockerfile)
    if (run.container is None or run.container.built) and not _DIGEST.match(run.bundle):
        raise BadRequest("runyard.bundle must be the SHA-256 of an uploaded bundle: 64 lower-case hex digits")


# --- What it becomes


def _container(was: RunSpec | None, change: RunChange) -> ContainerSpec | None:
    """None: a process."""
    if change.image is not None and change.bundle is not None:
        raise BadRequest(
            "image and runyard.bundle are two things to run: leave out image to run the bundle, or runyard.bundle to run "
            "the image"
        )
    there = None if was is None else was.container
    if change.image is not None or (change.bundle is None and there is not None and not there.built):
        return _pulled(there, change)
    if change.bundle is None and there is None:
        return _no_container(change, "" if was is None else "send it with runyard.bundle")
    if change.bundle is not None and change.dockerfile is None:
        return _no_container(change, "")
    return _built(there, change)


def _pulled(there: ContainerSpec | None, change: RunChange) -> ContainerSpec:
    named = {"dockerfile": change.dockerfile, "build_args": change.container.get("build_args")}
    _refuse(named, "an image that is named is not built: leave it out, or send runyard.bundle in place of image")
    _refuse(
        {"handler": change.handler}, "an image knows what it runs, or args and runyard.entrypoint say it: leave it out"
    )
    spec = _settings(there, change)
    image = spec.image if change.image is None else change.image
    return replace(spec, image=image, dockerfile=DOCKERFILE_DEFAULT, build_args=())


def _built(there: ContainerSpec | None, change: RunChange) -> ContainerSpec:
    _refuse({"handler": change.handler}, "an image knows what it runs, or its Dockerfile says it: leave it out")
    spec = _settings(there, change)
    return replace(spec, image="", dockerfile=spec.dockerfile if change.dockerfile is None else change.dockerfile)


def _settings(there: ContainerSpec | None, change: RunChange) -> ContainerSpec:
    # What is to be built has no image, so that what is not yet complete counts as such.
    was = there or ContainerSpec()
    return replace(was, **change.container, limits=replace(was.limits, **change.limits))


def _no_container(change: RunChange, how: str) -> None:
    """A process has none of a container's fields; what asks for nothing is passed over."""
    named = {"dockerfile": change.dockerfile, **change.container, **change.limits}
    how = how or "leave it out, or send image, or runyard.dockerfile beside runyard.bundle"
    _refuse({name: value for name, value in named.items() if name in WIRE_NAMES}, f"processes have none: {how}")


def _refuse(named: Mapping[str, object], why: str) -> None:
    for name, value in named.items():
        if value not in (None, "", ()):
            raise BadRequest(f"{WIRE_NAMES[name]}: {why}")


def _bundle(was: RunSpec | None, change: RunChange) -> str:
    return ("" if was is None else was.bundle) if change.bundle is None else change.bundle


def _handler(was: RunSpec | None, change: RunChange) -> str:
    there = "" if was is None else was.handler
    return (there or HANDLER_DEFAULT) if change.handler is None else change.handler


def _env(was: RunSpec | None, change: RunChange) -> tuple[tuple[str, str], ...]:
    return (() if was is None else was.env) if change.env is None else change.env


def _check_path(name: str, text: str, suffix: str = "") -> None:
    path = PurePosixPath(text)
    if (
        not text
        or not text.isprintable()
        or len(text) > PATH_LENGTH_MAX
        or path.is_absolute()
        or ".." in path.parts
        or (suffix and path.suffix != suffix)
    ):
        what = f"a {suffix} file" if suffix else "a file"
        raise BadRequest(
            f"{WIRE_NAMES[name]} must be the path of {what} inside the bundle, at most {PATH_LENGTH_MAX} characters"
        )


# --- What it was


def _resolved_from(run: RunSpec) -> object:
    """Where the lock comes from: the exact packages, or the exact image."""
    if run.container is None:
        return run.bundle, run.handler
    return run.bundle, run.container.image, run.container.dockerfile, run.container.build_args


def _shown(run: RunSpec) -> dict[str, object]:
    spec = run.container or ContainerSpec()
    built, limits = run.container is not None and spec.built, spec.limits
    return {
        "image": spec.image or None,
        "bundle": run.bundle or None,
        "handler": run.handler or None,
        "dockerfile": spec.dockerfile if built else None,
        "build_args": dict(spec.build_args),
        "entrypoint": list(spec.entrypoint),
        "args": spec.args_line,
        "disk_bytes": in_units(limits.disk_bytes, GB),
        "ports": list(spec.ports),
        "registry": spec.registry,
        "cpus": limits.cpus,
        "memory_bytes": in_units(limits.memory_bytes, MB),
        "shm_bytes": in_units(limits.shm_bytes, MB),
        "pids": limits.pids,
        "env": dict(run.env),
    }


def in_units(number: int | None, unit: int) -> int | None:
    return None if number is None else number // unit
