"""One worker whose parent is the keeper: like a `Child`, but it outlives this platform process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from runyard.adapters.keeper import KeeperLine, Output
from runyard.adapters.runtimes import leftovers
from runyard.adapters.runtimes.child import LAST_WORDS_SECONDS_MAX, Process, ended
from runyard.adapters.runtimes.lines import LineSplitter
from runyard.domain.errors import StartFailed
from runyard.domain.worker import Exit
from runyard.ports.runtime import Say

log = logging.getLogger(__name__)

INIT_NOTE = "init"
"""Beside the note of who runs in the room: PID 1 of its namespace, where it has one."""
READ_BYTES = 64 * 1024


class Kept(Process):
    """Made by `spawn`, or by `adopt` for one that an earlier platform process has spawned."""

    def __init__(self, line: KeeperLine, id: str, room: Path, say: Say) -> None:
        self._line = line
        self._id = id
        self._room = room
        self._say = say
        self._splitter = LineSplitter()
        self._spool = -1
        self._at: int | None = None
        """What comes before was read."""
        loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = loop.create_future()
        self._silent: asyncio.Future[None] = loop.create_future()
        super().__init__(loop.create_task(self._see_out(), name=f"kept {id}"))

    @classmethod
    async def spawn(
        cls,
        line: KeeperLine,
        id: str,
        argv: Sequence[str],
        *,
        room: Path,
        cwd: Path,
        env: Mapping[str, str],
        say: Say,
        isolated: bool,
    ) -> Kept:
        """`isolated`: it is an `isolation.command`. Raises `StartFailed`."""
        kept = cls(line, id, room, say)
        try:
            pid, complaints = await line.spawn(
                id, argv, cwd=cwd, env=env, spool=_spool(room), ears=kept, complaints=isolated
            )
        except StartFailed:
            kept.let_go()
            raise
        leftovers.note(room, pid)
        match complaints.splitlines()[-1:] and complaints.splitlines()[-1].split():
            case ["ready", init]:
                leftovers.note(room, int(init), INIT_NOTE)
            case _ if isolated:
                kept.kill()
                await kept.wait()
                raise StartFailed(f"cannot isolate a process: {complaints.strip() or 'no reason given'}")
            case _:
                pass
        return kept

    @classmethod
    def adopt(cls, line: KeeperLine, id: str, *, room: Path, say: Say) -> Kept:
        kept = cls(line, id, room, say)
        line.adopt(id, kept)
        return kept

    def let_go(self) -> None:
        """Hear nothing of it any more; it goes on."""
        self._line.release(self._id)
        self._end.cancel()
        self._close()

    def ask(self) -> None:
        self._line.signal(self._id, signal.SIGTERM, group=False)

    def kill(self) -> None:
        init = leftovers.noted(self._room, INIT_NOTE)
        if init is None:
            self._line.signal(self._id, signal.SIGKILL, group=True)
        else:
            # As for a child: who waits outside sees the namespace end, and ends.
            leftovers.kill(init)

    def wrote(self, output: Output) -> None:
        """From the keeper. Reads a bounded piece; the keeper tells of the rest once it has the answer."""
        if self._spool < 0:
            with suppress(OSError):
                self._spool = os.open(_spool(self._room), os.O_RDONLY | os.O_CLOEXEC)
        if self._at is None:
            self._at = output.read
        data = b""
        with suppress(OSError):
            data = os.pread(self._spool, min(READ_BYTES, output.end - self._at), self._at - output.base)
        self._at = self._at + len(data) if data else output.end
        for line in self._splitter.feed(data):
            self._say(line)
        if output.last and self._at == output.end:
            for line in self._splitter.end():
                self._say(line)
            if not self._silent.done():
                self._silent.set_result(None)
        self._line.read(self._id, self._at - self._splitter.pending, self._at)

    def exited(self, code: int) -> None:
        """From the keeper, which has killed what was left of its group."""
        if not self._exit.done():
            self._exit.set_result(code)

    async def _see_out(self) -> Exit:
        code = await self._exit
        if not await self._nothing_left():
            log.error("something started in %s does not die", self._room)
        if not self._line.lost.is_set():
            await asyncio.wait([self._silent], timeout=LAST_WORDS_SECONDS_MAX)
        self._close()
        self._line.forget(self._id)
        if self._line.lost.is_set():
            return Exit(None, signal.SIGKILL, with_platform=True)
        return Exit(code) if code >= 0 else Exit(None, -code)

    async def _nothing_left(self) -> bool:
        """Wait until the rest is gone, too; False when that takes too long."""
        init = leftovers.noted(self._room, INIT_NOTE)
        if init is None:
            return await asyncio.to_thread(leftovers.kill_marked, self._room)
        leftovers.kill(init)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended(init.pid), leftovers.KILL_SECONDS_MAX)
            return True
        return False

    def _close(self) -> None:
        if self._spool >= 0:
            os.close(self._spool)
            self._spool = -1


def _spool(room: Path) -> Path:
    return room / "output"
