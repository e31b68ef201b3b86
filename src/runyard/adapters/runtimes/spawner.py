"""Starts processes in rooms of their own: isolated where the platform can, else as plain children."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from runyard.adapters.runtimes import isolation, leftovers, rooms
from runyard.adapters.runtimes.child import Child
from runyard.adapters.runtimes.isolation import Sandbox
from runyard.adapters.runtimes.rooms import Room
from runyard.domain.errors import RunyardError, StartFailed
from runyard.ports.runtime import Say

UID_BASE = 200_000
FETCHER_UID = UID_BASE - 1
"""Who fetches packages for all: trusted, runs no code of theirs."""

BASE_PYTHON = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
BASE_PREFIXES = tuple({Path(prefix).resolve() for prefix in (sys.base_prefix, sys.base_exec_prefix)})


class Spawner:
    """`isolated` says what it does. Call `probe` once before anything else, and `close` at the end."""

    def __init__(self, root: Path, *, volume: Path | None = None) -> None:
        self._root = root
        self._volume = volume
        self._numbers = itertools.count(1)
        self._children: set[Child] = set()
        self.closed = False
        self.isolated = False

    async def probe(self) -> str | None:
        """Find out whether processes can be isolated here; returns why not."""
        if os.geteuid() != 0:
            return "the platform does not run as root"
        if missing := [tool for tool in isolation.TOOLS if not shutil.which(tool, path=isolation.TOOLS_PATH)]:
            return f"these tools of util-linux and coreutils are missing: {', '.join(missing)}"
        self.isolated = True
        reason = self._make_volume() or await self._try()
        self.isolated = reason is None
        return reason

    def _make_volume(self) -> str | None:
        """A volume that is not there yet is made for all endpoints to write to; one that is there stays as it is."""
        if self._volume is None:
            return None
        try:
            if not self._volume.exists():
                self._volume.mkdir(parents=True)
                self._volume.chmod(0o1777)
            isolation.VOLUME.mkdir(exist_ok=True)
        except OSError as error:
            return f"there can be no volume: {error}"
        return None

    async def _try(self) -> str | None:
        """Isolate the smallest Python process there is."""
        said: list[str] = []
        try:
            async with self.room("probe", FETCHER_UID) as room:
                child = await self.spawn(room, [str(BASE_PYTHON), "-I", "-S", "-c", ""], env={}, say=said.append)
                exit = await child.wait()
        except RunyardError as error:
            return error.message
        return None if exit.code == 0 else f"{BASE_PYTHON} ended with {exit} in isolation: {' '.join(said)[-500:]}"

    @asynccontextmanager
    async def room(self, name: str, uid: int | None, sources: Path | None = None) -> AsyncGenerator[Room]:
        """A room for short work, furnished; deleted at the end."""
        room = Room(self._root / "builds" / f"{name}-{next(self._numbers)}", uid)
        await asyncio.to_thread(rooms.furnish, room, sources)
        try:
            yield room
        finally:
            await asyncio.to_thread(rooms.remove, room)

    async def spawn(
        self,
        room: Room,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        say: Say,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
    ) -> Child:
        """Start a process in the room's `work`. Isolated, it sees of closed folders only the interpreter, its room,
        `reads` and `writes`. Raises `StartFailed`.
        """
        if self.closed:
            raise StartFailed("the platform is stopping")
        env = {**env, leftovers.MARK: str(room.path)}
        try:
            if room.uid is None:
                child = await Child.spawn(_dying_with_us(argv), room=room.path, cwd=room.work, env=env, say=say)
            else:
                box = self._sandbox(room, room.uid, reads, writes)
                child = await self._spawn_isolated(room, box, argv, env, say)
        except OSError as error:
            raise StartFailed(f"cannot start {argv[0]}: {error.strerror}") from error
        self._children.add(child)
        child.when_ended(lambda: self._children.discard(child))
        if self.closed:
            child.kill()
        return child

    async def close(self) -> None:
        """Kill everything, and let nothing start any more."""
        self.closed = True
        children = list(self._children)
        for child in children:
            child.kill()
        await asyncio.gather(*(child.wait() for child in children))

    def _sandbox(self, room: Room, uid: int, reads: Sequence[Path], writes: Sequence[Path]) -> Sandbox:
        return Sandbox(
            uid=uid,
            tmp=room.tmp,
            hides=(self._root,),
            reads=(*BASE_PREFIXES, *reads),
            writes=(room.path, *writes),
            volume=self._volume,
        )

    async def _spawn_isolated(
        self, room: Room, box: Sandbox, argv: Sequence[str], env: Mapping[str, str], say: Say
    ) -> Child:
        mounts, environ = room.path / "mounts", room.path / "environ"
        mounts.write_text(isolation.table(box, room.stage, _passable))
        _write_secret(environ, os.fsencode(isolation.exports(env)), box.uid)
        command = isolation.command(
            argv,
            uid=box.uid,
            mounts=mounts,
            cwd=room.work,
            env=environ,
            processes=_limit(resource.RLIMIT_NPROC, isolation.PROCESSES_MAX),
            files=_limit(resource.RLIMIT_NOFILE, isolation.FILES_MAX),
        )
        # What runs as root sees nothing of the user's environment.
        tools_env = {"PATH": isolation.TOOLS_PATH, leftovers.MARK: str(room.path)}
        return await Child.spawn_isolated(command, room=room.path, cwd=room.path, env=tools_env, say=say)


def _dying_with_us(argv: Sequence[str]) -> list[str]:
    """A plain process at least gets the kernel's word that it dies with the platform, where there is a tool for it."""
    setpriv = shutil.which("setpriv", path=isolation.TOOLS_PATH)
    return [setpriv, "--pdeathsig", "KILL", *argv] if setpriv else list(argv)


def _passable(folder: Path) -> bool:
    """Whether anyone at all may pass it."""
    try:
        return bool(folder.stat().st_mode & 0o001)
    except OSError:
        return False


def _limit(kind: int, wanted: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _write_secret(path: Path, data: bytes, uid: int) -> None:
    """For this user's eyes only: it holds keys."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chown(path, uid, uid)
