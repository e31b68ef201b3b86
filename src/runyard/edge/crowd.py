"""How many connections a listener takes, of each peer and in all.

The worker port is open to code of tenants. One worker that opens connections until this process has no descriptor left would
close the platform to everybody, since all listeners share them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from ipaddress import ip_address

from runyard.edge.protocol import EdgeProtocol

log = logging.getLogger("runyard")

OF_EACH_MAX = 1_000
"""More than any worker has use for."""
SAY_EVERY_S = 60.0


class Crowd:
    """Peers on this machine itself count in all alone: they have one address together."""

    def __init__(self, *, of_each: int, of_all: int) -> None:
        self._of_each = of_each
        self._of_all = of_all
        self._there: Counter[str] = Counter()
        self._all = 0
        self._said_at = float("-inf")

    @classmethod
    def within(cls, descriptors: int) -> Crowd:
        """For a process that may have so many descriptors, of which half are for other things."""
        return cls(of_each=max(16, min(OF_EACH_MAX, descriptors // 8)), of_all=descriptors // 2)

    def enter(self, peer: str, now: float) -> bool:
        """Whether there is room for one more; it `leave`s then at its end."""
        full = self._all >= self._of_all
        if full or (self._there[peer] >= self._of_each and not ip_address(peer).is_loopback):
            self._say(peer, now)
            return False
        self._there[peer] += 1
        self._all += 1
        return True

    def leave(self, peer: str) -> None:
        self._all -= 1
        self._there[peer] -= 1
        if not self._there[peer]:
            del self._there[peer]

    def _say(self, peer: str, now: float) -> None:
        if now - self._said_at < SAY_EVERY_S:
            return
        self._said_at = now
        log.warning(
            "connections of workers at %s are refused: %d are open from there, %d in all, and at most %d and %d may be",
            peer,
            self._there[peer],
            self._all,
            self._of_each,
            self._of_all,
        )


def counted(protocol: type[EdgeProtocol], crowd: Crowd) -> type[EdgeProtocol]:
    """The protocol, but a connection for which there is no room is closed as it comes."""

    class Counted(protocol):
        peer: str | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            peer = _peer(transport)
            if crowd.enter(peer, self.loop.time()):
                self.peer = peer
            else:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.peer is not None:
                crowd.leave(self.peer)

    return Counted


def _peer(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")  # None if the client has left already.
    return name[0].removeprefix("::ffff:") if name else "127.0.0.1"
