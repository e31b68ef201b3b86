"""The control plane in process: the real app and services over memory adapters, with a fleet and jobs one can set."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx2
from starlette.types import ASGIApp

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.adapters.stores.secrets import MemorySecrets
from runyard.adapters.vault import MemoryVault
from runyard.api.app import Services, build_app
from runyard.domain.endpoint import Endpoint
from runyard.domain.fleet import Preparation, QueueReason
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.webhook import SCHEDULES
from runyard.domain.worker import Exit, Worker, WorkerPhase, WorkerState
from runyard.edge.bodies import job_body
from runyard.ports.stores import JobCounts
from runyard.services.access import Access
from runyard.services.dead_letters import DeadLetters
from runyard.services.dispatch import Dispatch
from runyard.services.endpoints import Endpoints
from runyard.services.jobs import Jobs
from runyard.services.logs import Logs
from runyard.services.registries import Registries
from runyard.services.room import Room
from runyard.services.roster import Roster
from runyard.services.secrets import Secrets
from runyard.services.webhooks import Keeping, Webhooks
from tests.control_doubles import CountingIds, MemoryBlobs, SetClock, SetDisk
from tests.payload_kit import MemoryPayloads, inputs_in
from tests.webhook_kit import RecordingSender

BASE = "http://yard.test:8000"


@dataclass(frozen=True)
class Report:
    worker: Worker
    jobs: int = 0

    @property
    def state(self) -> WorkerState:
        return self.worker.state(busy=self.jobs > 0)


@dataclass
class SetFleet:
    """Has the workers that a test puts in."""

    live: dict[EndpointId, list[Report]] = field(default_factory=dict)
    stopped: dict[EndpointId, list[Report]] = field(default_factory=dict)
    reasons: dict[EndpointId, QueueReason] = field(default_factory=dict)
    preparations: dict[EndpointId, Preparation] = field(default_factory=dict)
    removed: list[EndpointId] = field(default_factory=list)

    def workers(self, endpoint_id: EndpointId) -> Sequence[Report]:
        return self.live.get(endpoint_id, [])

    def stopped_workers(self, endpoint_id: EndpointId) -> Sequence[Report]:
        return self.stopped.get(endpoint_id, [])

    def worker_states(self, endpoint_id: EndpointId) -> Mapping[WorkerState, int]:
        return Counter(report.state for report in self.workers(endpoint_id))

    def queue_reason(self, endpoint_id: EndpointId) -> QueueReason | None:
        return self.reasons.get(endpoint_id)

    def preparation(self, endpoint_id: EndpointId) -> Preparation | None:
        return self.preparations.get(endpoint_id)

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        self.removed.append(endpoint_id)


@dataclass
class SetJobs:
    """Counts what a test says."""

    by_endpoint: dict[EndpointId, JobCounts] = field(default_factory=dict)
    removed: list[EndpointId] = field(default_factory=list)

    async def counts(self, endpoint_id: EndpointId) -> JobCounts:
        return self.by_endpoint.get(endpoint_id, JobCounts())

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        self.removed.append(endpoint_id)


@dataclass(frozen=True)
class Limits:
    bundle_bytes_max: int = 4096


class ControlPlane:
    """`client` has a key, `stranger` has none."""

    def __init__(self) -> None:
        self.clock, self.ids, self.blobs = SetClock(), CountingIds(), MemoryBlobs()
        self.fleet, self.jobs = SetFleet(), SetJobs()
        self.disk = SetDisk()
        self.room = Room(self.disk, self.clock, reserve_bytes=1 << 20)
        control = MemoryControl()
        self.access = Access(control, self.clock, self.ids)
        self.lacking: str | None = None
        """Why there is no Engine."""
        self.endpoints = Endpoints(
            control,
            self.blobs,
            self.clock,
            self.ids,
            LocalSignals(),
            check_registry=self.check_registry,
        )
        self.logs = Logs(self.clock)
        self.outbox, self.sender = MemoryOutbox(job_body), RecordingSender()
        keeping = Keeping(keep=timedelta(days=7), finished_max=100, waiting_max=100, bytes_max=1 << 20)
        self.webhooks = Webhooks(
            self.outbox,
            self.sender,
            self.clock,
            self.ids,
            schedule=SCHEDULES["runpod"],
            keeping=keeping,
            chance=lambda: 0.5,
        )
        self.secret_store, self.vault = MemorySecrets(), MemoryVault()
        self.workers_alive: list[Worker] = []
        self.registry_users: list[str] = []
        """Endpoints that use every registry credential."""
        self.secrets = Secrets(self.secret_store, self.vault, self.endpoints, lambda: self.workers_alive, self.clock)
        self.registries = Registries(
            self.secret_store, self.vault, self.clock, self.ids, used_by=lambda registry_id: self.registry_users
        )
        self.bundle = self.blobs.keep(b"a bundle")
        self.secret = ""
        self.job_store, roster, signals = MemoryJobs(), Roster(), LocalSignals()
        inputs = inputs_in(MemoryPayloads(), self.job_store, signals, self.clock)
        dispatch = Dispatch(self.job_store, roster, inputs, signals, self.clock)
        jobs = Jobs(self.job_store, dispatch, inputs, signals, self.clock, self.ids)
        self.app: ASGIApp = build_app(
            Services(
                access=self.access,
                endpoints=self.endpoints,
                fleet=self.fleet,
                jobs=self.jobs,
                dead_letters=DeadLetters(self.job_store, jobs, self.clock),
                logs=self.logs,
                webhooks=self.webhooks,
                secrets=self.secrets,
                registries=self.registries,
                blobs=self.blobs,
                room=self.room,
                clock=self.clock,
                settings=Limits(),
                lacking_engine=self.lacking_engine,
            )
        )

    async def check_registry(self, id: str) -> None:
        await self.registries.check(id)

    async def lacking_engine(self) -> str | None:
        return self.lacking

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ControlPlane"]:
        _, self.secret = await self.access.create("test")
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {self.secret}"}
        async with (
            httpx2.AsyncClient(transport=transport, base_url=BASE, headers=headers) as self.client,
            httpx2.AsyncClient(transport=transport, base_url=BASE) as self.stranger,
        ):
            yield self

    def body(self, **changes: Any) -> dict[str, Any]:
        """A create body that is accepted."""
        return {
            "name": "hello",
            "type": "QUEUE",
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "runyard": {"bundle": self.bundle},
        } | changes

    async def create(self, **changes: Any) -> dict[str, Any]:
        reply = await self.client.post("/v2/serverless", json=self.body(**changes))
        assert reply.status_code == 201, reply.text
        return reply.json()

    async def update(self, id: str, **changes: Any) -> dict[str, Any]:
        reply = await self.client.patch(f"/v2/serverless/{id}", json=changes)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def worker(self, endpoint: Endpoint, id: str, **changes: Any) -> Worker:
        """A worker that has run for a minute and is ready."""
        values = {
            "phase": WorkerPhase.READY,
            "spawned_at": self.clock.at - 60,
            "ready_at": self.clock.at - 50,
            "release": endpoint.release,
        }
        return Worker(
            id=WorkerId(id),
            endpoint_id=endpoint.id,
            secret_digest=b"",
            created_at=self.clock.at - 61,
            **values | changes,
        )

    def crashed(self, endpoint: Endpoint, id: str) -> Worker:
        return replace(
            self.worker(endpoint, id), phase=WorkerPhase.STOPPED, stopped_at=self.clock.at - 5, exit=Exit(None, 9)
        )

    def scope(self, method: str, path: str, **headers: str) -> dict[str, Any]:
        """An ASGI request with a key, as a server would pass it on."""
        path, _, query = path.partition("?")
        headers = {"authorization": self.secret} | {name.replace("_", "-"): value for name, value in headers.items()}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 1),
        }

    @asynccontextmanager
    async def stream(self, path: str, **headers: str) -> AsyncIterator["Stream"]:
        """An open GET whose client leaves at the end of the block."""
        stream = Stream()
        scope = self.scope("GET", path, **headers)
        serving = asyncio.create_task(self.app(scope, stream.receive, stream.send))
        serving.add_done_callback(lambda _: stream.parts.put_nowait(None))
        try:
            await stream.started.wait()
            yield stream
        finally:
            stream.left.set()
            await serving


class Stream:
    """What has come of a response so far."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.started = asyncio.Event()
        self.left = asyncio.Event()
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.started.set()
        elif message.get("body"):
            self.parts.put_nowait(message["body"])

    async def next(self) -> str | None:
        """The next part of the body; None when the response is over."""
        part = await self.parts.get()
        return None if part is None else part.decode()

    async def rest(self) -> str:
        """All to the end of the response."""
        parts = []
        while (part := await self.next()) is not None:
            parts.append(part)
        return "".join(parts)
