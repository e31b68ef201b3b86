"""A gate at which handlers wait: the test sees who has come, and lets each one go. So no test has to guess with sleeps."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

WAIT_S_MAX = 60


class Guest:
    """One job whose handler waits at the gate."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT_S_MAX)
        self._connection = connection
        self._said = connection.makefile()
        name = json.loads(self._said.readline())
        self.job_id: str = name["job"]
        self.worker_id: str = name["worker"]
        self.pid: int = name["pid"]

    def let_go(self) -> None:
        self._connection.sendall(b".")

    def last_words(self) -> str:
        """What it said before its end of the connection closed: nothing, when its process was killed."""
        with suppress(ConnectionResetError):
            return self._said.read().strip()
        return ""

    def is_waiting(self) -> bool:
        """Neither gone nor killed."""
        self._connection.setblocking(False)
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        finally:
            self._connection.settimeout(WAIT_S_MAX)

    def close(self) -> None:
        self._said.close()
        self._connection.close()


class Gate:
    """Closing it lets everyone go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S_MAX)
        self._guests: list[Guest] = []
        self.port: int = self._listener.getsockname()[1]

    def next(self) -> Guest:
        """Whoever comes next."""
        guest = Guest(self._listener.accept()[0])
        self._guests.append(guest)
        return guest

    def next_of(self, job_ids: list[str]) -> dict[str, Guest]:
        """All of these jobs, waiting at the same time."""
        guests = {guest.job_id: guest for guest in (self.next() for _ in job_ids)}
        assert set(job_ids) == set(guests)
        return guests

    def close(self) -> None:
        if self._listener.fileno() == -1:
            return
        self._listener.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # Whoever has come unseen is let go, too, rather than reset.
                self.next()
        for guest in self._guests:
            guest.close()
        self._listener.close()
