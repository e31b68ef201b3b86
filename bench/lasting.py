"""What it costs that no acknowledged job is lost: the embedded store against the memory store and FastAPI, and at depth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench import load
from bench.bars import Bar
from bench.polls import Exchange
from bench.quiet import quiet_round
from bench.servers import HERE, LOAD_CORE, Platform, fastapi, platform, platform_in, resident_mib
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.domain.job import EndpointId, Job, JobId

ROW_BYTES = 300
COMMITS = 300
TAKES = 1000
SHALLOW, DEEP, RESIDENT, STARTED = 1_000, 1_000_000, 300_000, 100_000
RESTARTS, RESTART_RATE = 3, 300

Samples = dict[str, list[load.Sample]]


def round_trips(raw: dict[str, object], rounds: int) -> list[Bar]:
    """Rounds of both stores, both durabilities and FastAPI take turns; one-row commits are timed beside them."""
    samples: Samples = {}
    commits: list[float] = []
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(fastapi())
        yards = {
            "memory": stack.enter_context(platform()),
            "power": stack.enter_context(platform("embedded")),
            "process": stack.enter_context(platform("embedded", RUNYARD_DURABILITY="process")),
        }
        urls = {name: _noop(yard) for name, yard in yards.items()}
        sinks = {name: _sink(yards[name]) for name in ("memory", "power")}
        for _ in range(rounds):
            commits.append(commit_us())
            _sample(samples, "fastapi c64", peer, "", 64)
            for name, yard in yards.items():
                for connections in (1, 64):
                    _sample(samples, f"{name} c{connections}", urls[name], yard.key, connections)
            for name, sink in sinks.items():
                _sample(samples, f"{name} submits", f"{yards[name].url}/v2/{sink}/run", yards[name].key, 64)
                yards[name].call("POST", f"/v2/{sink}/purge-queue")
    raw["lasting"] = {name: [sample.record() for sample in taken] for name, taken in samples.items()}
    raw["commit_us"] = commits
    return _bars(samples, median(commits))


def _bars(samples: Samples, commit: float) -> list[Bar]:
    p50 = {name: median(sample.p50_us for sample in taken) for name, taken in samples.items()}
    rate = {name: median(sample.per_second for sample in taken) for name, taken in samples.items()}
    failed = sum(sample.failed for taken in samples.values() for sample in taken)

    def ratio(name: str, this: str, that: str, limit: float, of: dict[str, float], *, at_most: bool = False) -> Bar:
        unit = "us" if of is p50 else "/s"
        detail = f"{of[this]:.0f} {unit} / {of[that]:.0f} {unit}"
        return Bar(name, of[this] / of[that], limit, "x", at_most, detail)

    return [
        ratio("power: submits/s at 64 connections / memory store", "power submits", "memory submits", 0.5, rate),
        Bar(
            "power: runsync p50 at 1 connection beyond the memory store's",
            (p50["power c1"] - p50["memory c1"]) / commit,
            1.5,
            "commits",
            detail=f"{p50['power c1']:.0f} us - {p50['memory c1']:.0f} us; a one-row commit takes {commit:.0f} us",
        ),
        ratio("power: runsync/s at 64 connections / FastAPI called directly", "power c64", "fastapi c64", 1.5, rate),
        ratio("process: runsync p50 at 1 connection / memory store", "process c1", "memory c1", 1.3, p50, at_most=True),
        ratio("process: runsync/s at 64 connections / memory store", "process c64", "memory c64", 0.8, rate),
        Bar("lasting: answers that were not 2xx", failed, 0, ""),
    ]


def at_depth(raw: dict[str, object], rounds: int) -> list[Bar]:
    """Start-up, takes, answers and memory with many jobs there."""
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runyard-bench-"))) for _ in range(3)]
        started = _started(folders[0], STARTED)
        shallow, _ = _takes(folders[1], SHALLOW)
        deep, resident = _takes(folders[2], DEEP)
    few, many = _answers(rounds)
    raw["at_depth"] = {
        "start_s": started,
        "take_p99_us": {"shallow": shallow, "deep": deep},
        "bytes_per_queued_job": resident,
        "runsync_p99_us": {"none": few, "resident": many},
    }
    return [
        Bar(f"start with {STARTED:,} stored jobs", started, 5, "s"),
        Bar(
            f"take p99 at {DEEP:,} queued jobs / at {SHALLOW:,}",
            deep / shallow,
            2,
            "x",
            detail=f"{deep:.0f} us / {shallow:.0f} us",
        ),
        Bar(
            f"runsync p99 at 64 connections, {RESIDENT:,} resident jobs / none",
            many / few,
            2.5,
            "x",
            detail=f"{many:.0f} us / {few:.0f} us",
        ),
        Bar("resident memory of a queued small job", resident, 1024, "bytes"),
    ]


def restarts(raw: dict[str, object]) -> list[Bar]:
    """Planned restarts under load, each request on a connection of its own."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as data, platform_in(Path(data), "embedded") as yard:
        url = _noop(yard)
        answered, failed = asyncio.run(_restarts(Path(data), url, yard.key))
    raw["restarts"] = {"answered": answered, "failed": failed, "restarts": RESTARTS}
    detail = f"{answered} answered over {RESTARTS} restarts"
    return [Bar(f"planned restart at {RESTART_RATE} requests/s: failed", failed, 0, "", detail=detail)]


def commit_us() -> float:
    """Microseconds that a commit of one row with `synchronous = full` takes, p50."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        database = sqlite3.connect(Path(folder) / "one.db", isolation_level=None)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute("create table rows (number integer primary key, data blob)")
        taken: list[float] = []
        for _ in range(COMMITS):
            data = os.urandom(ROW_BYTES)
            start = time.perf_counter()
            database.execute("insert into rows (data) values (?)", (data,))
            taken.append(time.perf_counter() - start)
        database.close()
    return median(taken) * 1e6


def _noop(yard: Platform) -> str:
    endpoint = yard.deploy("raw", HERE / "raw_worker" / "handler.py", {"BENCH_CORE": str(LOAD_CORE)}, workers=2)
    yard.wait_until_ready(endpoint)
    return f"{yard.url}/v2/{endpoint}/runsync"


def _sink(yard: Platform, name: str = "sink") -> str:
    """An endpoint whose jobs only wait."""
    return yard.deploy(name, HERE / "raw_worker" / "handler.py", {}, workers=0)


def _sample(samples: Samples, name: str, url: str, key: str, connections: int) -> None:
    samples.setdefault(name, []).append(quiet_round(url, key, connections))


# At depth


@contextlib.contextmanager
def _with_jobs(data: Path, count: int, *, lent: bool) -> Iterator[tuple[Platform, str, float]]:
    """A platform that starts with so many waiting jobs on one endpoint; how long that took, in seconds."""
    with platform_in(data, "embedded") as yard:
        endpoint = yard.borrow_worker("lent")["RUNPOD_ENDPOINT_ID"] if lent else _sink(yard)
    asyncio.run(_fill(data, EndpointId(endpoint), count))
    start = time.perf_counter()
    with platform_in(data, "embedded") as yard:
        yield yard, endpoint, time.perf_counter() - start


async def _fill(data: Path, endpoint: EndpointId, count: int) -> None:
    now = time.time()
    store = EmbeddedJobs(data / "control.db", synced=False)
    for number in range(count):
        job = Job(
            id=JobId(f"{number:08x}-0000-4000-8000-000000000000-u1"),
            endpoint_id=endpoint,
            input=b'{"n":1}',
            created_at=now,
            queued_at=now,
            execution_timeout_s=600.0,
            expires_at=now + 86_400.0,
        )
        change = await store.add_soon(job)
        if number % 1000 == 0:
            await store.kept(change)
    await store.close()


def _started(data: Path, count: int) -> float:
    with _with_jobs(data, count, lent=False) as (_, _, seconds):
        return seconds


def _takes(data: Path, count: int) -> tuple[float, float]:
    """p99 of a take in microseconds, and bytes of memory of each job."""
    with _with_jobs(data, 0, lent=False) as (yard, _, _):
        empty = resident_mib(yard.pid)
    with _with_jobs(data, count, lent=True) as (yard, endpoint, _):
        each = (resident_mib(yard.pid) - empty) * (1 << 20) / count
        waits = asyncio.run(_take_all(yard.borrow_again(endpoint), min(TAKES, count)))
    return sorted(waits)[int(len(waits) * 0.99)] * 1e6, each


async def _take_all(env: dict[str, str], count: int) -> list[float]:
    url = urlsplit(env["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", env["RUNPOD_POD_ID"]))
    take = (
        f"GET {url.path}?{url.query}&job_in_progress=1 HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Authorization: {env['RUNPOD_AI_API_KEY']}\r\n\r\n"
    ).encode()
    transport, worker = await asyncio.get_running_loop().create_connection(Exchange, url.hostname, url.port)
    waits: list[float] = []
    for _ in range(count - 1):
        start = time.perf_counter()
        await worker.ask(take)
        waits.append(time.perf_counter() - start)
    transport.close()
    return waits


def _answers(rounds: int) -> tuple[float, float]:
    """p99 of a runsync in microseconds, on a platform without resident jobs and on one with."""
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runyard-bench-"))) for _ in range(2)]
        yards = {
            name: stack.enter_context(_with_jobs(folder, count, lent=False))[0]
            for name, folder, count in (("none", folders[0], 0), ("resident", folders[1], RESIDENT))
        }
        urls = {name: _noop(yard) for name, yard in yards.items()}
        for _ in range(rounds):
            for name, yard in yards.items():
                _sample(samples, name, urls[name], yard.key, 64)
    few, many = (median(sample.p99_us for sample in samples[name]) for name in yards)
    return few, many


# Restarts


async def _restarts(data: Path, url: str, key: str) -> tuple[int, int]:
    parts = urlsplit(url)
    request = load.post(url, key, b'{"input":{"n":1}}').replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    results: list[bool] = []

    async def ask() -> None:
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 60)
            writer.close()
            results.append(answer.startswith(b"HTTP/1.1 200") and b'"COMPLETED"' in answer)
        except (OSError, TimeoutError):
            results.append(False)

    async def loaded(until: asyncio.Event) -> None:
        asking: set[asyncio.Task[None]] = set()
        next_at = time.perf_counter()
        while not until.is_set():
            next_at += 1 / RESTART_RATE
            await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
            task = asyncio.create_task(ask())
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)

    over = asyncio.Event()
    load_task = asyncio.create_task(loaded(over))
    for _ in range(RESTARTS):
        await asyncio.sleep(2)
        command = [sys.executable, "-m", "runyard", "restart", "--data-dir", str(data)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError("the restart has failed")
    await asyncio.sleep(2)
    over.set()
    await load_task
    return sum(results), len(results) - sum(results)
