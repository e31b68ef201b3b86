"""A yard whose users' port is a real one, and a reader of answers that come in pieces: heads, chunks, Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Self

from runyard.edge.listener import Listener, listening
from tests.builders import WORKER
from tests.edge_kit import Wire, Yard, bind, nothing_else


class UserPort:
    """A yard whose users come by real sockets. Its workers are the tests'."""

    def __init__(self, yard: Yard, port: int, listener: Listener, close: Callable[[], Awaitable[None]]) -> None:
        self.yard = yard
        self.port = port
        self._listener = listener
        self.close = close
        """For tests in which an hour passes. Fixtures are closed in real time, which begins when the machine starts: there,
        what was put off for an hour may still be far off.
        """

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncGenerator[Self]:
        yard = Yard()
        await yard.open()
        sock = bind("127.0.0.1", 0)
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(listening(sock, yard.job_routes.paths, nothing_else))
            yield cls(yard, sock.getsockname()[1], listener, stack.aclose)
        await yard.close()

    def connections(self) -> list[Any]:
        """As the platform has them."""
        return self._listener._connections()  # pyright: ignore[reportPrivateUsage]

    def waits(self) -> int:
        """Subscriptions of requests, as the services know them."""
        return len(self.yard.signals._topics)  # pyright: ignore[reportPrivateUsage]

    async def post(self, job_id: str, *chunks: Any, worker: str = WORKER) -> None:
        """Stream chunks, as the worker does that has the job."""
        for chunk in chunks:
            assert 200 == (await self.yard.worker(worker).stream(job_id, chunk)).status

    @asynccontextmanager
    async def wire(self) -> AsyncGenerator[Wire]:
        async with Wire.to(self.port) as wire:
            yield wire


class Event(NamedTuple):
    name: str
    id: str
    data: Any


class Answer:
    """An answer in pieces, read as it comes."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.status = 0
        self.headers: dict[str, str] = {}
        self.whole = False
        """Its last chunk is here."""
        self._text = b""

    @classmethod
    async def on(cls, wire: Wire) -> Answer:
        """The next answer on this wire, once its head is here."""
        answer = cls(wire)
        head = (await wire.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        answer.status, answer.headers = int(first.split()[1]), dict(pairs)
        assert len(answer.headers) == len(pairs), f"a header comes twice: {lines}"
        return answer

    async def piece(self) -> bytes | None:
        """The next chunk; None after the last one, or when the platform closes."""
        if self.whole:
            return None
        if "transfer-encoding" not in self.headers:
            return await self.wire.reader.read(1 << 16) or None
        line = await self.wire.reader.readline()
        if not line:
            return None
        data = await self.wire.reader.readexactly(int(line, 16) + 2)
        assert data.endswith(b"\r\n")
        self.whole = data == b"\r\n"
        return None if self.whole else data[:-2]

    async def block(self) -> str | None:
        """The next block of lines, be it an event or a comment."""
        while b"\n\n" not in self._text:
            piece = await self.piece()
            if piece is None:
                return None
            self._text += piece
        block, _, self._text = self._text.partition(b"\n\n")
        return block.decode()

    async def event(self) -> Event | None:
        """The next event; comments are passed over."""
        while (block := await self.block()) is not None:
            fields: dict[str, list[str]] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(": ")
                fields.setdefault(name, []).append(value)
            if "data" in fields:
                data = json.loads("\n".join(fields["data"]))
                return Event(fields.get("event", [""])[0], fields.get("id", [""])[0], data)
        return None

    async def events(self, count: int) -> list[Event]:
        return [event for _ in range(count) if (event := await self.event()) is not None]

    async def rest(self) -> list[Event]:
        found: list[Event] = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found


@asynccontextmanager
async def asked(port: int, request: bytes) -> AsyncGenerator[Answer]:
    """Ask on a connection of one's own."""
    async with Wire.to(port) as wire:
        wire.send(request)
        yield await Answer.on(wire)
