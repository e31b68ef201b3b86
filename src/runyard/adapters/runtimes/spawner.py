"""Starts processes in rooms of their own: isolated where the platform can, else as plain children."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import resource
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from runyard.adapters.keeper import KeeperLine
from runyard.adapters.runtimes import isolation, leftovers, rooms
from runyard.adapters.runtimes.child import Child, Process
from runyard.adapters.runtimes.isolation import Sandbox
from runyard.adapters.runtimes.kept import Kept
from runyard.adapters.runtimes.rooms import Room
from runyard.adapters.system import within_hard_limit
from runyard.domain.errors import RunyardError, StartFailed
from runyard.ports.runtime import Say

log = logging.getLogger(__name__)

UID_BASE = 200_000
FETCHER_UID = UID_BASE - 1
"""Who fetches packages for all: trusted, runs no code of theirs."""

BASE_PYTHON = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
BASE_PREFIXES = tuple({Path(prefix).resolve() for prefix in (sys.base_prefix, sys.base_exec_prefix)})


class Spawner:
    """`isolated` says what it does. Call `probe` once before anything else, and `close` at the end."""

    def __init__(self, root: Path, *, volume: Path | None = None, line: KeeperLine | None = None) -> None:
        self._root = root
        self._line = line
        self._volume = volume
        self._numbers = itertools.count(1)
        self._processes: set[Process] = set()
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
        except (RunyardError, OSError) as error:
            if not _for_want_of_room(error):
                return str(error)
            # The platform must come up to show what it has. Nothing runs without isolation: a start fails as this did.
            log.warning("the disk is too full to try isolation; no worker can start until there is room")
            return None
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
        keep_as: str | None = None,
    ) -> Process:
        """Start a process in the room's `work`. Isolated, it sees of closed folders only the interpreter, its room,
        `reads` and `writes`. Where there is a keeper, one with a name to `keep_as` becomes its child and may outlive us.
        Raises `StartFailed`.
        """
        if self.closed:
            raise StartFailed("the platform is stopping")
        env = {**env, leftovers.MARK: str(room.path)}
        try:
            if room.uid is None:
                process = await self._begin(room, _dying_with_parent(argv), room.work, env, say, keep_as)
            else:
                box = self._sandbox(room, room.uid, reads, writes)
                command, tools_env = self._isolated(room, box, argv, env)
                process = await self._begin(room, command, room.path, tools_env, say, keep_as)
        except OSError as error:
            raise StartFailed(f"cannot start {argv[0]}: {error.strerror}") from error
        return self._see_to(process)

    def adopt(self, room: Room, say: Say, kept_as: str) -> Process:
        """A process that an earlier platform process has started in the room, with a keeper."""
        assert self._line is not None
        return self._see_to(Kept.adopt(self._line, kept_as, room=room.path, say=say))

    def let_go(self) -> None:
        """Leave to the next platform process what the keeper keeps."""
        self.closed = True
        for process in list(self._processes):
            if isinstance(process, Kept):
                self._processes.discard(process)
                process.let_go()

    async def close(self) -> None:
        """Kill everything, and let nothing start any more."""
        self.closed = True
        processes = list(self._processes)
        for process in processes:
            process.kill()
        await asyncio.gather(*(process.wait() for process in processes))

    def _see_to(self, process: Process) -> Process:
        self._processes.add(process)
        process.when_ended(lambda: self._processes.discard(process))
        if self.closed:
            process.kill()
        return process

    async def _begin(
        self, room: Room, argv: Sequence[str], cwd: Path, env: Mapping[str, str], say: Say, keep_as: str | None
    ) -> Process:
        isolated = room.uid is not None
        if keep_as is not None and self._line is not None:
            return await Kept.spawn(
                self._line, keep_as, argv, room=room.path, cwd=cwd, env=env, say=say, isolated=isolated
            )
        spawn = Child.spawn_isolated if isolated else Child.spawn
        return await spawn(argv, room=room.path, cwd=cwd, env=env, say=say)

    def _sandbox(self, room: Room, uid: int, reads: Sequence[Path], writes: Sequence[Path]) -> Sandbox:
        return Sandbox(
            uid=uid,
            tmp=room.tmp,
            hides=(self._root,),
            reads=(*BASE_PREFIXES, *reads),
            writes=(room.path, *writes),
            volume=self._volume,
        )

    def _isolated(
        self, room: Room, box: Sandbox, argv: Sequence[str], env: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """The command that isolates, and its environment. What runs as root sees nothing of the user's."""
        mounts, environ = room.path / "mounts", room.path / "environ"
        mounts.write_text(isolation.table(box, room.stage, _passable))
        _write_secret(environ, os.fsencode(isolation.exports(env)), box.uid)
        command = isolation.command(
            argv,
            uid=box.uid,
            mounts=mounts,
            cwd=room.work,
            env=environ,
            processes=within_hard_limit(resource.RLIMIT_NPROC, isolation.PROCESSES_MAX),
            files=within_hard_limit(resource.RLIMIT_NOFILE, isolation.FILES_MAX),
        )
        return command, {"PATH": isolation.TOOLS_PATH, leftovers.MARK: str(room.path)}


def _for_want_of_room(error: BaseException) -> bool:
    cause = error.__cause__ or error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _dying_with_parent(argv: Sequence[str]) -> list[str]:
    """A plain process at least gets the kernel's word that it dies with its parent, us or the keeper, where there is a
    tool for it.
    """
    setpriv = shutil.which("setpriv", path=isolation.TOOLS_PATH)
    return [setpriv, "--pdeathsig", "KILL", *argv] if setpriv else list(argv)


def _passable(folder: Path) -> bool:
    """Whether anyone at all may pass it."""
    try:
        return bool(folder.stat().st_mode & 0o001)
    except OSError:
        return False


def _write_secret(path: Path, data: bytes, uid: int) -> None:
    """For this user's eyes only: it holds keys."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chown(path, uid, uid)
