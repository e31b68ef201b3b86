"""A job's webhook, from the request that names it to the receiver: the whole platform in process, a worker by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import standardwebhooks

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.stores.fleet import MemoryFleet
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.adapters.stores.secrets import MemorySecrets
from runyard.adapters.system import RandomIds, SystemClock
from runyard.adapters.vault import MemoryVault
from runyard.adapters.webhooks import HttpxWebhooks
from runyard.config import Settings
from runyard.domain.payload import Spilled
from runyard.edge.bodies import webhook_body
from runyard.edge.listener import listening
from runyard.platform import Adapters, Platform
from runyard.services.spill import Carried
from tests.builders import ENDPOINT, SECRET, WORKER, a_worker, an_endpoint
from tests.control_doubles import MemoryBlobs, SetDisk
from tests.edge_kit import bind
from tests.payload_kit import MemoryPayloads
from tests.webhook_kit import Receiver

RECEIVED_S_MAX = 10


class ShiftedClock(SystemClock):
    """The real clock, which a test can put forward."""

    shift = 0.0

    def now(self) -> float:
        return super().now() + self.shift


class Yard:
    """`client` speaks to the user port, `worker` to the worker port."""

    def __init__(self) -> None:
        self.clock = ShiftedClock()
        self.receiver = Receiver()
        self._stack = AsyncExitStack()

    async def open(self, data_dir: Path) -> None:
        user_port, worker_port = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        self.user_url, worker_url = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (user_port, worker_port))
        control = MemoryControl()
        await control.add_endpoint(an_endpoint())
        self.payloads, self.carried = MemoryPayloads(), Carried(1 << 20)
        outbox = MemoryOutbox(partial(webhook_body, carried=self.carried.get))
        adapters = Adapters(
            store=MemoryJobs(outbox=outbox),
            outbox=outbox,
            control=control,
            fleet=MemoryFleet(),
            secrets=MemorySecrets(),
            vault=MemoryVault(),
            blobs=MemoryBlobs(),
            payloads=self.payloads,
            carried=self.carried,
            signals=LocalSignals(),
            clock=self.clock,
            ids=RandomIds(),
            runtime=lambda observer, credentials: FakeRuntime(observer),
            webhooks=HttpxWebhooks(own_ports=[s.getsockname()[1] for s in (user_port, worker_port)]),
            disk=SetDisk(),
        )
        self.platform = Platform(adapters, Settings(data_dir=data_dir), worker_url)
        _, key = await self.platform.access.create("test")
        enter = self._stack.enter_async_context
        await enter(self.receiver.open())
        await enter(listening(worker_port, self.platform.worker_routes.paths, None))
        await enter(self.platform.running())
        await enter(listening(user_port, self.platform.job_routes.paths, self.platform.app))
        self.platform.roster.add(a_worker())
        self.client = await enter(_client(f"{self.user_url}/v2/{ENDPOINT}", key))
        self.worker = await enter(_client(f"{worker_url}/v2/{ENDPOINT}", SECRET))

    async def close(self) -> None:
        await self._stack.aclose()

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.receiver.port}/hook?of=mine"

    async def run(self, **fields: Any) -> str:
        reply = await self.client.post("/run", json={"input": {"n": 1}, "webhook": self.webhook} | fields)
        assert 200 == reply.status_code, reply.text
        return reply.json()["id"]

    async def take(self) -> dict[str, Any]:
        return (await self.worker.get(f"/job-take/{WORKER}")).json()

    async def report(self, job_id: str, result: dict[str, Any]) -> None:
        await self.worker.post(f"/job-done/{WORKER}/{job_id}", json=result)

    async def status(self, job_id: str) -> dict[str, Any]:
        return (await self.client.get(f"/status/{job_id}")).json()


def _client(url: str, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers={"Authorization": key}, trust_env=False, timeout=RECEIVED_S_MAX)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open(tmp_path)
    yield yard
    await yard.close()


async def completed(yard: Yard, job_id: str) -> None:
    await yard.take()
    await yard.report(job_id, {"output": {"answer": 42}})


async def failed(yard: Yard, job_id: str) -> None:
    await yard.take()
    await yard.report(job_id, {"error": "boom"})


async def cancelled(yard: Yard, job_id: str) -> None:
    await yard.client.post(f"/cancel/{job_id}")


async def purged(yard: Yard, job_id: str) -> None:
    await yard.client.post("/purge-queue")


async def timed_out(yard: Yard, job_id: str) -> None:
    await yard.take()
    yard.clock.shift += 6


@pytest.mark.row("F020")
@pytest.mark.row("F045")
@pytest.mark.parametrize(
    ("end", "state", "told"),
    [
        (completed, "COMPLETED", {"output": {"answer": 42}}),
        (failed, "FAILED", {"error": "boom"}),
        (cancelled, "CANCELLED", {}),
        (purged, "CANCELLED", {}),
        (timed_out, "TIMED_OUT", {}),
    ],
)
async def test_the_webhook_of_a_job_gets_its_status_when_it_has_ended(
    yard: Yard, end: Callable[[Yard, str], Awaitable[None]], state: str, told: dict[str, Any]
) -> None:
    job_id = await yard.run(policy={"executionTimeout": 5000})
    assert yard.receiver.requests.empty()
    await end(yard, job_id)
    async with asyncio.timeout(RECEIVED_S_MAX):
        received = await yard.receiver.requests.get()
    body = json.loads(received.body)

    assert "POST /hook?of=mine HTTP/1.1" == received.request_line
    assert "application/json" == received.header("Content-Type")
    assert {"id": job_id, "status": state} | told == {name: body[name] for name in ("id", "status", *told)}
    assert await yard.status(job_id) == body
    secret = (await yard.platform.webhooks.secrets(ENDPOINT))[0].value
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: received.header(name) or "" for name in names}
    assert body == standardwebhooks.Webhook(secret).verify(received.body, headers)


@pytest.mark.row("F045")
async def test_a_large_output_goes_with_it_up_to_a_limit_and_is_pointed_to_beyond(yard: Yard) -> None:
    for output in ("x" * 800_000, "x" * 1_200_000):
        job_id = await yard.run()
        await yard.take()
        await yard.report(job_id, {"output": output})
        async with asyncio.timeout(RECEIVED_S_MAX):
            body = json.loads((await yard.receiver.requests.get()).body)
        status = await yard.status(job_id)
        assert output == status.pop("output")
        if len(output) < 1 << 20:
            assert output == body.pop("output")
        else:
            whole = await yard.client.get(body.pop("outputPath").removeprefix(f"/v2/{ENDPOINT}"))
            assert output == whole.json()["output"]
        assert status == body


async def test_a_large_output_is_fetched_for_the_webhook_before_the_end_and_nobody_else_waits(yard: Yard) -> None:
    yard.payloads.opens.clear()
    job_id = await yard.run()
    await yard.take()
    reporting = asyncio.create_task(yard.report(job_id, {"output": "x" * 800_000}))
    async with asyncio.timeout(RECEIVED_S_MAX):
        while not yard.payloads.held:
            assert "IN_PROGRESS" == (await yard.status(job_id))["status"]
    assert "IN_PROGRESS" == (await yard.status(job_id))["status"], "its end waits for what it owes"
    yard.payloads.opens.set()
    async with asyncio.timeout(RECEIVED_S_MAX):
        received = await yard.receiver.requests.get()
    await reporting

    assert "x" * 800_000 == json.loads(received.body)["output"]
    [(kept, data)] = yard.payloads.held.values()
    assert yard.carried.get(Spilled(kept.ref, len(data))) is None, "it is in memory no longer than that takes"


async def test_a_large_output_that_cannot_be_fetched_just_now_is_pointed_to(yard: Yard) -> None:
    job_id = await yard.run()
    await yard.take()
    yard.payloads.opens.clear()
    reporting = asyncio.create_task(yard.report(job_id, {"output": "x" * 800_000}))
    async with asyncio.timeout(RECEIVED_S_MAX):
        while not yard.payloads.held:
            await yard.status(job_id)
    yard.payloads.away = True
    yard.payloads.opens.set()
    await reporting
    async with asyncio.timeout(RECEIVED_S_MAX):
        body = json.loads((await yard.receiver.requests.get()).body)

    assert ("COMPLETED", f"/v2/{ENDPOINT}/requests/{job_id}") == (body["status"], body["outputPath"])
    assert "output" not in body


@pytest.mark.row("F020")
async def test_a_job_of_runsync_has_one_too(yard: Yard) -> None:
    waiting = asyncio.create_task(yard.client.post("/runsync", json={"input": 1, "webhook": yard.webhook}))
    taken = await yard.take()
    await yard.report(taken["id"], {"output": 2})
    async with asyncio.timeout(RECEIVED_S_MAX):
        received = await yard.receiver.requests.get()

    assert (await waiting).json() == json.loads(received.body)


async def test_the_platform_calls_itself_for_nobody(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    job_id = await yard.run(webhook=f"{yard.user_url}/v2/{ENDPOINT}/purge-queue")
    await cancelled(yard, job_id)
    await yard.platform.webhooks.settle()
    shown = (await yard.client.get(f"{yard.user_url}/v2/serverless/{ENDPOINT}/webhooks")).json()["webhooks"]

    assert "must not be called: 127.0.0.1 is the platform itself" in caplog.text
    assert [(job_id, "FAILED", 1)] == [(hook["jobId"], hook["state"], len(hook["tries"])) for hook in shown]


async def test_receivers_of_every_bad_kind_delay_nobody(yard: Yard) -> None:
    """Hangs, answers 500, closes early, never ends its body, sends on to the metadata service; and then a good one."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    bad = {
        "hangs": Receiver(None),
        "fails": Receiver(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"),
        "closes": Receiver(b""),
        "moved": Receiver(moved),
        "endless": Receiver(b"HTTP/1.1 500 Oh\r\n\r\n", endless=True),
    }
    async with AsyncExitStack() as stack:
        for receiver in bad.values():
            await stack.enter_async_context(receiver.open())
        for receiver in bad.values():
            for _ in range(9):
                await cancelled(yard, await yard.run(webhook=f"http://127.0.0.1:{receiver.port}/"))
        job_id = await yard.run()
        await cancelled(yard, job_id)
        async with asyncio.timeout(5):  # A try has ten seconds.
            received = await yard.receiver.requests.get()
        shown = (await yard.client.get(f"{yard.user_url}/v2/serverless/{ENDPOINT}/webhooks")).json()["webhooks"]

        assert job_id == json.loads(received.body)["id"]
        said = {
            hook["tries"][0].get("status", "none") for hook in shown if hook["tries"] and hook["state"] == "PENDING"
        }
        assert {500, 302, "none"} == said


async def test_a_stop_tells_those_that_end_with_it(yard: Yard) -> None:
    job_id = await yard.run()
    await completed(yard, job_id)
    await yard.platform.drain()

    assert job_id == json.loads((yard.receiver.requests.get_nowait()).body)["id"]
