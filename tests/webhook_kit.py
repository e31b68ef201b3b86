"""What tests of webhooks share: a sender that does as it is told, and receivers on loopback."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runyard.ports.webhooks import WebhookAnswer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Call:
    at: float
    url: str
    body: bytes
    headers: Mapping[str, str]


class Hang:
    """No answer ever comes."""


class RecordingSender:
    """Answers an address with what a test put into `answers` for it, the last of which stays; 200 where there is none."""

    def __init__(self) -> None:
        self.answers: dict[str, list[int | Exception | Hang]] = {}
        self.says = ""
        self.calls: list[Call] = []
        self.active: dict[str, int] = defaultdict(int)

    def to(self, url: str) -> list[float]:
        """When it was called, in seconds of the loop."""
        return [call.at for call in self.calls if call.url == url]

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        self.calls.append(Call(asyncio.get_running_loop().time(), url, body, headers))
        answers = self.answers.get(url, [200])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.active[url] += 1
        try:
            if isinstance(answer, Hang):
                await asyncio.Event().wait()
        finally:
            self.active[url] -= 1
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int)
        return WebhookAnswer(status=answer, excerpt=self.says)


@dataclass(frozen=True)
class Received:
    head: str
    body: bytes

    @property
    def request_line(self) -> str:
        return self.head.partition("\r\n")[0]

    def header(self, name: str) -> str | None:
        lines = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return next((value for key, _, value in lines if key.lower() == name.lower()), None)


class Receiver:
    """Answers every request with `answer`, byte for byte, then closes; None: with silence, until the sender leaves."""

    def __init__(self, answer: bytes | None = OK, *, endless: bool = False) -> None:
        self.answer = answer
        self.endless = endless
        """Goes on with a body that never ends."""
        self.requests: asyncio.Queue[Received] = asyncio.Queue()
        self.left = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Receiver"]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            received = Received(head, b"")
            body = await reader.readexactly(int(received.header("Content-Length") or 0))
            self.requests.put_nowait(Received(head, body))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
                while self.endless:
                    writer.write(b"x" * 1024)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()
