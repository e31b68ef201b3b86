"""What containers cost: a cold start beside `docker run`, a round trip beside a process's, and a thaw.

Needs a Docker Engine of its own, and so root and what `make e2e-docker` installs; without, it says that it was not measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import load
from bench.bars import Bar
from bench.quiet import quiet_round
from bench.servers import HERE, LOAD_CORE, Platform, platform
from runyard.adapters.docker.engine import Engine as Client
from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import AnotherEngine, Engine, running, unavailable
from tests.docker_kit.images import DOCKERFILE, Images
from tests.docker_kit.workers import SUBNETS

THAWS = 20
IDLE_S = 1
END_S_MAX = 60
SETTLE_S = 0.1
"""In which an answer reaches a frozen worker's socket."""
REST_S = 1.5
"""In which the official SDK, which sleeps for a second once it has a job, asks for the next one."""

SDK_HANDLER = """
import time
import runpod

runpod.serverless.start({"handler": lambda job: {"at": time.time()}})
"""
SDK, BARE, TIMED = "official SDK", "bare protocol", "timed"
"""The images."""
IMPORTS = {SDK: "import runpod", BARE: "import os, socket; from urllib.parse import urlsplit"}
"""What an image's handler imports."""


@dataclass(frozen=True, slots=True)
class Yard:
    """A platform at an Engine, with images by their names."""

    runyard: Platform
    engine: Engine
    docker: EngineClient
    images: dict[str, str]

    def deploy(self, name: str, image: str, *, workers_min: int, env: dict[str, str] | None = None) -> str:
        """Deploy an image; returns the endpoint id."""
        body = {
            "name": name,
            "type": "QUEUE",
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "workers": {"min": workers_min, "max": 1, "idleTimeout": IDLE_S},
            "env": env or {},
            "image": image,
        }
        return self.runyard.call("POST", "/v2/serverless", json=body).json()["id"]

    def ask(self, endpoint: str) -> dict[str, Any]:
        reply = self.runyard.call("POST", f"/v2/{endpoint}/runsync?wait=120000", json={"input": {"n": 1}}).json()
        assert reply["status"] == "COMPLETED", reply
        return reply

    def containers(self) -> list[dict[str, Any]]:
        return self.docker.containers(label=["runyard.worker"])

    def wait_for_none(self) -> None:
        until = time.monotonic() + END_S_MAX
        while self.containers():
            assert time.monotonic() < until, "containers did not end when they were idle"
            time.sleep(SETTLE_S)


def measure(raw: dict[str, object], rounds: int) -> list[Bar]:
    """All of it; nothing where there can be no Engine."""
    if reason := unavailable():
        print(f"containers: not measured: {reason}")
        return []
    try:
        with _yard() as yard:
            return [*cold_starts(yard, raw, rounds), *round_trips(yard, raw, rounds), *thaws(yard, raw)]
    except AnotherEngine as reason:
        print(f"containers: not measured: {reason}")
        return []


def cold_starts(yard: Yard, raw: dict[str, object], rounds: int) -> list[Bar]:
    """From a submit at zero workers to the job's take, in turns with `docker run` until the same imports are done."""
    samples: dict[str, dict[str, list[float]]] = {}
    for kind, imports in IMPORTS.items():
        image = yard.images[kind]
        endpoint = yard.deploy(kind.replace(" ", "-"), image, workers_min=0)
        yard.ask(endpoint)  # The release's first start looks for its image and makes its network.
        taken = samples.setdefault(kind, {"docker run": [], "runyard": []})
        for _ in range(2 * rounds):
            yard.wait_for_none()
            taken["docker run"].append(_docker_run_s(yard.engine, image, imports))
            taken["runyard"].append(yard.ask(endpoint)["delayTime"] / 1000)
        yard.runyard.call("DELETE", f"/v2/serverless/{endpoint}")
    raw["container_cold_start_s"] = samples
    return [_cold_bar(kind, median(taken["runyard"]), median(taken["docker run"])) for kind, taken in samples.items()]


def _cold_bar(kind: str, ours: float, theirs: float) -> Bar:
    detail = f"{ours * 1e3:.0f} ms / {theirs * 1e3:.0f} ms"
    return Bar(f"container, {kind}: cold start to first take / docker run", ours / theirs, 1.3, "x", detail=detail)


def _docker_run_s(engine: Engine, image: str, imports: str) -> float:
    script = f"{imports}; print('there', flush=True)"
    command = ["docker", "--host", engine.url, "run", "--rm", image, "python", "-u", "-c", script]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        return time.perf_counter() - start


def round_trips(yard: Yard, raw: dict[str, object], rounds: int) -> list[Bar]:
    """`runsync` of a no-op job through a bare-protocol worker in a container and one that is a process, in turns."""
    env = {"BENCH_CORE": str(LOAD_CORE)}
    contained = yard.deploy("contained", yard.images[BARE], workers_min=1, env=env)
    process = yard.runyard.deploy("process", HERE / "raw_worker" / "handler.py", env)
    for endpoint in (contained, process):
        yard.runyard.wait_until_ready(endpoint)
    also = [yard.docker.call("GET", f"/containers/{each['Id']}/json")["State"]["Pid"] for each in yard.containers()]
    samples: dict[str, list[load.Sample]] = {"container": [], "process": []}
    for _ in range(2 * rounds):
        for name, endpoint in (("container", contained), ("process", process)):
            url = f"{yard.runyard.url}/v2/{endpoint}/runsync"
            samples[name].append(quiet_round(url, yard.runyard.key, 1, also=also))
    for endpoint in (contained, process):
        yard.runyard.call("DELETE", f"/v2/serverless/{endpoint}")
    raw["container_round_trips"] = {name: [sample.record() for sample in taken] for name, taken in samples.items()}
    inside, outside = (median(sample.p50_us for sample in samples[name]) for name in ("container", "process"))
    detail = f"{inside:.0f} us / {outside:.0f} us"
    failed = sum(sample.failed for taken in samples.values() for sample in taken)
    return [
        Bar("container: runsync p50 at 1 connection / process", inside / outside, 1.15, "x", detail=detail),
        Bar("container: answers that were not 2xx", failed, 0, ""),
    ]


def thaws(yard: Yard, raw: dict[str, object]) -> list[Bar]:
    """From asking the Engine to unpause a worker, which has a job, to the start of its handler."""
    waits = {image: asyncio.run(_thaws(yard, image, rest_s)) for image, rest_s in ((TIMED, SETTLE_S), (SDK, REST_S))}
    raw["thaw_s"] = waits
    ours, theirs = (median(waits[image]) * 1e3 for image in (TIMED, SDK))
    detail = f"official SDK: {theirs:.0f} ms, of which 100 are the pause between its looks for jobs it has taken"
    return [Bar("container: unpause to handler start, p50", ours, 40, "ms", detail=detail)]


async def _thaws(yard: Yard, image: str, rest_s: float) -> list[float]:
    endpoint = yard.deploy("frozen", yard.images[image], workers_min=1)
    yard.ask(endpoint)
    (worker,) = yard.containers()
    engine = Client(yard.engine.url)
    waits: list[float] = []
    for _ in range(THAWS):
        await asyncio.sleep(rest_s)
        await engine.call("POST", f"/containers/{worker['Id']}/pause")
        asked = asyncio.create_task(asyncio.to_thread(yard.ask, endpoint))
        await asyncio.sleep(SETTLE_S)
        start = time.time()
        await engine.call("POST", f"/containers/{worker['Id']}/unpause")
        waits.append((await asked)["output"]["at"] - start)
    await engine.close()
    yard.runyard.call("DELETE", f"/v2/serverless/{endpoint}")
    yard.wait_for_none()
    return waits


@contextlib.contextmanager
def _yard() -> Iterator[Yard]:
    with running() as engine, engine.client() as docker:
        images = Images(docker)
        made = {
            SDK: images.worker(SDK_HANDLER),
            BARE: _made_of(images, "raw_worker"),
            TIMED: _made_of(images, "timed_worker"),
        }
        settings = {"RUNYARD_DOCKER_HOST": engine.url, "RUNYARD_DOCKER_SUBNETS": str(SUBNETS)}
        with platform(**settings) as runyard:
            yield Yard(runyard, engine, docker, made)


def _made_of(images: Images, folder: str) -> str:
    handler = (HERE / folder / "handler.py").read_text()
    return images.built({"Dockerfile": DOCKERFILE.format(sdk=images.base()), "handler.py": handler})
