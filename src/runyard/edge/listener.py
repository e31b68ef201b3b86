"""One listening port: a uvicorn server with hot routes, in the platform's event loop.

A port can be handed over to another process that listens on the same socket (`Listener.hand_over`):

1. We stop accepting; who connects from now on waits in the backlog for the other process.
2. Held requests are answered as they stand: a poll with nothing, a waiting client with the job as it is. Requests that are
   still coming in, or being answered, are finished.
3. A connection between two requests is passed on as it is, and its client never knows. To close it instead would be a trap:
   the client may be sending its next request, and stock workers drop a result whose connection breaks (protocol A.2).
4. What is not between two requests after `HAND_OVER_S_MAX` is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any

import uvicorn

from runyard.edge.patience import watch
from runyard.edge.protocol import EdgeProtocol, Routes, with_routes
from runyard.edge.vigil import Vigil

SHUTDOWN_S = 5
"""How long open requests may take to end once the port is closed."""
HAND_OVER_S_MAX = 5.0
LOOK_EVERY_S = 0.005
BATCH_MAX = 200
"""Connections passed on in one go."""

PassOn = Callable[[Sequence[int]], bool]
"""Takes copies of connections, as descriptors; False when it cannot, and then they are closed."""


class _Server(uvicorn.Server):
    """Leaves signals to the platform, which has more than one server to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Listener:
    """A port that is served."""

    def __init__(self, server: _Server, protocol: type[EdgeProtocol]) -> None:
        self._server = server
        self._protocol = protocol

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        server = self._server
        with contextlib.suppress(OSError):  # The client has left.
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(server.config, server.server_state, {}), sock
            )

    async def hand_over(self, pass_on: PassOn) -> None:
        """Let go of the port and of every connection; see the module."""
        for port in self._server.servers:
            port.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + HAND_OVER_S_MAX
        await asyncio.sleep(LOOK_EVERY_S)  # What has just been accepted becomes a connection.
        while (open_ones := self._connections()) and loop.time() < until:
            idle = [connection for connection in open_ones if connection.between_requests()]
            for start in range(0, len(idle), BATCH_MAX):
                _pass_on(idle[start : start + BATCH_MAX], pass_on)
            for connection in open_ones:
                connection.hurry()
            await asyncio.sleep(LOOK_EVERY_S)
        self._server.should_exit = True

    def _connections(self) -> list[EdgeProtocol]:
        found = self._server.server_state.connections
        return [one for one in found if isinstance(one, EdgeProtocol) and not one.transport.is_closing()]


def _pass_on(connections: Sequence[EdgeProtocol], pass_on: PassOn) -> None:
    """Copies go to the other process; our own end is closed, which is nothing that the client can see."""
    copies = [os.dup(connection.transport.get_extra_info("socket").fileno()) for connection in connections]
    pass_on(copies)
    for connection in connections:
        connection.transport.abort()
    for copy in copies:
        os.close(copy)


@contextlib.asynccontextmanager
async def listening(
    sock: socket.socket, routes: Routes, app: Any, vigil: Vigil = EdgeProtocol.vigil
) -> AsyncGenerator[Listener]:
    """Serve on `sock` while the context is open: hot routes first, `app` (ASGI) for all else."""
    protocol = with_routes(routes, vigil)
    config = uvicorn.Config(
        app,
        http=protocol,
        lifespan="off",
        ws="none",  # No route speaks WebSocket, and uvicorn would take such connections away from the edge's guards.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    watching = asyncio.create_task(watch(server.server_state.connections))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it.
            await asyncio.sleep(0)
        yield Listener(server, protocol)
    finally:
        watching.cancel()
        server.should_exit = True
        await serving
