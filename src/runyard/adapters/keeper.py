"""The server's end of its line to the keeper (src/runyard/keeper): its orders, and the workers that are its children."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from runyard.adapters.worker_ports import HeldPort
from runyard.domain.errors import BadRequest, StartFailed

PROTOCOL = 2
"""What this server speaks."""
FDS_PER_MESSAGE = 200
"""Linux passes at most 253 at once."""
_GONE = {"error": "the keeper is gone"}


@dataclass(frozen=True, slots=True)
class Seat:
    """What a server inherits from its keeper, as file descriptors."""

    line: int
    hatch: int
    user_port: int
    worker_port: int
    corridor_in: int
    corridor_out: int
    stderr: int

    @classmethod
    def of(cls, spec: str) -> Seat:
        """From `PROTOCOL:FD,FD,...`. Raises `BadRequest` when the keeper speaks another protocol."""
        protocol, _, descriptors = spec.partition(":")
        if protocol != str(PROTOCOL):
            raise BadRequest(
                f"this version needs another keeper (protocol {PROTOCOL}, the running one speaks {protocol}): "
                "stop the platform and serve again"
            )
        return cls(*map(int, descriptors.split(",")))


@dataclass(frozen=True, slots=True)
class Output:
    """A worker has written. Places count from its first byte; the spool file begins at `base`."""

    base: int
    read: int
    """Where the first line begins that no server has read."""
    end: int
    last: bool
    """Nobody can write any more."""


class Ears(Protocol):
    """Hears of one worker."""

    def wrote(self, output: Output) -> None:
        """Answer with `KeeperLine.read`; until then the file stays as it is, and nothing more is told."""
        ...

    def exited(self, code: int) -> None:
        """Negative: killed by that signal."""
        ...


class KeeperLine(asyncio.Protocol):
    """Orders are events: they stay set. Workers' news go to whoever has spawned or adopted them."""

    def __init__(self, hatch: Hatch | None = None) -> None:
        self.opening = asyncio.Event()
        """The stores and the ports are ours."""
        self.handing_over = asyncio.Event()
        self.stopping = asyncio.Event()
        self.lost = asyncio.Event()
        """The keeper is gone, and with it the workers."""
        self.left: set[str] = set()
        """Workers of an earlier server that nobody has adopted yet."""
        self.ports: dict[str, HeldPort] = {}
        """Those besides the two that the keeper holds, by address."""
        self._hatch = hatch
        self._transport: asyncio.WriteTransport | None = None
        self._got = bytearray()
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ears: dict[str, Ears] = {}

    @classmethod
    async def on(cls, descriptor: int, hatch: int) -> KeeperLine:
        """Speak on these inherited sockets."""
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        _, line = await asyncio.get_running_loop().create_unix_connection(lambda: cls(Hatch(hatch)), sock=sock)
        return line

    def say(self, order: str, **message: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(json.dumps({"do": order, **message}).encode() + b"\n")

    # Workers

    async def spawn(
        self,
        id: str,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        spool: Path,
        ears: Ears,
        complaints: bool,
    ) -> tuple[int, str]:
        """Start a worker as the keeper's child; its output goes to `spool`. Returns its pid and what it had to complain
        about on standard error until it closed that, if that is asked for. Raises `StartFailed`.
        """
        self._ears[id] = ears
        reply = await self._ask(
            "spawn",
            id=id,
            argv=list(argv),
            cwd=str(cwd),
            env=dict(env),
            spool=str(spool),
            complaints=complaints,
        )
        if "error" in reply:
            self.release(id)
            raise StartFailed(f"cannot start {argv[0]}: {reply['error']}")
        return reply["pid"], reply.get("complaints", "")

    def adopt(self, id: str, ears: Ears) -> None:
        self.left.discard(id)
        self._ears[id] = ears
        self.say("listen", id=id)

    def release(self, id: str) -> None:
        """Hear nothing of the worker any more: what it says from now on is for the next server to read."""
        self._ears.pop(id, None)

    def signal(self, id: str, number: int, *, group: bool) -> None:
        self.say("signal", id=id, number=number, group=group)

    def read(self, id: str, upto: int, seen: int) -> None:
        """All before `seen` was read; nothing before `upto` is needed any more."""
        self.say("read", id=id, upto=upto, seen=seen)

    def forget(self, id: str) -> None:
        """The worker has ended, and all of it has been heard."""
        self.release(id)
        self.say("forget", id=id)

    # Ports

    async def open_port(self, host: str, numbers: Sequence[int]) -> HeldPort:
        """What listens at this address, on the first of these ports that is free there, 0 being any. The keeper
        holds it until `close_port`; what is open there already stays what it is. Raises `StartFailed`.
        """
        if host not in self.ports:
            reply = await self._ask("open-port", host=host, numbers=list(numbers))
            if "error" in reply:
                raise StartFailed(f"cannot listen for workers at {host}: {reply['error']}")
        return self.ports[host]

    async def close_port(self, host: str) -> None:
        """Once nobody serves it here: who connects from now on is refused."""
        if host in self.ports:
            await self._ask("close-port", host=host)

    async def _ask(self, order: str, **message: Any) -> dict[str, Any]:
        """The keeper's answer. Without a keeper it is an error."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        if self.lost.is_set():
            answer.set_result(_GONE)
        self.say(order, n=number, **message)
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's do not say what they are.

    def data_received(self, data: bytes) -> None:
        self._got += data
        *lines, self._got = self._got.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if self._hatch is not None:
            self._hatch.close()
        for ears in list(self._ears.values()):
            ears.exited(-signal.SIGKILL)  # The kernel kills the workers of a keeper that dies.
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(_GONE)

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"say": "open", "workers": workers, "ports": hosts}:
                self.left = set(workers)
                self._put_by(hosts)
                self.opening.set()
            case {"say": "hand-over"}:
                self.handing_over.set()
            case {"say": "stop"}:
                self.stopping.set()
            case {"say": "spawned"}:
                self._answer(message)
            case {"say": "port", "host": host}:
                # Whether or not anyone still waits for it: what is in the hatch must come out in its turn.
                if "closed" in message:
                    if (port := self.ports.pop(host, None)) is not None:
                        port.sock.close()
                elif "error" not in message and not self._put_by([host]):
                    message["error"] = "too many files are open"
                self._answer(message)
            case {"say": "output", "id": id} if id in self._ears:
                keys = ("base", "read", "end", "last")
                self._ears[id].wrote(Output(*(message[key] for key in keys)))
            case {"say": "exited", "id": id, "code": code} if id in self._ears:
                self._ears[id].exited(code)
            case _:
                pass

    def _answer(self, message: dict[str, Any]) -> None:
        if (answer := self._asked.get(message["n"])) is not None and not answer.done():
            answer.set_result(message)

    def _put_by(self, hosts: Sequence[str]) -> bool:
        """Take the ports at these addresses out of the hatch; False when some could not be had."""
        taken = self._hatch.take(hosts) if self._hatch is not None else {}
        for host, port in taken.items():
            if self.ports.setdefault(host, port) is not port:
                port.sock.close()  # It came before, for one who did not wait for it.
        return self.ports.keys() >= set(hosts)


class Hatch:
    """Where the keeper passes ports to this server, before it says on the line which they are."""

    def __init__(self, descriptor: int) -> None:
        self._sock = socket.socket(fileno=descriptor)
        self._sock.setblocking(False)

    def take(self, hosts: Sequence[str]) -> dict[str, HeldPort]:
        """The next ones, which are at these addresses; fewer when this process may not open so many files."""
        taken: dict[str, HeldPort] = {}
        for start in range(0, len(hosts), FDS_PER_MESSAGE):
            _, descriptors, _, _ = socket.recv_fds(self._sock, 1, FDS_PER_MESSAGE)
            socks = (socket.socket(fileno=fd) for fd in descriptors)
            taken |= zip(hosts[start : start + FDS_PER_MESSAGE], map(HeldPort.on, socks), strict=False)
        return taken

    def close(self) -> None:
        self._sock.close()


class Corridor:
    """Connections without a request under way, from one server to the next."""

    def __init__(self, descriptor_in: int, descriptor_out: int) -> None:
        self._in, self._out = (socket.socket(fileno=fd) for fd in (descriptor_in, descriptor_out))
        self._in.setblocking(False)
        self._out.setblocking(False)

    def leave(self, port: int, descriptors: Sequence[int]) -> bool:
        """Pass on connections of a port, at most `FDS_PER_MESSAGE`; False when the corridor is full."""
        try:
            socket.send_fds(self._out, [b"%d" % port], descriptors)
            return True
        except OSError:
            return False

    def arrivals(self) -> list[tuple[int, socket.socket]]:
        """All that were passed on, with the port that each came to."""
        arrived: list[tuple[int, socket.socket]] = []
        with suppress(BlockingIOError):
            while True:
                port, descriptors, _, _ = socket.recv_fds(self._in, 1, FDS_PER_MESSAGE)
                arrived += [(int(port), socket.socket(fileno=fd)) for fd in descriptors]
        return arrived


def speak_for_yourself(seat: Seat) -> None:
    """What this process says on standard error goes to the keeper's from now on: it has come so far that it can speak."""
    os.dup2(seat.stderr, 2)
    os.close(seat.stderr)
