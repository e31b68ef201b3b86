"""The real edge over memory adapters, and callers that speak to it in bytes: over a `Line` in memory, where a test may
move the loop's time, or over a `Wire`, a real loopback socket.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import uvicorn
from uvicorn.server import ServerState

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.stores.fleet import MemoryFleet
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.secrets import MemorySecrets
from runyard.adapters.system import LoopClock, RandomIds
from runyard.adapters.vault import MemoryVault
from runyard.config import Settings
from runyard.domain.account import digest_of
from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import NotFound
from runyard.domain.job import EndpointId
from runyard.edge.jobs import JobRoutes
from runyard.edge.listener import listening
from runyard.edge.protocol import EdgeProtocol, Routes, with_routes
from runyard.edge.worker import WorkerRoutes
from runyard.ports.stores import JobStore
from runyard.services.access import Access
from runyard.services.adoption import Records
from runyard.services.dispatch import Dispatch
from runyard.services.fleet import Fleet
from runyard.services.inputs import Inputs
from runyard.services.jobs import Jobs
from runyard.services.lifecycle import Lifecycle, WorkerOptions
from runyard.services.limits import RateLimits
from runyard.services.logs import Logs
from runyard.services.redaction import Redaction
from runyard.services.roster import LiveWorker, Roster
from runyard.services.secrets import Secrets
from runyard.services.spill import Carried, Spills
from runyard.services.sweeper import Sweeper
from tests.builders import ENDPOINT, SECRET, WORKER, a_worker, an_endpoint
from tests.payload_kit import MemoryPayloads

RESULT_BYTES_MAX = 4 << 20


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Line(asyncio.Transport):
    """A connection in memory. `send`, `reply` and `leave` are the client's end; the rest is the platform's."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._closing = False
        self._paused = False
        self._unread = bytearray()
        self.received = bytearray()
        """What has come from the platform and is not part of a whole reply yet."""
        self._replies: deque[Reply] = deque()
        self._news = asyncio.Event()
        self.writes = 0
        """What the platform has written came in so many pieces."""
        self.lost = False
        protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        self._unread += data
        self._loop.call_soon(self._deliver)

    async def reply(self) -> Reply:
        """The next reply; raises `ConnectionResetError` when the platform closes before it has come."""
        while not self._replies:
            if self.lost:
                raise ConnectionResetError
            self._news.clear()
            await self._news.wait()
        return self._replies.popleft()

    @property
    def answered(self) -> bool:
        return bool(self._replies)

    @property
    def unread(self) -> int:
        """Bytes that the platform has not read."""
        return len(self._unread)

    def leave(self) -> None:
        """The client goes, and the platform is told."""
        self.close()

    def _deliver(self) -> None:
        if self._unread and not (self._paused or self._closing):
            data, self._unread = bytes(self._unread), bytearray()
            self._protocol.data_received(data)

    def _arrive(self, data: bytes) -> None:
        self.received += data
        while (parsed := _parse(bytes(self.received))) is not None:
            reply, size = parsed
            del self.received[:size]
            self._replies.append(reply)
        self._news.set()

    def _lose(self) -> None:
        self.lost = True
        self._news.set()
        self._protocol.connection_lost(None)

    # The platform's end

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self.writes += 1
            self._loop.call_soon(self._arrive, bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return 0


class Call:
    """A request under way, on a connection of its own. Await it for its reply."""

    def __init__(self, line: Line, request: bytes) -> None:
        self.line = line
        line.send(request)

    def __await__(self) -> Generator[Any, None, Reply]:
        return self._reply().__await__()

    async def _reply(self) -> Reply:
        try:
            return await self.line.reply()
        finally:
            self.line.close()

    @property
    def answered(self) -> bool:
        return self.line.answered

    def leave(self) -> None:
        self.line.leave()


class Caller:
    """Speaks HTTP to one port, under one prefix, with one key."""

    def __init__(self, yard: Yard, protocol: type[EdgeProtocol], prefix: str, key: str | None) -> None:
        self.yard = yard
        self.protocol = protocol
        self.prefix = prefix
        self.key = key

    def line(self) -> Line:
        self.yard.begin()
        return Line(self.protocol(self.yard.config, self.yard.server_state, {}))

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Call:
        """`body` is sent as it is when it is bytes, else as JSON."""
        return Call(self.line(), self.request(method, path, body, headers))

    def request(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
        """What `call` sends."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Host": "runyard.test", "Content-Length": str(len(data))}
        named |= {} if self.key is None else {"Authorization": self.key}
        lines = [
            f"{method} {self.prefix}{path} HTTP/1.1",
            *(f"{k}: {v}" for k, v in (named | dict(headers or {})).items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + data

    def get(self, path: str, **more: Any) -> Call:
        return self.call("GET", path, **more)

    def post(self, path: str, body: object = None, **more: Any) -> Call:
        return self.call("POST", path, body, **more)


class Client(Caller):
    """A user of one endpoint."""

    async def run(self, input: Any = 1, **fields: Any) -> str:
        """Submit; the job's id."""
        reply = await self.post("/run", {"input": input, **fields})
        assert 200 == reply.status, reply.body
        return reply.json()["id"]

    async def status(self, job_id: str) -> Any:
        return (await self.get(f"/status/{job_id}")).json()


class Worker(Caller):
    """A worker by hand: it says what the official one would."""

    live: LiveWorker

    @property
    def id(self) -> str:
        return self.live.id

    def take(self, *, busy: bool = False) -> Call:
        return self.get(f"/job-take/{self.id}?gpu=none&job_in_progress={int(busy)}")

    def take_batch(self, size: int, *, busy: bool = False) -> Call:
        return self.get(f"/job-take-batch/{self.id}?gpu=none&batch_size={size}&job_in_progress={int(busy)}")

    def done(self, job_id: str, body: object, *, headers: Mapping[str, str] | None = None) -> Call:
        form = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self.post(f"/job-done/{self.id}/{job_id}?gpu=none&isStream=false", body, headers=form)

    def stream(self, job_id: str, output: object) -> Call:
        return self.post(f"/job-stream/{self.id}/{job_id}?gpu=none&isStream=false", {"output": output})

    def stop(self) -> Call:
        return self.get(f"/job-stop/{self.id}?gpu=none")

    def ping(self, query: str = "") -> Call:
        return self.get(f"/ping/{self.id}?gpu=none{query}")


class Book:
    """Endpoints that stay as they are, until they are deleted."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}

    def delete(self, endpoint_id: EndpointId) -> None:
        del self._endpoints[endpoint_id]

    def get(self, endpoint_id: EndpointId) -> Endpoint:
        if endpoint_id not in self._endpoints:
            raise NotFound(f"there is no endpoint {endpoint_id!r}")
        return self._endpoints[endpoint_id]

    def list(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    async def set_lock(self, endpoint_id: EndpointId, release_id: str, lock: str) -> None:
        """Nothing here is built."""


class Yard:
    """Services and routes as `app.Platform` wires them. Workers are the tests'; the fleet plans where a test runs it."""

    def __init__(self, *, settings: Settings | None = None, store: JobStore | None = None) -> None:
        """`store` is closed with the yard."""
        settings = settings or Settings(result_bytes_max=RESULT_BYTES_MAX)
        self.clock, ids, self.signals = LoopClock(), RandomIds(), LocalSignals()
        self.store: JobStore = store or MemoryJobs(bytes_max=settings.store_bytes_max)
        self.roster = Roster()
        self.book = Book(an_endpoint(), an_endpoint("endpoint-2"))
        self.access = Access(MemoryControl(), self.clock, ids)
        self.payloads = MemoryPayloads()
        self.spills = Spills(self.payloads, self.store, self.clock, Carried(settings.webhook_output_bytes_max))
        self.inputs = inputs = Inputs(
            self.spills, self.store, self.signals, self.clock, inline_bytes_max=settings.input_inline_bytes
        )
        self.dispatch = Dispatch(
            self.store, self.roster, inputs, self.signals, self.clock, limits=lambda _: settings.attempt_limits
        )
        terms = lambda _: settings.job_terms  # noqa: E731
        self.jobs = Jobs(
            self.store, self.dispatch, inputs, self.signals, self.clock, ids, terms=terms, endpoint_of=self.book.get
        )
        self.sweeper = Sweeper(self.store, self.dispatch, self.signals, self.clock)
        grace = timedelta(seconds=settings.stop_grace_s)
        options = WorkerOptions(worker_url="", ping_interval_ms=10_000, stop_grace=grace, job_stop_grace=grace)
        self.lifecycle = Lifecycle(
            self.book,
            self.dispatch,
            self.roster,
            Records(MemoryFleet()),
            self.signals,
            self.clock,
            ids,
            Logs(self.clock),
            Redaction(Secrets(MemorySecrets(), MemoryVault(), self.book, self.roster.workers, self.clock)),
            options,
        )
        self.fleet = Fleet(self.book, self.store, self.roster, self.signals, self.clock, self.lifecycle)
        self.job_routes = JobRoutes(
            self.jobs,
            self.book,
            self.fleet,
            self.access,
            limits=RateLimits(settings.rate_limits, self.fleet),
            run_bytes_max=settings.run_bytes_max,
            runsync_bytes_max=settings.runsync_bytes_max,
            spills=self.spills,
        )
        self.worker_routes = WorkerRoutes(
            self.dispatch,
            self.roster,
            self.lifecycle.ailing,
            poll_hold_s=settings.poll_hold_s,
            result_bytes_max=settings.result_bytes_max,
            result_inline_bytes=settings.result_inline_bytes,
            spills=self.spills,
        )
        self.config = uvicorn.Config(nothing_else, lifespan="off", log_config=None)
        self.server_state = ServerState()
        self.user_port, self.worker_port = _port(self.job_routes.paths), _port(self.worker_routes.paths)
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        _, self.key = await self.access.create("test")
        self.client = self.client_of(ENDPOINT)

    def begin(self) -> None:
        """Start the loops with the first caller: a fixture's clock is not yet the test's."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self.sweeper.run())

    async def close(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await self.inputs.close()
        await self.store.close()

    def client_of(self, endpoint_id: str) -> Client:
        return Client(self, self.user_port, f"/v2/{endpoint_id}", f"Bearer {self.key}")

    def worker(self, id: str = WORKER, *, endpoint_id: str = ENDPOINT, secret: str = SECRET) -> Worker:
        """This worker, recorded now if it is new; `secret` is what it shows."""
        record = a_worker(id, endpoint_id=EndpointId(endpoint_id), secret_digest=digest_of(secret))
        worker = Worker(self, self.worker_port, f"/v2/{endpoint_id}", secret)
        worker.live = self.roster.get(record.id) or self.roster.add(record)
        return worker


async def nothing_else(scope: Any, receive: Any, send: Any) -> None:
    """What is not a hot route."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


class Wire:
    """A client on a real loopback socket that says what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int, host: str = "127.0.0.1") -> AsyncGenerator[Wire]:
        wire = cls(*await asyncio.open_connection(host, port))
        try:
            yield wire
        finally:
            wire.writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, bodiless: bool = False) -> Reply | None:
        """The next reply (`bodiless`: to a HEAD), None when the platform closes before it has come whole."""
        while (parsed := _parse(bytes(self.received), bodiless=bodiless)) is None:
            data = await self.reader.read(1 << 16)
            if not data:
                return None
            self.received += data
        reply, size = parsed
        del self.received[:size]
        return reply

    async def rest(self) -> bytes:
        """What else comes until the platform closes."""
        try:
            return bytes(self.received) + await self.reader.read()
        except ConnectionResetError:
            return bytes(self.received)


@asynccontextmanager
async def serving(yard: Yard, app: Any = nothing_else) -> AsyncGenerator[tuple[int, int]]:
    """The yard on two real ports, the users' and the workers', with `app` behind the first."""
    user_port, worker_port = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    async with (
        listening(user_port, yard.job_routes.paths, app),
        listening(worker_port, yard.worker_routes.paths, nothing_else),
    ):
        yield user_port.getsockname()[1], worker_port.getsockname()[1]


def _port(routes: Routes) -> type[EdgeProtocol]:
    return with_routes(routes)


def _parse(data: bytes, *, bodiless: bool = False) -> tuple[Reply, int] | None:
    """The first whole reply in the data and its size."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked" and not bodiless:
        if (unchunked := _unchunk(rest)) is None:
            return None
        body, size = unchunked
        return Reply(int(first.split()[1]), headers, body), len(head) + 4 + size
    size = 0 if bodiless else int(headers.get("content-length", "0"))
    if len(rest) < size:
        return None
    return Reply(int(first.split()[1]), headers, rest[:size]), len(head) + 4 + size


def _unchunk(data: bytes) -> tuple[bytes, int] | None:
    """A whole chunked body, and its size with its framing."""
    body, at = b"", 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end], 16)
        start, end = line_end + 2, line_end + 2 + size
        if len(data) < end + 2:
            return None
        assert data[end : end + 2] == b"\r\n"
        body, at = body + data[start:end], end + 2
        if size == 0:
            return body, at
    return None


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, as the keeper makes them."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock
