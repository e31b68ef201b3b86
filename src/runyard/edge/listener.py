"""One listening port: a uvicorn server with hot routes, in the platform's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any

import uvicorn

from runyard.edge.patience import watch
from runyard.edge.protocol import EdgeProtocol, Routes, with_routes
from runyard.edge.vigil import Vigil

SHUTDOWN_S = 5
"""How long open requests may take to end once the port is closed."""


class _Server(uvicorn.Server):
    """Leaves signals to the platform, which has more than one server to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def listening(
    sock: socket.socket, routes: Routes, app: Any, vigil: Vigil = EdgeProtocol.vigil
) -> AsyncGenerator[None]:
    """Serve on `sock` while the context is open: hot routes first, `app` (ASGI) for all else."""
    config = uvicorn.Config(
        app,
        http=with_routes(routes, vigil),
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
        yield
    finally:
        watching.cancel()
        server.should_exit = True
        await serving


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; raises `OSError` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, since asyncio turns off Nagle's delays only where it says so: an answer in two writes took 40 ms more.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.set_inheritable(False)
    return sock
