"""What goes wrong, and whom it hits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from tests.crash.clients import Client
from tests.crash.ground import Ground
from tests.crash.record import Fault
from tests.e2e.keeping import environment

DECK = (
    "kill server",
    "kill server",
    "kill keeper",
    "kill both",
    "kill worker",
    "kill worker",
    "kill worker and server",
    "cut clients",
    "cut clients",
    "cut worker",
    "cut worker",
    "restart",
    "restart",
    "kill during restart",
    "stop and start",
)
"""One of each in turn, shuffled: every kind comes soon, and a keeper that starts servers ever more slowly is soon new."""
RESTART_S_MAX = 0.9


def deal(chance: random.Random) -> Iterator[str]:
    """Kinds of faults, for ever."""
    while True:
        yield from chance.sample(DECK, len(DECK))


class Faults:
    """Does what is dealt, and writes down what of it takes workers or their connections."""

    def __init__(self, ground: Ground, clients: list[Client], chance: random.Random) -> None:
        self._ground, self._clients, self._chance = ground, clients, chance
        self.done: list[Fault] = []
        self._ways: dict[str, Callable[[], None]] = {
            "kill server": self._kill_server,
            "kill keeper": self._kill_keeper,
            "kill both": self._kill_both,
            "kill worker": self._kill_worker,
            "kill worker and server": lambda: (self._kill_worker(), self._kill_server())[0],
            "cut clients": self._cut_clients,
            "cut worker": self._cut_worker,
            "restart": self._restart,
            "kill during restart": self._kill_during_restart,
            "stop and start": self._stop_and_start,
        }

    def happen(self, kind: str) -> None:
        """Returns when the platform answers again."""
        self._ways[kind]()
        self._ground.wait_until_healthy()

    def _note(self, kind: str, worker: str | None = None) -> None:
        self.done.append(Fault(time.monotonic(), kind, worker))

    def _kill_server(self) -> None:
        self._note("kill server")
        for pid in self._ground.servers():
            _kill(pid)

    def _kill_keeper(self) -> None:
        self._note("kill keeper")
        self._ground.kill_keeper()
        self._ground.start()

    def _kill_both(self) -> None:
        self._note("kill both")
        servers = self._ground.servers()
        self._ground.kill_keeper()
        for pid in servers:
            _kill(pid)
        self._ground.start()

    def _kill_worker(self) -> None:
        if worker := self._a_worker():
            self._note("kill worker", worker)
            self._ground.signal_worker(worker, signal.SIGKILL)

    def _cut_worker(self) -> None:
        if worker := self._a_worker():
            self._note("cut worker", worker)
            self._ground.signal_worker(worker, signal.SIGUSR1)

    def _cut_clients(self) -> None:
        """Takes nothing from workers, so it is no excuse."""
        for client in self._clients:
            if self._chance.random() < 0.7:
                client.cut(hard=self._chance.random() < 0.5)

    def _restart(self) -> None:
        """As an operator does it: no excuse either."""
        done = self._ground.restart()
        assert 0 == done.returncode, done.stderr

    def _kill_during_restart(self) -> None:
        """The old server, the new one or both die somewhere on the way."""
        command = [sys.executable, "-m", "runyard", "restart", "--data-dir", str(self._ground.data)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        ) as restarting:
            time.sleep(self._chance.random() * RESTART_S_MAX)
            servers = self._ground.servers()
            self._note("kill during restart")
            for pid in self._chance.sample(servers, min(len(servers), self._chance.randint(1, 2))):
                _kill(pid)
            restarting.wait(self._ground.PATIENCE_S)

    def _stop_and_start(self) -> None:
        """SIGTERM, which lets workers finish what they have: no excuse."""
        self._ground.stop()
        self._ground.start()

    def _a_worker(self) -> str | None:
        alive = sorted(self._ground.workers())
        return self._chance.choice(alive) if alive else None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
