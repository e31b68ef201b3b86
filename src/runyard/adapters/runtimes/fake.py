"""Runtimes without processes, for tests: what they were asked is there to read, and what happens is the test's choice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch, RuntimeObserver, Say

ASKED_TO_END = Exit(0)
"""How a worker that heeds SIGTERM ends, as the official SDK's do."""
KILLED = Exit(None, 9)


class FakeRuntime:
    """Workers are entries in a dict. They heed SIGTERM at once, unless their id is in `stubborn`."""

    def __init__(self, observer: RuntimeObserver) -> None:
        self._observer = observer
        self._ends: dict[WorkerId, asyncio.Event] = {}
        self.prepared: list[tuple[EndpointId, RunSpec]] = []
        self.launches: list[Launch] = []
        """Every start that took place, in order."""
        self.running: dict[WorkerId, Launch] = {}
        self.stubborn: set[WorkerId] = set()
        self.closed = False
        self.left = False
        self.adopted: list[WorkerId] = []
        self._unreported: dict[WorkerId, Exit] = {}
        """How workers ended while nobody listened."""

    def succeed(self, earlier: FakeRuntime) -> FakeRuntime:
        """Find what an earlier runtime has left; returns itself."""
        self._ends, self.running, self._unreported = earlier._ends, earlier.running, earlier._unreported
        return self

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        self.prepared.append((endpoint_id, run))
        return replace(run, lock="" if run.lock is None else run.lock)

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        return None

    async def start(self, launch: Launch) -> None:
        if self.closed:
            raise StartFailed("the platform is stopping")
        if launch.worker_id not in self.running:
            self.running[launch.worker_id] = launch
            self._ends[launch.worker_id] = asyncio.Event()
            self.launches.append(launch)

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None:
        if worker_id in self.stubborn and (end := self._ends.get(worker_id)) is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), grace.total_seconds())
            self.exit(worker_id, KILLED)
        self.exit(worker_id, ASKED_TO_END)

    async def list(self) -> list[WorkerId]:
        return [*self.running, *self._unreported]

    async def adopt(self, worker_id: WorkerId) -> None:
        self.adopted.append(worker_id)
        if (exit := self._unreported.pop(worker_id, None)) is not None:
            self._observer.worker_exited(worker_id, exit)

    async def leave(self) -> None:
        self.closed = self.left = True

    async def close(self) -> None:
        self.closed = True
        for worker_id in list(self.running):
            self.exit(worker_id, KILLED)

    def exit(self, worker_id: WorkerId, exit: Exit) -> None:
        """Let a worker end; nothing happens when it has ended."""
        if self.running.pop(worker_id, None) is not None:
            self._ends.pop(worker_id).set()
            if self.left:
                self._unreported[worker_id] = exit
                return
            self._observer.worker_exited(worker_id, exit)

    def say(self, worker_id: WorkerId, line: str) -> None:
        """Let a worker write a line."""
        self._observer.worker_said(worker_id, line)


class SlowRuntime(FakeRuntime):
    """Preparing and starting take `delay` each."""

    def __init__(self, observer: RuntimeObserver, delay: timedelta) -> None:
        super().__init__(observer)
        self._delay = delay.total_seconds()

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        await asyncio.sleep(self._delay)
        return await super().prepare(endpoint_id, run, say)

    async def start(self, launch: Launch) -> None:
        await asyncio.sleep(self._delay)
        await super().start(launch)


class NeverRuntime(FakeRuntime):
    """No worker is ever started; what wants one waits until it is cancelled."""

    async def start(self, launch: Launch) -> None:
        await asyncio.Event().wait()


class CrashingRuntime(FakeRuntime):
    """Every worker ends with an error as soon as it runs."""

    async def start(self, launch: Launch) -> None:
        await super().start(launch)
        asyncio.get_running_loop().call_soon(self.exit, launch.worker_id, Exit(1))
