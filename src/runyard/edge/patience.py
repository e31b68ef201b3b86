"""How long a client may keep a connection waiting.

A loop looks at every connection once a second; arming timers for each request would cost more than the request. What it sees
is the phase of reading and some counters; times are its own, so they are right to the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

HEAD_TIMEOUT_S = 15.0
BODY_STALL_S = 20.0
BODY_RATE_MIN = 512
"""Bytes a second, on average, after the first `BODY_STALL_S`: a body that drips is as good as one that stalls."""
WRITE_STALL_S = 60.0
IDLE_TIMEOUT_S = 75.0
LINGER_S = 10.0
"""How long the rest of a refused body is read and thrown away, so that the client gets to read the refusal."""
LOOK_EVERY_S = 1.0


class Phase:
    """What is being read. Plain numbers: each request looks at them a dozen times, and an enum's cost ten times as much."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    DONE = 3
    LINGER = 4


class Watched(Protocol):
    """A connection, as the loop sees it."""

    transport: Any
    phase: int
    messages: int
    """Requests begun."""
    reads: int
    """Pieces of data that came."""
    body_bytes: int
    """Of the body being read, so far."""

    def paused(self) -> bool:
        """We have stopped reading, so the client cannot be blamed."""
        ...

    def refuse_connection(self, status: int, message: str) -> None: ...


class Patience:
    """With one connection."""

    __slots__ = ("_key", "_read_at", "_reads", "_since", "_unsent", "_unsent_at")

    def __init__(self, now: float) -> None:
        self._key = (-1, -1)
        self._since = self._read_at = self._unsent_at = now
        self._reads = -1
        self._unsent = 0

    def look(self, connection: Watched, now: float) -> None:
        """Close the connection if the client keeps us waiting too long."""
        if connection.transport is None or connection.transport.is_closing():
            return
        if self._key != (connection.phase, connection.messages):
            self._key, self._since = (connection.phase, connection.messages), now
        if self._reads != connection.reads:
            self._reads, self._read_at = connection.reads, now
        self._look_at_reading(connection, now)
        self._look_at_writing(connection, now)

    def _look_at_reading(self, connection: Watched, now: float) -> None:
        waited = now - self._since
        match connection.phase:
            case Phase.HEAD if waited > HEAD_TIMEOUT_S:
                connection.refuse_connection(408, f"the request head did not arrive within {HEAD_TIMEOUT_S:g} seconds")
            case Phase.BODY if not connection.paused():
                if now - self._read_at > BODY_STALL_S:
                    connection.refuse_connection(408, f"no byte of the body arrived for {BODY_STALL_S:g} seconds")
                elif waited > BODY_STALL_S and connection.body_bytes < waited * BODY_RATE_MIN:
                    connection.refuse_connection(408, f"the body arrives slower than {BODY_RATE_MIN} bytes a second")
            case Phase.LINGER if waited > LINGER_S:
                connection.transport.close()
            case Phase.IDLE if waited > IDLE_TIMEOUT_S:
                connection.transport.close()
            case _:
                pass

    def _look_at_writing(self, connection: Watched, now: float) -> None:
        unsent = connection.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._unsent_at = now
        elif now - self._unsent_at > WRITE_STALL_S:
            connection.transport.abort()
        self._unsent = unsent


async def watch(connections: Iterable[Any]) -> None:
    """Watch over a listener's connections for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        for connection in list(connections):
            patience: Patience | None = getattr(connection, "patience", None)
            if patience is not None:
                patience.look(connection, loop.time())
