"""Where workers run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from runyard.domain.endpoint import RunSpec
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit

Say = Callable[[str], None]
"""Takes one line of progress, for people."""


class LogSource(StrEnum):
    """Whose words a log line is: the worker's own, or the platform's about it (contract E.4)."""

    CONTAINER = "container"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All a runtime needs to start one worker."""

    worker_id: WorkerId
    endpoint_id: EndpointId
    run: RunSpec
    """As `prepare` returned it."""
    env: Mapping[str, str] = field(repr=False)
    """What the worker protocol and the user want set; it wins over what the runtime would set itself. It has the values of
    secrets: it must not be logged, nor stand where other users of the machine see it.
    """


class RuntimeObserver(Protocol):
    """What a runtime tells the platform, on the event loop's thread. Must be quick and must not raise."""

    def worker_exited(self, worker_id: WorkerId, exit: Exit) -> None:
        """Nothing of the worker runs any more. Said once per worker that was started."""
        ...

    def worker_said(self, worker_id: WorkerId, line: str) -> None:
        """One line of the worker's output, without its line end."""
        ...


class WorkerRuntime(Protocol):
    """Starts and stops workers. All calls may be repeated."""

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        """Make what a start needs and workers share: sources unpacked, environment built.

        Returns `run` with its `lock` filled in: an environment was resolved, an image pulled or built. Calls for the same
        content share one piece of work; a call whose work is already done returns at once. Raises `BuildFailed`, with the
        builder's last lines.
        """
        ...

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        """Where these workers reach the worker plane, as in `http://10.213.0.1:8001`; known once `prepare` has returned.
        None: at the platform's own worker port.
        """
        ...

    async def start(self, launch: Launch) -> None:
        """Start the worker; nothing happens when one of that id runs. Raises `StartFailed`."""
        ...

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None:
        """Ask the worker to end, wait up to `grace`, then kill all that is left of it. Returns when nothing is."""
        ...

    async def list(self) -> list[WorkerId]:
        """What runs here, or has ended and has not been reported, also what an earlier platform process has started."""
        ...

    async def adopt(self, worker_id: WorkerId) -> None:
        """Go on with a worker that an earlier platform process has started: report what it has said since and says, and
        its end, though it may have come already. Nothing happens when it is adopted or was started here.
        """
        ...

    async def leave(self) -> None:
        """Kill all builds, and leave workers to the next platform process; what cannot outlive this one is killed."""
        ...

    async def close(self) -> None:
        """Kill all workers and builds of this runtime."""
        ...


class SupportsFreeze(Protocol):
    """Runtimes that can stop a worker's clock: it keeps its memory and uses no CPU."""

    async def freeze(self, worker_id: WorkerId) -> None:
        """Nothing happens when it is frozen. Raises `StartFailed` when that is not possible."""
        ...

    async def thaw(self, worker_id: WorkerId) -> None: ...


class SupportsExec(Protocol):
    """Runtimes that can run a command where a worker runs."""

    async def exec(self, worker_id: WorkerId, argv: Sequence[str], say: Say) -> int:
        """Returns its exit code; what it prints goes to `say`. Raises `NotFound`."""
        ...
