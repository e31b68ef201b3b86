"""Two runtimes as one: releases that name an image or build one run as containers, all others as processes.

What goes wrong with containers does not reach processes: a platform without an Engine is a platform for processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from datetime import timedelta
from typing import Protocol

from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import NotFound, StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.ports.runtime import Launch, Say, SupportsCollect, SupportsExec, SupportsFreeze, WorkerRuntime

log = logging.getLogger(__name__)


class Containers(WorkerRuntime, SupportsFreeze, SupportsExec, SupportsCollect, Protocol):
    """As `docker.DockerRuntime` runs them."""


class RuntimeByKind:
    """Owns both."""

    def __init__(self, processes: WorkerRuntime, containers: Containers) -> None:
        self._processes = processes
        self._containers = containers

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        return await self._of(run).prepare(endpoint_id, run, say)

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        return self._of(run).plane_url(endpoint_id, run)

    async def start(self, launch: Launch) -> None:
        await self._of(launch.run).start(launch)

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None:
        await self._each(self._processes.stop(worker_id, grace), self._containers.stop(worker_id, grace))

    async def list(self) -> list[WorkerId]:
        processes = await self._processes.list()
        try:
            return [*processes, *await self._containers.list()]
        except StartFailed as error:
            log.error("cannot say which containers there are: %s", error)
            return processes

    async def adopt(self, worker_id: WorkerId) -> None:
        await self._each(self._processes.adopt(worker_id), self._containers.adopt(worker_id))

    async def leave(self) -> None:
        await self._each(self._processes.leave(), self._containers.leave())

    async def close(self) -> None:
        await self._each(self._processes.close(), self._containers.close())

    async def freeze(self, worker_id: WorkerId) -> None:
        """Raises `StartFailed` for a process, too."""
        try:
            await self._containers.freeze(worker_id)
        except NotFound as error:
            raise StartFailed(f"worker {worker_id} is no container, and cannot be frozen") from error

    async def thaw(self, worker_id: WorkerId) -> None:
        """Nothing happens to a process."""
        try:
            await self._containers.thaw(worker_id)
        except NotFound:
            return

    async def exec(self, worker_id: WorkerId, argv: Sequence[str], say: Say) -> int:
        return await self._containers.exec(worker_id, argv, say)

    async def collect(self, in_use: Collection[str]) -> None:
        await self._containers.collect(in_use)

    def _of(self, run: RunSpec) -> WorkerRuntime:
        return self._processes if run.container is None else self._containers

    async def _each(self, process: Awaitable[None], container: Awaitable[None]) -> None:
        """Both, whatever becomes of one; what goes wrong with processes is raised."""
        of_process, of_container = await asyncio.gather(process, container, return_exceptions=True)
        if isinstance(of_container, Exception):
            log.error(
                "containers: %s", of_container, exc_info=None if isinstance(of_container, StartFailed) else of_container
            )
        elif of_container is not None:
            raise of_container
        if of_process is not None:
            raise of_process


class NoContainers:
    """Where no Engine can even be asked: `reason` says why to who wants a container."""

    def __init__(self, reason: StartFailed) -> None:
        self._reason = reason

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        raise self._reason

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        return None

    async def start(self, launch: Launch) -> None:
        raise self._reason

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None: ...

    async def list(self) -> list[WorkerId]:
        return []

    async def adopt(self, worker_id: WorkerId) -> None: ...

    async def leave(self) -> None: ...

    async def close(self) -> None: ...

    async def freeze(self, worker_id: WorkerId) -> None:
        raise NotFound(f"no container runs worker {worker_id}")

    async def thaw(self, worker_id: WorkerId) -> None:
        raise NotFound(f"no container runs worker {worker_id}")

    async def exec(self, worker_id: WorkerId, argv: Sequence[str], say: Say) -> int:
        raise NotFound(f"no container runs worker {worker_id}")

    async def collect(self, in_use: Collection[str]) -> None: ...
