"""A worker plane at an address besides loopback's, held by the keeper: real processes, replaced and killed.

127.0.0.7 stands for the gateway of a network of workers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

import runyard.keeper
from tests.e2e.keeping import BUILD_S_MAX, Endpoint, Keeping, keeping, until

GATEWAY = "127.0.0.7"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("further") / "data"


@pytest.fixture
def platform(data: Path, tmp_path: Path) -> Iterator[Keeping]:
    server = tmp_path / "server"
    server.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("further.py")}" "$@"\n')
    server.chmod(0o700)
    data.mkdir(exist_ok=True)
    charge = {
        "python": str(server),
        "data_dir": str(data),
        "host": "0.0.0.0",
        "port": 0,
        "worker_port": 0,
        "flags": ["--data-dir", str(data)],
    }
    [keeper] = runyard.keeper.__path__
    command = [sys.executable, "-I", "-S", f"{keeper}/__main__.py", json.dumps(charge)]
    env = {"FURTHER_WORKER_HOST": GATEWAY, "FURTHER_OPENED": str(tmp_path / "opened"), "RUNYARD_ISOLATION": "off"}
    with keeping(data, command=command, env=env) as platform:
        yield platform


class Worker:
    """One of the official SDK that knows the platform by `GATEWAY` alone."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.answer = endpoint.ask({}, seconds=BUILD_S_MAX)
        variables = Path(f"/proc/{self.answer['pid']}/environ").read_bytes().decode().split("\0")
        env = dict(variable.split("=", 1) for variable in variables if variable)
        self.id, self.secret = env["RUNPOD_POD_ID"], env["RUNPOD_AI_API_KEY"]
        self.port = urlsplit(env["RUNPOD_WEBHOOK_GET_JOB"]).port or 0

    def request(self, route: str, *, worker: str | None = None, secret: str | None = None) -> bytes:
        path = f"/v2/{self.endpoint.id}/{route}/{worker or self.id}"
        return f"GET {path} HTTP/1.1\r\nHost: yard\r\nAuthorization: {secret or self.secret}\r\n\r\n".encode()


@pytest.fixture
def worker(platform: Keeping) -> Iterator[Worker]:
    flags = ("--workers-min", "1", "--workers-max", "1", "--env", f"FURTHER_WORKER_HOST={GATEWAY}")
    yield Worker(platform.deploy("further", *flags, handler="further.py"))
    platform.command("delete", "further")


class Prober(threading.Thread):
    """Connects every few milliseconds, and notes what goes wrong."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker
        self.failures: list[str] = []
        self.count = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.003):
            try:
                socket.create_connection((GATEWAY, self.worker.port), timeout=30).close()
                self.count += 1
            except OSError as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


class Parked(Prober):
    """Holds a long poll on one connection, as stock workers do for jobs to stop."""

    def run(self) -> None:
        with socket.create_connection((GATEWAY, self.worker.port), timeout=1) as sock:
            while not self.over.is_set() and not self.failures:
                try:
                    sock.sendall(self.worker.request("job-stop"))
                    self._wait(sock)
                except OSError as error:
                    self.failures.append(repr(error))

    def _wait(self, sock: socket.socket) -> None:
        while not self.over.is_set():
            try:
                answer = sock.recv(65536)
            except TimeoutError:
                continue
            self.count += 1
            if not answer.startswith(b"HTTP/1.1 20"):
                self.failures.append(f"answer {answer[:80]!r}")
            return


def test_a_restart_refuses_and_breaks_no_connection_there(platform: Keeping, worker: Worker) -> None:
    before = platform.server
    with Prober(worker) as prober, Parked(worker) as parked:
        for _ in range(2):
            done = platform.restart()
            assert 0 == done.returncode, done.stderr
            assert worker.answer == worker.endpoint.ask({"s": 0.2})
    lines = worker.endpoint.logs(source="container")

    assert before != platform.server
    assert ([], []) == (prober.failures, parked.failures)
    assert prober.count > 100
    assert parked.count >= 2, "each server answers what it holds when it hands over"
    assert [] == [line for line in lines if "ERROR" in line or "Failed" in line or "Traceback" in line]


def test_a_killed_server_refuses_no_connection_there(platform: Keeping, worker: Worker) -> None:
    with Prober(worker) as prober:
        for _ in range(2):  # The second time there is no server for a while.
            killed = platform.server
            os.kill(killed, signal.SIGKILL)
            until(platform.healthy)
            assert worker.answer == worker.endpoint.ask({})
            assert killed != platform.server

    assert [] == prober.failures
    assert prober.count > 100


def test_strangers_and_users_get_nothing_there(platform: Keeping, worker: Worker) -> None:
    forged = worker.request("job-take", worker="forged"), worker.request("job-take", secret="forged")

    assert [401, 401] == [_status(_ask(worker.port, request)) for request in forged]
    assert 404 == _status(_ask(worker.port, _list_endpoints(platform)))
    assert 200 == _status(_ask(platform.port, _list_endpoints(platform), host="127.0.0.1"))
    began = time.monotonic()
    assert b"" == _ask(platform.port, _list_endpoints(platform)), "the user port is not here"
    assert time.monotonic() - began < 1


def _list_endpoints(platform: Keeping) -> bytes:
    return f"GET /v2/serverless HTTP/1.1\r\nHost: yard\r\nAuthorization: {platform.key}\r\n\r\n".encode()


def _ask(port: int, request: bytes, *, host: str = GATEWAY) -> bytes:
    with socket.create_connection((host, port), timeout=10) as sock:
        try:
            sock.sendall(request)
            return sock.recv(65536)
        except ConnectionError:
            return b""


def _status(answer: bytes) -> Any:
    return int(answer.split()[1])
