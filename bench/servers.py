"""Starts what is measured, each on a core of its own: servers on the first, load and workers on the second."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2

SERVER_CORE, LOAD_CORE = 0, min(1, (os.cpu_count() or 1) - 1)
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform."""

    url: str
    key: str
    pid: int

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.request(method, self.url + path, headers=headers, timeout=300, **options).raise_for_status()

    def deploy(self, name: str, handler: Path, env: dict[str, str], *, workers: int = 1) -> str:
        """Deploy a handler file with that many workers, always on; returns the endpoint id."""
        bundle = _bundle(handler)
        digest = hashlib.sha256(bundle).hexdigest()
        self.call("PUT", f"/v2/bundles/{digest}", content=bundle)
        body = {
            "name": name,
            "type": "QUEUE",
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "workers": {"min": workers, "max": workers},
            "env": env,
            "runyard": {"bundle": digest, "handler": handler.name},
        }
        return self.call("POST", "/v2/serverless", json=body).json()["id"]

    def wait_until_ready(self, endpoint: str, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.call("GET", f"/v2/{endpoint}/health").json()["workers"]["ready"]:
                return
            time.sleep(0.1)
        raise TimeoutError(f"no worker of {endpoint} was ready within {seconds:g} s")

    def borrow_worker(self, name: str) -> dict[str, str]:
        """Deploy a worker that hands its place over to us; returns its environment."""
        return self.borrow_again(self.deploy(name, HERE / "lent_worker" / "handler.py", {}))

    def borrow_again(self, endpoint: str) -> dict[str, str]:
        """The environment of a worker that lends its place, of an endpoint that is there."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            for worker in self.call("GET", f"/v2/serverless/{endpoint}/workers").json()["workers"]:
                if (env := self._lent_by(endpoint, worker["id"])) is not None:
                    return env
            time.sleep(0.2)
        raise TimeoutError("no worker to borrow")

    def _lent_by(self, endpoint: str, worker: str) -> dict[str, str] | None:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"{self.url}/v2/serverless/{endpoint}/workers/{worker}/logs?source=container"
        with (
            contextlib.suppress(httpx2.TimeoutException),
            httpx2.stream("GET", url, headers=headers, timeout=2) as lines,
        ):
            for line in lines.iter_lines():
                if line.startswith("data: ") and "BENCH_LENDS" in line:
                    return json.loads(json.loads(line[6:])["line"])
        return None


@contextlib.contextmanager
def platform(store: str = "memory", **settings: str) -> Iterator[Platform]:
    """`runyard serve` with a data directory of its own; `settings` are environment variables."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as data, platform_in(Path(data), store, **settings) as it:
        yield it


@contextlib.contextmanager
def platform_in(data: Path, store: str, **settings: str) -> Iterator[Platform]:
    """`runyard serve` with this data directory."""
    command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(data), "--store", store]
    with _pinned(command, data / "serve.log", settings) as server:
        line = server.stdout.readline() if server.stdout else ""
        if "ready on " not in line:
            raise RuntimeError(f"the platform did not start: {(data / 'serve.log').read_text()[-2000:]}")
        key = (data / "admin.key").read_text().strip()
        yield Platform(line.split()[-1], key, _server_of(server.pid))


def _server_of(keeper: int) -> int:
    """The pid of the platform itself: the keeper above it does nothing that is measured."""
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return next(int(pid) for pid in children if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes())


@contextlib.contextmanager
def fastapi() -> Iterator[str]:
    """The peer: a FastAPI handler that is called directly, in its own process. Yields its URL."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.peer:app", "--port", str(port), "--log-level", "error"]
    with _pinned([*command, "--no-access-log"], Path(os.devnull)):
        for _ in range(100):
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(f"http://127.0.0.1:{port}/docs")
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/run"


@contextlib.contextmanager
def _pinned(
    command: list[str], log: Path, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[str]]:
    with log.open("a") as stderr:
        pinned = ["taskset", "-c", str(SERVER_CORE), *command]
        env = os.environ | settings
        process = subprocess.Popen(pinned, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=HERE.parent, env=env)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def cpu_seconds(pid: int) -> float:
    """CPU time the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _bundle(handler: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(handler, handler.name)
    return buffer.getvalue()


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
