"""Worker ports, on sockets that somebody else holds: the keeper, so that they outlive this server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from runyard.domain.errors import BadRequest, StartFailed

Serve = Callable[[socket.socket], Awaitable[Callable[[], None]]]
"""Serves who connects, until what it returns is called."""


class HeldPort(NamedTuple):
    """One that is open."""

    sock: socket.socket
    """A copy, which whoever serves it may close: the port is held elsewhere."""
    number: int

    @classmethod
    def on(cls, sock: socket.socket) -> HeldPort:
        return cls(sock, sock.getsockname()[1])


class Sockets(Protocol):
    """Holds listening sockets, one for each address, as `adapters/keeper.py:KeeperLine` does."""

    @property
    def ports(self) -> Mapping[str, HeldPort]: ...

    async def open_port(self, host: str, numbers: Sequence[int]) -> HeldPort: ...

    async def close_port(self, host: str) -> None: ...


class HeldWorkerPorts:
    """See `WorkerPorts`. One call after the other: there are few, and two for one address must not meet."""

    def __init__(self, sockets: Sockets, own_ports: Sequence[int]) -> None:
        """`own_ports` are the numbers of the user port and the worker port."""
        self._sockets = sockets
        self._own_ports = own_ports
        self._serve: Serve | None = None
        self._ends: dict[str, Callable[[], None]] = {}
        """Of those that are served here."""
        self._turn = asyncio.Lock()

    @property
    def hosts(self) -> Collection[str]:
        return self._sockets.ports.keys()

    def __contains__(self, number: object) -> bool:
        """Whether one of the platform's own ports has this number, here or on loopback or where users come."""
        return number in self._own_ports or any(port.number == number for port in self._sockets.ports.values())

    async def serve_with(self, serve: Serve) -> None:
        """Serve all that are open, and from now on those that are opened."""
        async with self._turn:
            self._serve = serve
            for host in list(self.hosts):
                await self._serve_at(host)

    async def open(self, host: str, *, port: int = 0) -> str:
        host = _address(host)
        wanted = [number for number in (port, self._own_ports[1]) if number]
        async with self._turn:
            number = (await self._sockets.open_port(host, [*wanted, 0])).number
            await self._serve_at(host)
        return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"

    async def close(self, host: str) -> None:
        host = _address(host)
        async with self._turn:
            if (end := self._ends.pop(host, None)) is not None:
                end()
            await self._sockets.close_port(host)

    async def _serve_at(self, host: str) -> None:
        if self._serve is not None and host not in self._ends:
            self._ends[host] = await self._serve(self._sockets.ports[host].sock)


class OwnSockets:
    """Sockets of this process, for what has no keeper."""

    def __init__(self) -> None:
        self.ports: dict[str, HeldPort] = {}

    async def open_port(self, host: str, numbers: Sequence[int]) -> HeldPort:
        if host not in self.ports:
            self.ports[host] = HeldPort.on(_first_free(host, numbers))
        return self.ports[host]

    async def close_port(self, host: str) -> None:
        if (port := self.ports.pop(host, None)) is not None:
            port.sock.close()


def _first_free(host: str, numbers: Sequence[int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in numbers:
        with suppress(OSError):
            return socket.create_server((host, number), family=family)
    raise StartFailed(f"cannot listen for workers at {host}: none of the ports {list(numbers)} can be had")


def _address(host: str) -> str:
    """As the kernel writes it."""
    try:
        address = ip_address(host)
    except ValueError:
        raise BadRequest(
            f"workers need an IP address to reach, such as a network's gateway; {host!r} is none"
        ) from None
    if address.is_unspecified or address.is_multicast or str(address) in ("127.0.0.1", "::1"):
        raise BadRequest(f"{host} is no address of a network of workers: name that of its gateway")
    return str(address)
