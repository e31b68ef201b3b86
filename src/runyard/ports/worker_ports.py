"""Where workers that have a network of their own reach the platform."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class WorkerPorts(Protocol):
    """Worker planes at addresses of this machine, one for each network of workers: the gateway's. Workers on loopback have
    the worker port, which is none of these.

    A port stays open when the server is replaced or crashes, until `close`: who holds the networks closes what has none.
    """

    @property
    def hosts(self) -> Collection[str]:
        """The addresses that have a port now, also by an earlier server; it changes with them. The user port answers
        nobody who comes to one of these, whatever it listens on.
        """
        ...

    async def open(self, host: str, *, port: int = 0) -> str:
        """The URL of the worker plane at this IP address, without a path; from now on it is served, or from when the
        platform opens. The address may come to this machine later, and go and come back.

        It has this port if that is free there, else the worker port's number if that is, else any. What is open stays as it
        is: repeated calls return the same. Raises `BadRequest` when that is no address of one network, and `StartFailed`
        when nothing can listen there.
        """
        ...

    async def close(self, host: str) -> None:
        """Serve nobody there any more: requests under way are answered as they stand, new connections refused. Nothing
        happens when it is not open.
        """
        ...
