"""Polls: how fast a parked worker gets a job, and what waiting costs."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from urllib.parse import urlsplit

from bench import load
from bench.bars import Bar
from bench.servers import HERE, Platform, cpu_seconds, resident_mib

PICK_UPS = 300
PARKED = 1000
PARKED_SECONDS = 30
IDLE_SECONDS = 65


class Exchange(asyncio.Protocol):
    """One connection for one request at a time."""

    def __init__(self) -> None:
        self.buffer = b""
        self.answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.answer is not None and not self.answer.done() and load.whole(self.buffer):
            self.answer.set_result(self.buffer)
            self.buffer = b""


def pick_up(runyard: Platform, raw: dict[str, object]) -> list[Bar]:
    """From sending a submit to reading the answer of a parked take, both seen from here."""
    env = runyard.borrow_worker("lent")
    waits = asyncio.run(_pick_ups(runyard, env))
    raw["pick_up_us"] = [wait * 1e6 for wait in waits]
    return [Bar("submit sent to parked take answered, p50", median(waits) * 1e3, 1.0, "ms")]


async def _pick_ups(runyard: Platform, env: dict[str, str]) -> list[float]:
    take_url = urlsplit(env["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", env["RUNPOD_POD_ID"]))
    take = _get(f"{take_url.path}?{take_url.query}&job_in_progress=1", take_url.netloc, env["RUNPOD_AI_API_KEY"])
    submit = load.post(f"{runyard.url}/v2/{env['RUNPOD_ENDPOINT_ID']}/run", runyard.key, b'{"input":{}}')
    user = urlsplit(runyard.url)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Exchange, user.hostname, user.port)
    _, worker = await loop.create_connection(Exchange, take_url.hostname, take_url.port)
    waits: list[float] = []
    for _ in range(PICK_UPS):
        taken = worker.ask(take)
        await asyncio.sleep(0.005)
        start = time.perf_counter()
        accepted = client.ask(submit)
        await taken
        waits.append(time.perf_counter() - start)
        await accepted
    return waits


def parked_polls(runyard: Platform, raw: dict[str, object]) -> list[Bar]:
    """What a thousand parked polls cost."""
    env = runyard.borrow_worker("crowd")
    before = resident_mib(runyard.pid)
    share, resident = asyncio.run(_park(runyard, env))
    raw["parked"] = {"cpu_share": share, "resident_mib_before": before, "resident_mib": resident}
    return [
        Bar(f"{PARKED} parked polls: share of a core", share * 100, 5, "%"),
        Bar(f"{PARKED} parked polls: memory", resident - before, 64, "MiB"),
    ]


async def _park(runyard: Platform, env: dict[str, str]) -> tuple[float, float]:
    take_url = urlsplit(env["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", env["RUNPOD_POD_ID"]))
    take = _get(f"{take_url.path}?{take_url.query}&job_in_progress=1", take_url.netloc, env["RUNPOD_AI_API_KEY"])
    loop = asyncio.get_running_loop()

    async def poll() -> None:
        transport, worker = await loop.create_connection(Exchange, take_url.hostname, take_url.port)
        try:
            while True:
                await worker.ask(take)
        finally:
            transport.close()

    polls = [asyncio.create_task(poll()) for _ in range(PARKED)]
    await asyncio.sleep(3)
    start, used = time.monotonic(), cpu_seconds(runyard.pid)
    await asyncio.sleep(PARKED_SECONDS)
    share = (cpu_seconds(runyard.pid) - used) / (time.monotonic() - start)
    resident = resident_mib(runyard.pid)
    for task in polls:
        task.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    return share, resident


def idle_sdk_polls(runyard: Platform, raw: dict[str, object]) -> list[Bar]:
    """How often an idle worker of the official SDK asks, as a platform that has no other worker counts it."""
    endpoint = runyard.deploy("idle", HERE / "idle_worker" / "handler.py", {})
    runyard.wait_until_ready(endpoint)
    before = _counts(runyard)
    time.sleep(IDLE_SECONDS)
    after = _counts(runyard)
    minutes = IDLE_SECONDS / 60
    rates = {name: (after.get(name, 0) - before.get(name, 0)) / minutes for name in ("job-take", "job-stop")}
    raw["idle_polls_per_minute"] = rates
    return [Bar(f"idle official SDK worker: {name} a minute", rate, 4, "") for name, rate in rates.items()]


def _counts(runyard: Platform) -> dict[str, float]:
    counts: dict[str, float] = {}
    for line in runyard.call("GET", "/metrics").text.splitlines():
        if line.startswith("runyard_requests_total{"):
            labels, value = line.rsplit(" ", 1)
            operation = labels.split('operation="', 1)[1].split('"', 1)[0]
            counts[operation] = counts.get(operation, 0) + float(value)
    return counts


def _get(path: str, host: str, secret: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {secret}\r\n\r\n".encode()
