"""One listening port: a uvicorn server with hot routes, in the platform's event loop.

A port can be handed over to another process that listens on the same socket (`Listener.hand_over`):

1. We stop accepting; who connects from now on waits in the backlog for the other process.
2. Held requests are answered as they stand: a poll with nothing, a waiting client with the job as it is. Requests that are
   still coming in, or being answered, are finished.
3. A connection between two requests is passed on as it is, and its client never knows. To close it instead would be a trap:
   the client may be sending its next request, and stock workers drop a result whose connection breaks (protocol A.2).
4. What is not between two requests after `HAND_OVER_S_MAX` is closed.

A listener may serve further sockets with the same routes (`Listener.add`); they are handed over with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Callable, Container, Generator, Sequence
from ipaddress import ip_address
from typing import Any

import uvicorn

from runyard.edge.crowd import Crowd, counted
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
        self._leaving = False

    async def add(self, sock: socket.socket) -> Callable[[], None]:
        """Serve this listening socket, too, and close it at the end. What it returns ends that: requests that came there are
        answered as they stand, and their connections closed. While it hands over it leaves the socket to the next one.
        """
        server, host = self._server, sock.getsockname()[0]
        if self._leaving:
            return lambda: None
        port = await asyncio.get_running_loop().create_server(
            self._connection, sock=sock, backlog=server.config.backlog
        )
        server.servers.append(port)

        def end() -> None:
            port.close()
            server.servers.remove(port)
            for connection in self._connections():
                if _local_host(connection.transport) == host:
                    connection.shutdown()

        return end

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        with contextlib.suppress(OSError):  # The client has left.
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, sock)

    async def hand_over(self, pass_on: PassOn) -> None:
        """Let go of the port and of every connection; see the module."""
        self._leaving = True
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

    def _connection(self) -> EdgeProtocol:
        return self._protocol(self._server.config, self._server.server_state, {})

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
    sock: socket.socket,
    routes: Routes,
    app: Any,
    vigil: Vigil = EdgeProtocol.vigil,
    *,
    shut_at: Container[str] = (),
    crowd: Crowd | None = None,
) -> AsyncGenerator[Listener]:
    """Serve on `sock` while the context is open: hot routes first, `app` (ASGI) for all else. A socket that listens on all
    addresses closes connections to those in `shut_at` as they come, and any socket those that `crowd` has no room for.
    """
    protocol = with_routes(routes, vigil)
    if crowd is not None:
        protocol = counted(protocol, crowd)
    if ip_address(sock.getsockname()[0]).is_unspecified:
        protocol = _shut(protocol, shut_at)
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


def _shut(protocol: type[EdgeProtocol], hosts: Container[str]) -> type[EdgeProtocol]:
    """The protocol, but for who comes to one of these addresses. They are looked up when he comes: they change."""

    class Shut(protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if _local_host(transport) in hosts:
                transport.abort()

    return Shut


def _local_host(transport: asyncio.Transport) -> str:
    """The address of this machine that the client has come to."""
    name = transport.get_extra_info("sockname")  # None if the client has left already.
    return name[0].removeprefix("::ffff:") if name else ""
