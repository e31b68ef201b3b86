"""What tests of the edge's HTTP share: a yard on real ports with a small app behind it, and requests as bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from runyard.edge import listener
from tests.builders import ENDPOINT, a_worker
from tests.edge_kit import Reply, Wire, Yard, serving

HOST = b"Host: runyard.test\r\n"
HEALTH = f"/v2/{ENDPOINT}/health".encode()
RUN = f"/v2/{ENDPOINT}/run".encode()
RUNSYNC = f"/v2/{ENDPOINT}/runsync".encode()
BODY = b'{"input": 1}'
ANSWERED_S_MAX = 5


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Behind the hot routes: tells path, body and headers; `/endless` begins an answer and waits for its client to go."""
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await receive()
        return
    told = [scope["path"], body.decode(), [name.decode() for name, _ in scope["headers"]]]
    data = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(data))]})
    await send({"type": "http.response.body", "body": data})


class Site(NamedTuple):
    yard: Yard
    port: int
    worker_port: int
    connections: Iterable[Any]
    """Of the users' port, as the platform has them."""

    @property
    def key(self) -> bytes:
        return f"Authorization: {self.yard.key}\r\n".encode()

    def get(self, path: bytes = HEALTH, more: bytes = b"", version: bytes = b"1.1") -> bytes:
        return b"GET %b HTTP/%b\r\n%b%b%b\r\n" % (path, version, HOST, self.key, more)

    def post(self, path: bytes = RUN, body: bytes = BODY, more: bytes = b"") -> bytes:
        return b"POST %b HTTP/1.1\r\n%b%b%bContent-Length: %d\r\n\r\n%b" % (path, HOST, self.key, more, len(body), body)

    @asynccontextmanager
    async def wire(self, *, worker: bool = False) -> AsyncGenerator[Any]:
        async with asyncio.timeout(ANSWERED_S_MAX), Wire.to(self.worker_port if worker else self.port) as wire:
            yield wire

    def waits(self) -> int:
        """Held requests, as the services know them."""
        return len(self.yard.signals._topics)  # pyright: ignore[reportPrivateUsage]

    async def last(self, phase: int | None = None) -> Any:
        """The only connection, once it is there and has read as far as `phase`."""
        await until(lambda: any(phase in (None, c.phase) for c in self.connections))
        (connection,) = self.connections
        return connection


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(ANSWERED_S_MAX):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event.
            await asyncio.sleep(0.001)


@asynccontextmanager
async def a_site() -> AsyncGenerator[Site]:
    seen: list[Iterable[Any]] = []

    async def watch(connections: Iterable[Any]) -> None:
        seen.append(connections)  # Tests look themselves, at a time of their own.

    yard = Yard()
    await yard.open()
    yard.roster.add(a_worker())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener, "watch", watch)
        async with serving(yard, app) as (port, worker_port):
            yield Site(yard, port, worker_port, seen[0])
    await yard.close()


@asynccontextmanager
async def unharmed(site: Site, caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Site]:
    """After the test all connections and waits are gone, a good request is served and no error was logged."""
    yield site
    await until(lambda: not list(site.connections))
    assert 0 == site.waits()
    async with site.wire() as wire:
        wire.send(site.get())
        assert 200 == (await wire.reply()).status
    await until(lambda: not list(site.connections))
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def told(reply: Reply | None, status: int) -> None:
    assert reply is not None
    assert (status, ["error"]) == (reply.status, list(reply.json()))
