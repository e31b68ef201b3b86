"""The keeper itself: ports, servers one after the other, and what comes from outside."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from runyard.keeper.ground import claim, end_stale_servers, identity, listen, reachable, say
from runyard.keeper.lines import Line, Message
from runyard.keeper.ports import Ports, hatch
from runyard.keeper.workers import Workers

PROTOCOL = 2
"""Of the line; a server that speaks another refuses to start, and the one that runs goes on."""
ERRORS_BYTES_MAX = 4096
"""How much of a failed server's last words is shown."""
STANDBY_S_MAX = 60.0
HAND_OVER_S_MAX = 30.0
DEAF_S_MAX = 10.0
"""How long a server may take to end once its line has ended."""
STEADY_S = 10.0
"""A server that has run for this long is replaced at once when it crashes."""
BACK_OFF_S_MIN, BACK_OFF_S_MAX = 0.5, 30.0
_PR_SET_CHILD_SUBREAPER = 36


class Charge(NamedTuple):
    """What to keep: `flags` go to each server."""

    python: str
    data_dir: str
    host: str
    port: int
    worker_port: int
    flags: list[str]


class Server:
    """A platform process: it starts, stands by, opens, is ready, and one day leaves."""

    def __init__(self, popen: subprocess.Popen[bytes], errors: int, line: Line, hatch: socket.socket) -> None:
        self.popen = popen
        self.line = line
        self.hatch = hatch
        self.started_at = time.monotonic()
        self.stands_by = self.ready = False
        self.error: str | None = None
        self._errors = errors

    def say(self, order: str, **more: Any) -> None:
        self.line.say(say=order, **more)

    def last_words(self) -> str:
        """Why it failed, as far as is known."""
        size = os.fstat(self._errors).st_size
        written = os.pread(self._errors, ERRORS_BYTES_MAX, max(0, size - ERRORS_BYTES_MAX))
        return self.error or written.decode(errors="replace").strip() or f"it ended with {self.popen.returncode}"

    def pass_on_words(self) -> None:
        """What it wrote before it had our standard error, and nobody has seen."""
        with suppress(OSError):
            os.write(2, os.pread(self._errors, 1 << 20, 0))


class Keeper:
    """See the package."""

    def __init__(self, charge: Charge) -> None:
        self._charge = charge
        self._data = Path(charge.data_dir)
        self._selector = selectors.DefaultSelector()
        self._workers = Workers(self._selector)
        self._more_ports = Ports()
        self._server: Server | None = None
        self._standby: Server | None = None
        self._asker: Line | None = None
        """Who waits for a restart to end."""
        self._deadlines: dict[str, tuple[float, Callable[[], None]]] = {}
        self._announced = self._stopping = False
        self._pause_s = 0.0
        self._exit_code: int | None = None

    def run(self) -> int:
        """Keep until told to stop, or until the first server fails to start; returns the exit status."""
        self._claim = claim(self._data)
        end_stale_servers(self._data)
        self._ports = [listen(self._charge.host, self._charge.port), listen("127.0.0.1", self._charge.worker_port)]
        self._corridor = socket.socketpair()
        self._stderr = os.dup(2)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._hear_signals()
        self._hear_commands()
        self._server = self._start()
        while self._exit_code is None:
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            self._meet_deadlines()
        self._workers.end()
        with suppress(OSError):
            (self._data / "keeper.sock").unlink()
        return self._exit_code

    # Servers

    def _start(self) -> Server:
        ours, theirs = socket.socketpair()
        our_hatch, their_hatch = hatch()
        errors = os.memfd_create("errors")
        descriptors = [*(s.fileno() for s in (theirs, their_hatch, *self._ports, *self._corridor)), self._stderr]
        spec = f"{PROTOCOL}:{','.join(map(str, descriptors))}"
        popen = subprocess.Popen(
            [self._charge.python, "-P", "-m", "runyard", "serve", *self._charge.flags, "--keeper", spec],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=descriptors,
            start_new_session=True,
        )
        theirs.close()
        their_hatch.close()
        line = Line(self._selector, ours, lambda message: self._heard(server, message))
        server = Server(popen, errors, line, our_hatch)
        server.line.when_closed = lambda: self._line_closed(server)
        # On a full disk a server without a note is better than none: it still goes when its keeper does.
        with suppress(OSError), (self._data / "servers").open("a") as notes:
            notes.write(f"{identity(popen.pid)}\n")
        return server

    def _heard(self, server: Server, message: Message) -> None:
        match message.pop("do"):
            case "standing-by":
                server.pass_on_words()
                server.stands_by = True
                self._stands_by(server)
            case "ready":
                self._ready(server, message["url"])
            case "failed":
                server.error = message["error"]
            case "stop":
                self._stop()
            case "spawn":
                self._workers.spawn(server.line, **message)
            case "signal":
                self._workers.signal(**message)
            case "open-port":
                self._more_ports.open(server.line, server.hatch, **message)
            case "close-port":
                self._more_ports.close(server.line, **message)
            case order:
                self._workers.order(server.line, order, **message)

    def _stands_by(self, server: Server) -> None:
        if server is self._server:
            server.say("open", workers=self._workers.ids(), ports=self._more_ports.pass_on(server.hatch))
        elif server is self._standby and self._server is not None:
            self._deadlines["standby"] = time.monotonic() + HAND_OVER_S_MAX, self._server.popen.kill
            self._server.say("hand-over")

    def _ready(self, server: Server, url: str) -> None:
        server.ready = True
        if not self._announced:
            self._announced = True
            with suppress(OSError):
                print(f"runyard ready on {url}", flush=True)
        self._answer(ok=url)
        if self._stopping:
            server.say("stop")

    def _line_closed(self, server: Server) -> None:
        """It is about to end, or out of its mind."""
        self._workers.deafen(server.line)
        self._deadlines[f"server {server.popen.pid}"] = time.monotonic() + DEAF_S_MAX, server.popen.kill

    def _server_ended(self, server: Server, code: int) -> None:
        server.popen.returncode = code
        server.line.close()
        server.hatch.close()
        for name in ("standby", f"server {server.popen.pid}"):
            self._deadlines.pop(name, None)
        if server is self._standby:
            self._standby = None
            self._answer(error=f"the new server did not start, the old one goes on: {server.last_words()}")
        elif self._standby is not None:
            self._server, self._standby = self._standby, None
            if self._server.stands_by:
                self._stands_by(self._server)
        else:
            self._server = None
            self._without_server(server, code)

    def _without_server(self, server: Server, code: int) -> None:
        self._answer(error=f"the new server failed when the old one had gone; it is tried again: {server.last_words()}")
        if not server.stands_by:
            server.pass_on_words()  # It has not come so far as to speak for itself.
        if self._stopping or not self._announced:
            self._exit_code = code if code >= 0 else 1
            return
        steady = time.monotonic() - server.started_at > STEADY_S
        self._pause_s = 0.0 if steady else min(max(2 * self._pause_s, BACK_OFF_S_MIN), BACK_OFF_S_MAX)
        say(f"the server ended unasked ({how(code)}); a new one starts in {self._pause_s:g} s, workers go on")
        self._deadlines["crash"] = time.monotonic() + self._pause_s, self._start_again

    def _start_again(self) -> None:
        self._server = self._start()

    def _restart(self, asker: Line) -> None:
        self._asker = asker
        self._standby = standby = self._start()
        self._deadlines["standby"] = time.monotonic() + STANDBY_S_MAX, standby.popen.kill

    def _answer(self, **answer: Any) -> None:
        if self._asker is not None:
            self._asker.say(**answer)
            self._asker = None

    def _stop(self) -> None:
        self._stopping = True
        if self._standby is not None and not self._standby.stands_by:
            self._standby.popen.kill()
        if self._server is None:
            self._exit_code = 0
        else:
            self._server.say("stop")

    # What comes from outside

    def _hear_signals(self) -> None:
        read, write = os.pipe()
        for end in (read, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, _ignore)  # The wake-up pipe is what is heard.

        def heard(_: int) -> None:
            numbers = os.read(read, 4096)
            for pid, code in self._workers.bury():
                for server in (self._server, self._standby):
                    if server is not None and server.popen.pid == pid:
                        self._server_ended(server, code)
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._stop()

        self._selector.register(read, selectors.EVENT_READ, heard)

    def _hear_commands(self) -> None:
        """`runyard restart` comes through a socket in the data directory, which nobody else can reach."""
        sock = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            (self._data / "keeper.sock").unlink()
        with reachable(self._data) as folder:
            sock.bind(f"{folder}/keeper.sock")
        (self._data / "keeper.sock").chmod(0o600)
        sock.listen()

        def accept(_: int) -> None:
            asker = Line(self._selector, sock.accept()[0], lambda message: self._command(asker, message))
            asker.when_closed = lambda: self._asker_left(asker)

        self._selector.register(sock, selectors.EVENT_READ, accept)

    def _command(self, asker: Line, message: Message) -> None:
        if message != {"do": "restart"}:
            asker.say(error=f"the running keeper does not know {message}: stop the platform and serve again")
        elif self._stopping or self._standby is not None or self._server is None or not self._server.ready:
            asker.say(error="the platform is starting, stopping or restarting already")
        else:
            self._restart(asker)

    def _asker_left(self, asker: Line) -> None:
        if self._asker is asker:
            self._asker = None

    def _patience(self) -> float | None:
        times = [at for at, _ in self._deadlines.values()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _meet_deadlines(self) -> None:
        now = time.monotonic()
        for name, (at, call) in list(self._deadlines.items()):
            if at <= now:
                del self._deadlines[name]
                call()


def how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _ignore(number: int, frame: object) -> None: ...
