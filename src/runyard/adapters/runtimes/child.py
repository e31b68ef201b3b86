"""One process that the platform has started, with everything that it starts in turn.

The end of the process is seen through a pidfd. So it does not matter who reads its output, which event loop runs, or
how many processes there are; and between the end and `Popen.wait` the process is a zombie whose pid is still its own,
which is when what is left of its group can be killed without doubt.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from runyard.adapters.runtimes import leftovers
from runyard.adapters.runtimes.leftovers import Identity
from runyard.adapters.runtimes.lines import Lines, listen
from runyard.domain.errors import StartFailed
from runyard.domain.worker import Exit
from runyard.ports.runtime import Say

log = logging.getLogger(__name__)

REAP_SECONDS = 0.1

LAST_WORDS_SECONDS_MAX = 2.0
"""How long output is awaited after the end. Only a process that has escaped can still hold the pipe."""


class Process(ABC):
    """A process that was started in a room, and is ours to end."""

    def __init__(self, end: asyncio.Task[Exit]) -> None:
        self._end = end

    async def wait(self) -> Exit:
        """How the process ended. By then nothing of it runs, and all that it wrote has been said."""
        return await asyncio.shield(self._end)

    def when_ended(self, call: Callable[[], object]) -> None:
        """Call back when `wait` would return."""
        self._end.add_done_callback(lambda _: call())

    @abstractmethod
    def ask(self) -> None:
        """SIGTERM to the process alone: its helpers are its own to end (a stock SDK's would go first, A.3)."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL to all that there is of it."""

    async def stop(self, grace_seconds: float) -> Exit:
        """Ask, wait, kill."""
        self.ask()
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.wait(), grace_seconds)
        self.kill()
        return await self.wait()


class Child(Process):
    """Made by `spawn`. Runs in its own session and process group."""

    def __init__(self, popen: subprocess.Popen[bytes], room: Path) -> None:
        self._popen = popen
        self._room = room
        self._init: Identity | None = None
        self._output: Lines | None = None
        super().__init__(asyncio.get_running_loop().create_task(self._see_out(), name=f"child {popen.pid}"))

    def ask(self) -> None:
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        if self._init is None:
            self._signal(os.killpg, signal.SIGKILL)
        else:
            # Everything in a namespace dies with its PID 1. Who waits for the process outside then still does, so that
            # no zombie keeps the namespace from ending.
            leftovers.kill(self._init)

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        # Not waited for yet, so the pid is still its own, be it a zombie.
        if self._popen.returncode is None:
            with suppress(ProcessLookupError):
                send(self._popen.pid, number)

    async def _see_out(self) -> Exit:
        await ended(self._popen.pid)
        self.kill()
        code = self._popen.wait()
        if not await self._nothing_left():
            log.error("something started in %s does not die", self._room)
        await self._last_words()
        return Exit(code) if code >= 0 else Exit(None, -code)

    async def _nothing_left(self) -> bool:
        """Wait until the rest is gone, too; False when that takes too long."""
        if self._init is None:
            gone = await asyncio.to_thread(leftovers.kill_marked, self._room)
            _reap_group(self._popen.pid)
            return gone
        # PID 1 of a namespace ends when all others in it have ended and are buried, which may be up to us.
        for _ in range(int(leftovers.KILL_SECONDS_MAX / REAP_SECONDS)):
            _reap_group(self._popen.pid)
            with suppress(TimeoutError):
                await asyncio.wait_for(ended(self._init.pid), REAP_SECONDS)
                return True
        return False

    async def _last_words(self) -> None:
        if self._output is not None:
            await asyncio.wait([self._output.ended], timeout=LAST_WORDS_SECONDS_MAX)
            self._output.close()

    @classmethod
    async def spawn(cls, argv: Sequence[str], *, room: Path, cwd: Path, env: Mapping[str, str], say: Say) -> Child:
        """Start a process; standard error and output come as one stream of lines. Raises `OSError`."""
        return await cls._spawn(argv, room, cwd, env, say, subprocess.STDOUT)

    @classmethod
    async def spawn_isolated(
        cls, argv: Sequence[str], *, room: Path, cwd: Path, env: Mapping[str, str], say: Say
    ) -> Child:
        """Start an `isolation.command`. Raises `StartFailed` with what its tools said if they cannot do it."""
        complaints: list[str] = []
        status, write = listen(complaints.append)
        try:
            child = await cls._spawn(argv, room, cwd, env, say, write)
        finally:
            os.close(write)
        await _or_kill(child, status.ended)
        match complaints[-1:] and complaints[-1].split():
            case ["ready", init]:
                child._init = leftovers.identify(int(init))
                return child
            case _:
                await child.wait()
                raise StartFailed(f"cannot isolate a process: {'; '.join(complaints) or 'no reason given'}")

    @classmethod
    async def _spawn(
        cls, argv: Sequence[str], room: Path, cwd: Path, env: Mapping[str, str], say: Say, stderr: int
    ) -> Child:
        lines, write = listen(say)
        try:
            popen = subprocess.Popen(  # noqa: ASYNC220  It is vfork and exec: a millisecond, and bound to this thread.
                argv,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=stderr,
                cwd=cwd,
                env=env,
                start_new_session=True,
                umask=0o022,
            )
        except BaseException:
            lines.close()
            raise
        finally:
            os.close(write)
        child = cls(popen, room)
        child._output = lines
        leftovers.note(room, popen.pid)
        return child


async def ended(pid: int) -> None:
    """Return when the process has ended; at once when there is none."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    end = loop.create_future()
    loop.add_reader(handle, lambda: end.done() or end.set_result(None))
    try:
        await end
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _or_kill(child: Child, future: asyncio.Future[None]) -> None:
    try:
        await future
    except asyncio.CancelledError:
        child.kill()
        raise


def _reap_group(group: int) -> None:
    """Bury what the group left to us. Orphans come to the platform when it is PID 1, as in a container."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
