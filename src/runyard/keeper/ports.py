"""Ports besides the two: servers ask for them when networks come, and close them when networks go."""

from __future__ import annotations

import errno
import resource
import socket

from runyard.keeper.ground import bound
from runyard.keeper.lines import Line

PORTS_MAX = 1024
"""And no more than half of the files that the keeper may have open: workers need theirs."""
FDS_PER_MESSAGE = 200
"""Linux passes at most 253 at once."""


class Ports:
    """By address of this machine: one port at each, open from when a server asks for it until one has it closed, whatever
    becomes of servers meanwhile. A server gets a copy of each through its *hatch*, a socket pair for descriptors alone.
    """

    def __init__(self) -> None:
        self._open: dict[str, socket.socket] = {}

    def open(self, line: Line, hatch: socket.socket, n: int, host: str, numbers: list[int]) -> None:
        """Open the first of these ports that is free, 0 being any; one that is open there stays what it is.

        The answer carries `n` and the address; if it has no `error`, the socket is in the hatch already.
        """
        try:
            sock = self._open.get(host) or self._listen(host, numbers)
            self._open[host] = sock
            socket.send_fds(hatch, [b"p"], [sock.fileno()])
        except OSError as error:
            line.say(say="port", n=n, host=host, error=error.strerror)
        else:
            line.say(say="port", n=n, host=host)

    def close(self, line: Line, n: int, host: str) -> None:
        """Nobody is there any more; nothing happens when no port is open there."""
        if (sock := self._open.pop(host, None)) is not None:
            sock.close()
        line.say(say="port", n=n, host=host, closed=True)

    def pass_on(self, hatch: socket.socket) -> list[str]:
        """Put all into the hatch of a new server; returns their addresses, in this order."""
        hosts = list(self._open)
        for start in range(0, len(hosts), FDS_PER_MESSAGE):
            batch = hosts[start : start + FDS_PER_MESSAGE]
            try:
                socket.send_fds(hatch, [b"p"], [self._open[host].fileno() for host in batch])
            except OSError:  # It has ended, or will ask for what it lacks.
                return hosts[:start]
        return hosts

    def _listen(self, host: str, numbers: list[int]) -> socket.socket:
        if len(self._open) >= min(PORTS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2):
            raise OSError(errno.EMFILE, f"{len(self._open)} ports are open already, which is the most")
        for number in numbers[:-1]:
            try:
                return bound(host, number, foreseen=True)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        return bound(host, numbers[-1], foreseen=True)


def hatch() -> tuple[socket.socket, socket.socket]:
    """The keeper's end and the server's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs
