"""A webhook that is owed is delivered, whoever is killed in between; `runyard webhooks` shows and repeats it."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from tests.e2e.keeping import Endpoint, Keeping, keeping, until

NEXT_TRY_S_MAX = 30


class Receiver:
    """Answers 200 with what was POSTed put into `received`; `silent` ones do not answer."""

    def __init__(self, port: int = 0) -> None:
        self.received: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.silent = False
        self.over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.put(({name.lower(): value for name, value in self.headers.items()}, body))
                if receiver.silent:
                    receiver.over.wait(60)
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Not on the test's output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"

    @contextmanager
    def open(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def next(self) -> tuple[dict[str, str], Any]:
        headers, body = self.received.get(timeout=NEXT_TRY_S_MAX)
        return headers, json.loads(body)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def a_queue(platform: Keeping) -> Endpoint:
    """Nobody works here, so a job ends when it is cancelled."""
    return platform.deploy("plain", "--workers-min", "0", "--workers-max", "0")


def ended(endpoint: Endpoint, webhook: str) -> str:
    http = endpoint.platform.http
    job_id = http.post(f"/v2/{endpoint.id}/run", json={"input": {}, "webhook": webhook}).json()["id"]
    assert "CANCELLED" == http.post(f"/v2/{endpoint.id}/cancel/{job_id}").json()["status"]
    return job_id


def test_a_killed_server_tells_again_what_nobody_has_answered(data: Path) -> None:
    with keeping(data, "--store", "embedded") as platform, Receiver().open() as receiver:
        receiver.silent = True
        job_id = ended(a_queue(platform), receiver.url)
        first, _ = receiver.next()
        receiver.silent = False
        os.kill(platform.server, signal.SIGKILL)
        again, body = receiver.next()

        assert (job_id, "CANCELLED") == (body["id"], body["status"])
        assert first["webhook-id"] == again["webhook-id"]


def test_what_was_owed_when_all_were_killed_is_told_when_the_platform_is_back(data: Path) -> None:
    receiver = Receiver()  # Listens, and answers nobody yet.
    receiver.silent = True
    with keeping(data, "--store", "embedded") as platform:
        endpoint = a_queue(platform)
        jobs = {ended(endpoint, receiver.url) for _ in range(20)}
        server = platform.server
        os.kill(platform.pid, signal.SIGKILL)
        os.kill(server, signal.SIGKILL)
        platform.process.wait()
    receiver.silent = False
    with receiver.open(), keeping(data, "--store", "embedded") as platform:
        told = set[str]()
        while told != jobs:
            told.add(receiver.next()[1]["id"])
        endpoint = Endpoint(platform, endpoint.id)

        def delivered() -> list[Any] | None:
            page = platform.http.get(f"/v2/serverless/{endpoint.id}/webhooks").json()["webhooks"]
            return page if all(hook["state"] == "DELIVERED" for hook in page) else None

        assert jobs == {hook["jobId"] for hook in until(delivered)}


def test_the_command_line_shows_repeats_and_gives_the_secret(data: Path) -> None:
    with keeping(data, "--store", "embedded") as platform, Receiver().open() as receiver:
        endpoint = a_queue(platform)
        job_id = ended(endpoint, receiver.url)
        first, _ = receiver.next()

        def listed() -> Any:
            done = platform.command("webhooks", "list", "plain", "--job", job_id, "--state", "delivered", "--json")
            return json.loads(done.stdout)["webhooks"]

        [delivery] = until(listed)
        assert first["webhook-id"] == delivery["id"]
        assert 0 == platform.command("webhooks", "redeliver", "plain", delivery["id"]).returncode
        headers, body = receiver.received.get(timeout=NEXT_TRY_S_MAX)
        secret = platform.command("webhooks", "secret", "plain").stdout.strip()

        assert job_id == standardwebhooks.Webhook(secret).verify(body, headers)["id"]
        assert delivery["id"] == headers["webhook-id"]
        assert secret not in platform.log.read_text()
        files = [file for file in data.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
        assert files, "it is kept"
        assert {0o600} == {file.stat().st_mode & 0o777 for file in files}
