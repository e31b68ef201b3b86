"""Workers as processes of this machine.

    <root>/bundles/<sha256>/       unpacked sources, shared
    <root>/environments/<key>/     Python environments, shared (environments.py)
    <root>/workers/<worker id>/    the room of one worker, its `work` a copy of the sources (rooms.py)
    <root>/builds/                 rooms of builds

With a keeper, workers are its children and outlive this process (kept.py); builds are this one's and end with it.
As root each endpoint's workers run as a user of their own, in namespaces of their own (isolation.py). Else they are plain
processes, and whoever may deploy code must be trusted with all that the platform can do.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import re
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import IO

from runyard.adapters import pip_settings
from runyard.adapters.environments import Environments
from runyard.adapters.keeper import KeeperLine
from runyard.adapters.locks import KeyedLocks
from runyard.adapters.runtimes import leftovers, rooms, surroundings
from runyard.adapters.runtimes.bundles import Bundles
from runyard.adapters.runtimes.child import Process
from runyard.adapters.runtimes.rooms import Room
from runyard.adapters.runtimes.spawner import UID_BASE, Spawner
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed, StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.ports.runtime import Launch, RuntimeObserver, Say
from runyard.ports.stores import Blobs

log = logging.getLogger(__name__)

_WORKER_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")


class ProcessRuntime:
    """The first call of any method ends what an earlier platform left under `root`, and finds out about isolation.

    `number_of` gives each endpoint a number that is its own for ever. `volume_dir` is seen as /runpod-volume by isolated
    workers. `isolated` is None for "where possible"; True refuses to work without, False does not try. With a `line` to a
    keeper, workers are the keeper's children and can be left to the next runtime; without, they end with this one.
    """

    def __init__(
        self,
        root: Path,
        blobs: Blobs,
        observer: RuntimeObserver,
        *,
        number_of: Callable[[EndpointId], Awaitable[int]],
        volume_dir: Path | None = None,
        build_timeout_s: float = 1800.0,
        isolated: bool | None = None,
        line: KeeperLine | None = None,
    ) -> None:
        self._line = line
        self._root = root.resolve()
        self._observer = observer
        self._number_of = number_of
        self._isolate = isolated
        self._spawner = Spawner(self._root, volume=volume_dir.resolve() if volume_dir else None, line=line)
        self._bundles = Bundles(self._root / "bundles", blobs)
        settings = pip_settings.for_uv(pip_settings.read())
        self._environments = Environments(
            self._root / "environments", self._spawner, settings, timeout_s=build_timeout_s
        )
        self._workers: dict[WorkerId, tuple[Process, asyncio.Task[None]]] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._starts: set[asyncio.Task[None]] = set()
        self._locks = KeyedLocks()
        self._opening = asyncio.Lock()
        self._lock_file: IO[str] | None = None

    async def open(self) -> None:
        """Happens once. Raises `StartFailed` when another platform uses the folder, or isolation is asked for in vain."""
        async with self._opening:
            if self._lock_file is None and not self._spawner.closed:
                with ExitStack() as undo:
                    claim = undo.enter_context(_claim(self._root))
                    spared = {self._room_of(id).path for id in self._line.left} if self._line else set[Path]()
                    await asyncio.to_thread(_end_leftovers, self._root, spared)
                    await self._set_up_isolation()
                    undo.pop_all()
                self._lock_file = claim

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        await self.open()
        try:
            sources = await self._bundles.unpack(run.bundle, run.handler)
            uid = await self._uid(endpoint_id)
            lock = run.lock if run.lock is not None else await self._environments.resolve(sources, uid, say)
            await self._environments.build(sources, lock, uid, say)
        except OSError as error:  # Of a full disk, as a rule.
            raise BuildFailed(f"cannot make the environment of endpoint {endpoint_id}: {error}") from error
        return replace(run, lock=lock)

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        return None

    async def start(self, launch: Launch) -> None:
        await self.open()
        # Finished even if nobody waits any more: half a start is nothing that can be left to another process.
        start = asyncio.create_task(self._start(launch), name=f"start {launch.worker_id}")
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)
        await asyncio.shield(start)

    async def _start(self, launch: Launch) -> None:
        async with self._locks.held(launch.worker_id):
            if launch.worker_id not in self._workers:
                self._look_after(launch.worker_id, await self._spawn(launch))

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None:
        await self.adopt(worker_id)
        async with self._locks.held(worker_id):  # It may just be starting.
            running = self._workers.get(worker_id)
        if running is not None:
            process, follower = running
            await process.stop(grace.total_seconds())
            await asyncio.shield(follower)

    async def list(self) -> list[WorkerId]:
        await self.open()
        return [*self._workers, *(WorkerId(id) for id in (self._line.left if self._line else ()))]

    async def adopt(self, worker_id: WorkerId) -> None:
        if self._line is not None and worker_id in self._line.left:
            process = self._spawner.adopt(self._room_of(worker_id), self._ear_for(worker_id), worker_id)
            self._look_after(worker_id, process)

    async def leave(self) -> None:
        await asyncio.gather(*self._starts, return_exceptions=True)
        self._spawner.let_go()
        await self.close()

    async def close(self) -> None:
        await self._spawner.close()
        await asyncio.gather(*self._starts, return_exceptions=True)
        await asyncio.gather(*self._followers, return_exceptions=True)  # A start that was under way adds one.
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    async def _set_up_isolation(self) -> None:
        reason = "it is turned off" if self._isolate is False else await self._spawner.probe()
        if reason is not None and self._isolate:
            raise StartFailed(
                f"workers cannot be isolated: {reason}; give the platform what it lacks, do not run it as root, or accept "
                "workers that can do all that it can with the setting isolation = off"
            )
        if reason is not None:
            log.warning("workers are not isolated from each other and from this platform: %s", reason)

    async def _uid(self, endpoint_id: EndpointId) -> int | None:
        return UID_BASE + await self._number_of(endpoint_id) if self._spawner.isolated else None

    def _room_of(self, worker_id: str, uid: int | None = None) -> Room:
        return Room(self._root / "workers" / worker_id, uid)

    def _ear_for(self, worker_id: WorkerId) -> Say:
        return lambda line: self._observer.worker_said(worker_id, line)

    def _look_after(self, worker_id: WorkerId, process: Process) -> None:
        follower = asyncio.create_task(self._follow(worker_id, process), name=f"worker {worker_id}")
        self._workers[worker_id] = process, follower
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)

    async def _spawn(self, launch: Launch) -> Process:
        if not _WORKER_ID.match(launch.worker_id):
            raise StartFailed(f"worker id {launch.worker_id!r} cannot name a folder")
        sources = self._bundles.find(launch.run.bundle, launch.run.handler)
        environment = self._environments.find(sources, launch.run.lock or "")
        if environment is None or not sources.path.exists():
            raise StartFailed(f"worker {launch.worker_id} has no environment or sources; prepare its release first")
        room = self._room_of(launch.worker_id, await self._uid(launch.endpoint_id))
        try:
            await asyncio.to_thread(rooms.furnish, room, sources.path)
            return await self._spawner.spawn(
                room,
                [str(environment / "bin/python"), "-u", launch.run.handler],
                env=surroundings.of_worker(room, environment, launch.env),
                say=self._ear_for(launch.worker_id),
                reads=(environment,),
                keep_as=launch.worker_id,
            )
        except BaseException as error:
            await asyncio.to_thread(rooms.remove, room)
            if isinstance(error, OSError):
                raise StartFailed(f"cannot make the folder of worker {launch.worker_id}: {error}") from error
            raise

    async def _follow(self, worker_id: WorkerId, process: Process) -> None:
        exit = await process.wait()
        del self._workers[worker_id]
        self._observer.worker_exited(worker_id, exit)
        await asyncio.to_thread(rooms.remove, self._room_of(worker_id))


def _claim(root: Path) -> IO[str]:
    """Two platforms in one folder would end each other's workers as leftovers."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (root / "runtime.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StartFailed(f"another platform runs its workers in {root}; stop it or choose another folder") from error
    return file


def _end_leftovers(root: Path, spared: Collection[Path]) -> None:
    """Kill what an earlier platform left running, then delete its rooms; what a keeper has kept is no leftover."""
    there = [Room(path, None) for kind in ("workers", "builds") for path in (root / kind).glob("*")]
    found = [room for room in there if room.path not in spared]

    def still_there() -> list[leftovers.Identity]:
        return [identity for room in found if (identity := leftovers.noted(room.path)) is not None]

    if not leftovers.kill_marked(root, extra=still_there, spared=spared):
        log.error("processes of an earlier run do not die; see %s", root / "workers")
    for room in found:
        rooms.remove(room)
