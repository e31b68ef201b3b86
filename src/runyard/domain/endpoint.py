"""What a user deploys: a name, a kind, limits, a scaling policy, and the release that runs now."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NewType

from runyard.domain.container import ContainerSpec
from runyard.domain.errors import BadRequest
from runyard.domain.job import EXECUTION_TIMEOUT_DEFAULT, EndpointId, check_execution_timeout
from runyard.domain.scaling import ScalingPolicy
from runyard.domain.terms import NO_OWN_TERMS, OwnTerms

ReleaseId = NewType("ReleaseId", str)

NAME_LENGTH_MAX = 191
ENV_COUNT_MAX = 500
ENV_BYTES_MAX = 256 * 1024
VARIABLE_BYTES_MAX = 128 * 1024 - 1
"""Linux starts no process with a longer `name=value`."""
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# One origin serves the control plane and the data plane, so these words can never be endpoint ids (contract 0.1).
RESERVED_IDS = frozenset(
    "serverless pods templates network-volumes registries catalog billing account clusters flash bundles keys "
    "runtimes secrets openapi.json".split()
)


class EndpointKind(StrEnum):
    """How requests reach workers."""

    QUEUE = "QUEUE"
    LOAD_BALANCER = "LOAD_BALANCER"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """How to run one worker: what code, with which environment.

    Of a process, `bundle` is the SHA-256 (hex) of an uploaded source bundle and `handler` the file in it to run. Of a
    container that is built, `bundle` has its Dockerfile; of one whose image is named, there is none.
    """

    bundle: str = ""
    handler: str = ""
    env: tuple[tuple[str, str], ...] = ()
    container: ContainerSpec | None = None
    """None: a process."""
    lock: str | None = None
    """What it was resolved to once, None until that has happened: the exact packages of its environment (requirements
    format), or the exact image, as `NAME@sha256:...` or an id that only this machine knows."""

    def __post_init__(self) -> None:
        check_env(self.env)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An immutable, numbered snapshot of how to run an endpoint. Rolling back makes a new number with old content."""

    id: ReleaseId
    endpoint_id: EndpointId
    version: int
    run: RunSpec
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The live definition. Every edit bumps `generation`; only edits of how it runs make a new release."""

    id: EndpointId
    name: str
    kind: EndpointKind = EndpointKind.QUEUE
    scaling: ScalingPolicy = field(default_factory=ScalingPolicy)
    execution_timeout: timedelta = EXECUTION_TIMEOUT_DEFAULT
    terms: OwnTerms = NO_OWN_TERMS
    release: Release
    generation: int = 1
    created_at: float

    def __post_init__(self) -> None:
        check_name(self.name)
        check_execution_timeout(self.execution_timeout, "timeout")


def check_name(name: str) -> None:
    """A name is 1-191 printable characters; it never becomes part of a URL or path."""
    if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise BadRequest(f"name must be 1 to {NAME_LENGTH_MAX} printable characters")


def check_env(env: tuple[tuple[str, str], ...]) -> None:
    """Environment variables must be nameable by a shell and fit in a process image."""
    if len(env) > ENV_COUNT_MAX:
        raise BadRequest(f"env has {len(env)} variables; at most {ENV_COUNT_MAX} are allowed")
    for name, value in env:
        if not _ENV_NAME.match(name):
            raise BadRequest(f"env name {name!r} must be letters, digits and underscores, not starting with a digit")
        if "\0" in value:
            raise BadRequest(f"env value of {name} contains a NUL character")
        check_length(name, value)
    if sum(len(name) + len(value) for name, value in env) > ENV_BYTES_MAX:
        raise BadRequest(f"env is larger than {ENV_BYTES_MAX} bytes in all")


def check_length(name: str, value: str) -> None:
    """Raises `BadRequest` for a variable that no process could be started with."""
    if len(name) + 1 + len(value.encode("utf-8", "surrogatepass")) > VARIABLE_BYTES_MAX:
        raise BadRequest(
            f"env value of {name} is too long: with its name it may have {VARIABLE_BYTES_MAX} bytes; put it into a file"
        )
