"""The processes that the keeper is the parent of, on behalf of its server."""

from __future__ import annotations

import errno
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from signal import SIGKILL, SIGTERM
from typing import Any

from runyard.keeper.ground import children
from runyard.keeper.lines import READ_BYTES, Line, Message
from runyard.keeper.spool import Spool

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL, when there is no server to stop workers."""
END_S_MAX = 10.0


class Workers:
    """All of them, by id."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._workers: dict[str, Worker] = {}
        self._strangers = set(children())
        """Who is a child of this process and not of what is started here: who became `runyard serve` had them."""

    def ids(self) -> list[str]:
        """Those that run, and those that have ended and nobody has dealt with."""
        return list(self._workers)

    def spawn(self, line: Line, n: int, complaints: bool, **order: Any) -> None:
        """Start a worker; the answer carries `n`, and with `complaints` what it wrote to standard error until that was
        closed; else standard error goes where standard output goes.
        """
        read, write = os.pipe() if complaints else (-1, subprocess.STDOUT)
        try:
            if order["id"] in self._workers:
                raise FileExistsError(errno.EEXIST, "it runs already")
            worker = Worker(self._selector, stderr=write, **order)
        except OSError as error:
            line.say(say="spawned", n=n, error=error.strerror)
            if complaints:
                os.close(read)
            return
        finally:
            if complaints:
                os.close(write)
        self._workers[worker.id] = worker
        worker.listen(line)
        if complaints:
            self._collect(read, lambda text: line.say(say="spawned", n=n, pid=worker.popen.pid, complaints=text))
        else:
            line.say(say="spawned", n=n, pid=worker.popen.pid)

    def signal(self, id: str, number: int, group: bool) -> None:
        worker = self._workers.get(id)
        if worker is not None and worker.ended is None:  # Not waited for yet, so the pid is its own.
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(worker.popen.pid, number)

    def order(self, line: Line, order: str, id: str, **message: Any) -> None:
        """What a server wants of one worker; an order for one that is gone means nothing."""
        worker = self._workers.get(id)
        match order:
            case "listen" if worker is not None:
                worker.listen(line)
            case "read" if worker is not None:
                worker.done(**message)
            case "forget" if worker is not None and worker.ended is not None:
                worker.close()
                del self._workers[id]
            case _:
                pass

    def deafen(self, line: Line) -> None:
        """This server hears nothing any more."""
        for worker in self._workers.values():
            if worker.listener is line:
                worker.listener = None

    def bury(self) -> list[tuple[int, int]]:
        """See to all who have ended, also orphans that came to us; returns pid and exit code of those not ours."""
        others: list[tuple[int, int]] = []
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid = found.si_pid
                worker = next((w for w in self._workers.values() if w.ended is None and w.popen.pid == pid), None)
                if worker is not None:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, SIGKILL)  # While it is a zombie its pid, and so the group, is its own.
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if worker is not None:
                    worker.bury(code)
                else:
                    self._strangers.discard(pid)
                    others.append((pid, code))
        return others

    def left(self) -> set[int]:
        """Pids of all that were started here and still run, or are not buried yet."""
        return set(children()) - self._strangers

    def end(self) -> None:
        """Nothing that was started here is left when this returns. Usually the server has ended all before."""
        running = [worker for worker in self._workers.values() if worker.ended is None]
        for worker in running:
            self.signal(worker.id, SIGTERM, group=False)
        until = time.monotonic() + GRACE_S
        while any(worker.ended is None for worker in running) and time.monotonic() < until:
            time.sleep(0.02)
            self.bury()
        until = time.monotonic() + END_S_MAX
        while (left := self.left()) and time.monotonic() < until:
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, SIGKILL)
            time.sleep(0.005)
            self.bury()

    def _collect(self, pipe: int, then: Callable[[str], None]) -> None:
        """What is written into the pipe until its other end is closed."""
        got = bytearray()

        def more(_: int) -> None:
            data = os.read(pipe, READ_BYTES)
            got.extend(data[: READ_BYTES - len(got)])
            if not data:
                self._selector.unregister(pipe)
                os.close(pipe)
                then(got.decode(errors="replace"))

        self._selector.register(pipe, selectors.EVENT_READ, more)


class Worker:
    """A process that was started for the server. It runs in a session and group of its own."""

    def __init__(self, selector: selectors.BaseSelector, id: str, argv: list[str], spool: str, **how: Any) -> None:
        self.id = id
        self.listener: Line | None = None
        self.ended: Message | None = None
        self._selector = selector
        self._spool = Spool(spool)
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        self._told = False
        """The server has been told of output and has not answered; meanwhile it may read the file."""
        self._told_last = False
        self._seen = 0
        self._open = True
        try:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=write, start_new_session=True, umask=0o022, **how
            )
        except BaseException:
            self._close_pipe(registered=False)
            self._spool.close()
            raise
        finally:
            os.close(write)
        selector.register(self._pipe, selectors.EVENT_READ, self._drain)
        self._reading = True

    def listen(self, line: Line) -> None:
        """From now on this server hears of the worker, beginning with what none has dealt with."""
        self.listener = line
        self._told = self._told_last = False
        self._seen = self._spool.read
        self._tell()
        if self.ended is not None:
            line.say(**self.ended)

    def done(self, upto: int, seen: int) -> None:
        """The server has read up to `seen`, and needs nothing before `upto`, where a line begins."""
        self._told = False
        self._seen = seen
        self._spool.done(upto)
        if self._open and not self._reading and not self._spool.full:
            self._selector.register(self._pipe, selectors.EVENT_READ, self._drain)
            self._reading = True
        self._tell()

    def bury(self, code: int) -> None:
        """It has ended."""
        self.popen.returncode = code
        self.ended = {"say": "exited", "id": self.id, "code": code}
        if self.listener is not None:
            self.listener.say(**self.ended)

    def close(self) -> None:
        if self._open:
            self._close_pipe(registered=self._reading)
        self._spool.close()

    def _drain(self, _: int) -> None:
        try:
            data = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._spool.write(data)
            if self._spool.full:
                self._selector.unregister(self._pipe)
                self._reading = False
        else:
            self._close_pipe(registered=True)
        self._tell()

    def _tell(self) -> None:
        last = not self._open
        if self.listener is None or self._told or (self._seen == self._spool.end and (not last or self._told_last)):
            return
        self._told, self._told_last = True, last
        spool = self._spool
        self.listener.say(say="output", id=self.id, base=spool.base, read=spool.read, end=spool.end, last=last)

    def _close_pipe(self, *, registered: bool) -> None:
        self._open = False
        if registered:
            self._selector.unregister(self._pipe)
        os.close(self._pipe)
