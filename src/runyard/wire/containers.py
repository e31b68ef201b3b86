"""Bodies about containers, and about what workers run in at all: parts of `control.py` that are Runyard's own."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runyard.wire.numbers import MB_MAX, CountFromOne

CPUS_MAX = 65_536

Runtime = Literal["process", "docker"]
PreparationState = Literal["PREPARING", "READY", "FAILED"]


class LimitsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What one container may use, beside `disk`; null: what the platform's settings say. A MB is 1024 KiB."""

    cpus: Annotated[float, Meta(ge=0.01, le=CPUS_MAX)] | UnsetType | None = UNSET
    memoryMb: Annotated[int, Meta(ge=6, le=MB_MAX)] | UnsetType | None = UNSET
    shmMb: Annotated[int, Meta(ge=1, le=MB_MAX)] | UnsetType | None = UNSET
    pids: CountFromOne | UnsetType | None = UNSET


class Preparation(msgspec.Struct, omit_defaults=True):
    """How far the release is that runs now: its image, or its environment. `code` is that of a failure."""

    state: PreparationState
    code: str = ""
    message: str = ""


class Limits(msgspec.Struct, omit_defaults=True):
    """Those that the endpoint has set for its containers."""

    cpus: float | None = None
    memoryMb: int | None = None
    shmMb: int | None = None
    pids: int | None = None


class ReleaseRunyard(msgspec.Struct):
    """Our addition to a release of containers: the exact image, once it is known."""

    imageDigest: str


class RuntimeState(msgspec.Struct, omit_defaults=True):
    """One way to run workers, and whether it can now; `reason` says why not."""

    id: Runtime
    ready: bool
    reason: str | None = None


class RuntimeList(msgspec.Struct):
    runtimes: list[RuntimeState]
