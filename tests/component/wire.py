"""The user port and the worker port on real loopback sockets, and clients that send bytes, good and bad.

Everything runs on the loop's clock, so that a test may wait out any patience of the platform's.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.stores.fleet import MemoryFleet
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.adapters.stores.secrets import MemorySecrets
from runyard.adapters.system import LoopClock, RandomIds
from runyard.adapters.vault import MemoryVault
from runyard.config import Settings
from runyard.domain.endpoint import Endpoint
from runyard.edge.bodies import job_body
from runyard.edge.listener import listening
from runyard.platform import Adapters, Platform
from runyard.ports.payloads import Payloads
from runyard.ports.runtime import RuntimeObserver
from runyard.services.spill import Carried
from tests.builders import ENDPOINT, SECRET, WORKER, a_worker, an_endpoint
from tests.control_doubles import MemoryBlobs, SetDisk
from tests.edge_kit import bind
from tests.payload_kit import MemoryPayloads

MIB = 1 << 20
SETTINGS = Settings(run_bytes_max=MIB, runsync_bytes_max=2 * MIB, result_bytes_max=4 * MIB)
GET, POST = "GET", "POST"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What an error says; there must be nothing else in it, and it must be JSON."""
        assert self.status >= 400, self
        assert "application/json" == self.headers["content-type"]
        told = self.json()
        assert {"error"} == told.keys()
        return told["error"]


class Wire:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """The next reply, as its own head says how long it is."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header comes twice: {lines}"
        assert first.startswith("HTTP/1.1 "), first
        if headers.get("transfer-encoding") == "chunked" and not head_only:
            body = await self._chunks()
        else:
            body = await self.reader.readexactly(0 if head_only else int(headers.get("content-length", "0")))
        return Reply(int(first.split()[1]), headers, body)

    async def _chunks(self) -> bytes:
        body, size = b"", -1
        while size:
            size = int(await self.reader.readline(), 16)
            body += (await self.reader.readexactly(size + 2)).removesuffix(b"\r\n")
        return body

    async def ask(self, data: bytes | str) -> Reply:
        self.send(data)
        return await self.reply()

    async def rest(self) -> bytes:
        """All that comes until the platform closes the connection."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    async def is_closed(self) -> bool:
        """Whether the platform has closed or closes now; nothing more may have come."""
        return b"" == await self.rest()

    def half_close(self) -> None:
        self.writer.write_eof()

    def leave(self) -> None:
        self.writer.close()


@dataclass
class Ports:
    """Both ports of a platform with one endpoint, and a worker of it that has been recorded."""

    platform: Platform
    key: str
    user_port: int
    worker_port: int
    wires: list[Wire] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    """What the event loop was told of that nobody caught."""

    async def connect(self, *, receive_bytes: int | None = None) -> Wire:
        return await self._connect(self.user_port, receive_bytes)

    async def connect_worker(self) -> Wire:
        return await self._connect(self.worker_port, None)

    async def _connect(self, port: int, receive_bytes: int | None) -> Wire:
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        wire = Wire(*await asyncio.open_connection(sock=sock, limit=MIB))
        self.wires.append(wire)
        return wire

    def request(
        self, method: str, path: str, body: bytes | str | None = None, *more: str, key: str | None = None
    ) -> bytes:
        """A well-formed request to the endpoint (`path` after its id), with `more` header lines."""
        data = body.encode() if isinstance(body, str) else body
        lines = [
            f"{method} /v2/{ENDPOINT}{path} HTTP/1.1",
            "Host: yard.test",
            f"Authorization: {key or self.key}",
            *more,
        ]
        if data is not None:
            lines.append(f"Content-Length: {len(data)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (data or b"")

    def poll(self, *more: str) -> bytes:
        """A worker's poll, which is held while there is no job."""
        return self.request(GET, f"/job-take/{WORKER}?gpu=none&job_in_progress=0", None, *more, key=SECRET)

    async def lives(self) -> bool:
        """Whether a new client is served as if nothing had happened, and nothing went wrong unseen."""
        reply = await (await self.connect()).ask(self.request(GET, "/health"))
        return 200 == reply.status and [] == self.alarms


@asynccontextmanager
async def open_ports(
    settings: Settings = SETTINGS,
    *,
    endpoint: Endpoint | None = None,
    runtime: Callable[[RuntimeObserver], FakeRuntime] | None = None,
    payloads: Payloads | None = None,
) -> AsyncIterator[Ports]:
    """Without a `runtime`, the endpoint has one worker, which the test plays itself."""
    user_port, worker_port = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    control = MemoryControl()
    await control.add_endpoint(endpoint or an_endpoint())
    adapters = Adapters(
        store=MemoryJobs(),
        outbox=MemoryOutbox(job_body),
        control=control,
        fleet=MemoryFleet(),
        secrets=MemorySecrets(),
        vault=MemoryVault(),
        blobs=MemoryBlobs(),
        payloads=payloads or MemoryPayloads(),
        carried=Carried(0),
        signals=LocalSignals(),
        clock=LoopClock(),
        ids=RandomIds(),
        runtime=lambda observer, credentials: (runtime or FakeRuntime)(observer),
        webhooks=NoWebhooks(),
        disk=SetDisk(),
    )
    platform = Platform(adapters, settings, "http://workers.test")
    _, key = await platform.access.create("test")
    ports = Ports(platform, key, user_port.getsockname()[1], worker_port.getsockname()[1])
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: ports.alarms.append(str(context)))
    async with (
        listening(worker_port, platform.worker_routes.paths, echo),
        platform.running(),
        listening(user_port, platform.job_routes.paths, echo),
    ):
        if runtime is None:
            platform.roster.add(a_worker())
        try:
            yield ports
        finally:
            for wire in ports.wires:
                wire.leave()
            await asyncio.sleep(0)
    assert [] == ports.alarms


class NoWebhooks:
    async def send(self, url: str, body: bytes) -> int:
        raise AssertionError("no test here names a webhook")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The application behind the hot routes: tells what it was sent. Under /slow it takes a second, under /huge 64 MiB."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"].startswith("/slow"):
        await asyncio.sleep(1)
    told: dict[str, Any] = {
        "method": scope["method"],
        "path": scope["path"],
        "body": len(body),
        "headers": sorted(name.decode() for name, _ in scope["headers"]),
    }
    text = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
