"""What survives what: servers, keepers and workers as real processes, replaced, killed and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.keeping import Endpoint, Keeping, built_in, children, environment, keeping, left_over, until

isolated = pytest.param("auto", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one endpoint, whose environment is built, and nothing that runs."""
    return built_in(tmp_path_factory.mktemp("built"))


@pytest.fixture(params=["off", isolated])
def platform(request: pytest.FixtureRequest, built: Path) -> Iterator[Keeping]:
    with keeping(built, env={"RUNYARD_ISOLATION": request.param}) as platform:
        yield platform


@pytest.fixture
def endpoint(platform: Keeping) -> Iterator[Endpoint]:
    endpoint = platform.deploy()
    endpoint.ask({})
    yield endpoint
    if platform.process.poll() is None:
        platform.command("delete", "plain")


class Client(threading.Thread):
    """Asks again and again, on one connection (`kept`) or on a new one each time; counts what went wrong."""

    def __init__(self, platform: Keeping, path: str, *, kept: bool) -> None:
        super().__init__()
        self.platform, self.path, self.kept = platform, path, kept
        self.answered, self.slowest = 0, 0.0
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set() and not self.failures:
            try:
                with socket.create_connection(("127.0.0.1", self.platform.port), timeout=30) as sock:
                    self._ask(sock)
            except OSError as error:
                self.failures.append(repr(error))

    def _ask(self, sock: socket.socket) -> None:
        more = "" if self.kept else "Connection: close\r\n"
        head = f"GET {self.path} HTTP/1.1\r\nHost: yard\r\nAuthorization: {self.platform.key}\r\n{more}"
        request = f"{head}\r\n".encode()
        while not self.over.is_set():
            began = time.monotonic()
            sock.sendall(request)
            answer = sock.recv(65536)
            self.slowest = max(self.slowest, time.monotonic() - began)
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.failures.append(f"answer {answer[:80]!r}")
                return
            self.answered += 1
            time.sleep(0.002)
            if not self.kept:
                return


def test_a_restart_under_load_refuses_and_breaks_no_connection(platform: Keeping, endpoint: Endpoint) -> None:
    path = f"/v2/{endpoint.id}/health"
    clients = [Client(platform, path, kept=kept) for kept in (True, True, True, False, False)]
    before = platform.server
    for client in clients:
        client.start()
    try:
        for _ in range(2):
            done = platform.restart()
            assert (0, f"a new server answers on {platform.url}\n") == (done.returncode, done.stdout), done.stderr
    finally:
        for client in clients:
            client.over.set()
            client.join()

    assert [] == [failure for client in clients for failure in client.failures]
    assert all(client.answered > 50 for client in clients)
    assert before != platform.server


def test_a_worker_and_its_connection_survive_a_restart(platform: Keeping, endpoint: Endpoint) -> None:
    before = endpoint.ask({"say": "one"})
    [record] = endpoint.workers()
    assert 0 == platform.restart().returncode
    after = endpoint.ask({"say": "two"})

    assert before == after, "the same worker, in the same process"
    assert record["id"] == endpoint.workers()[0]["id"]
    assert "two" in endpoint.logs()
    assert [] == [line for line in endpoint.logs() if line.startswith("broken")]


def test_a_worker_of_the_official_sdk_notices_no_restart(platform: Keeping) -> None:
    """It drops the result that it is sending when its connection breaks, and asks without a pause when it is refused."""
    endpoint = platform.deploy("stock", handler="stock.py")
    before = endpoint.ask({})
    for _ in range(3):
        assert 0 == platform.restart().returncode
        assert before == endpoint.ask({"s": 0.2})
    lines = endpoint.logs(source="container")
    platform.command("delete", "stock")

    assert [] == [line for line in lines if "ERROR" in line or "Failed" in line or "Traceback" in line]


def test_output_of_a_worker_goes_on_in_the_logs_without_a_gap(platform: Keeping, endpoint: Endpoint) -> None:
    endpoint.run({"s": 4, "counts": True})
    until(lambda: "count 20" in endpoint.logs())
    assert 0 == platform.restart().returncode
    until(lambda: "count 399" in endpoint.logs())

    counts = [int(line.split()[1]) for line in endpoint.logs() if line.startswith("count ")]
    assert list(range(400)) == counts


def test_restarts_while_workers_start_lose_none_of_them(platform: Keeping) -> None:
    endpoint = platform.deploy("many", "--workers-min", "4", "--workers-max", "4")
    for _ in range(3):
        assert 0 == platform.restart().returncode
    until(lambda: ["IDLE"] * 4 == [worker["status"] for worker in endpoint.workers()])
    said = endpoint.logs(source="system")
    platform.command("delete", "many")

    assert 4 == len([line for line in said if line.startswith("starting for release")]), said
    assert [] == [line for line in said if "ended" in line or "did not start" in line]


def test_a_client_that_waits_is_answered_as_its_job_stands(platform: Keeping, endpoint: Endpoint) -> None:
    replies: list[Any] = []

    def wait() -> None:
        url = f"/v2/{endpoint.id}/runsync?wait=60000"
        replies.append(platform.http.post(url, json={"input": {"s": 5}}).json())

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: platform.http.get(f"/v2/{endpoint.id}/health").json()["jobs"]["inProgress"] == 1)
    began = time.monotonic()
    assert 0 == platform.restart().returncode
    waiting.join()

    assert "IN_PROGRESS" == replies[0]["status"]
    assert time.monotonic() - began < 4


def test_a_killed_server_is_replaced_and_its_workers_adopted(built: Path) -> None:
    with keeping(built) as platform:
        endpoint = platform.deploy("tolerant", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")
        before = endpoint.ask({})
        for _ in range(2):
            killed = platform.server
            os.kill(killed, signal.SIGKILL)
            until(platform.healthy)
            assert before == endpoint.ask({})
            assert killed != platform.server
        platform.command("delete", "tolerant")

    assert "the server ended unasked (killed by signal 9)" in platform.log.read_text()


def test_a_worker_that_ends_while_there_is_no_server_is_reported_by_the_next(
    platform: Keeping, endpoint: Endpoint
) -> None:
    worker, server = endpoint.ask({})["worker"], platform.server
    os.kill(server, signal.SIGSTOP)
    for pid, _ in children(platform.pid):
        if pid != server:
            os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    os.kill(server, signal.SIGKILL)

    until(platform.healthy)
    stopped = until(lambda: next((one for one in endpoint.stopped() if one["id"] == worker), None))
    assert "exit code 0" in str(stopped) or stopped["runyard"]["exitCode"] == 0
    assert worker != endpoint.ask({})["worker"]


def test_after_a_killed_keeper_nothing_runs_and_the_next_serve_works(built: Path) -> None:
    with keeping(built) as platform:
        platform.deploy("first").ask({})
        platform.process.kill()
        platform.process.wait()
        until(lambda: not left_over(built))
    with keeping(built) as again:
        endpoints = again.http.get("/v2/serverless").json()["endpoints"]
        endpoint = Endpoint(again, next(one["id"] for one in endpoints if one["name"] == "first"))
        assert endpoint.ask({})
        again.command("delete", "first")


def test_serving_right_after_the_keeper_was_killed_works_on_the_same_port(built: Path) -> None:
    with keeping(built) as platform:
        platform.process.kill()
        with keeping(built, "--port", str(platform.port)) as again:
            assert again.healthy()


def test_a_new_server_that_does_not_start_leaves_the_old_one_alone(built: Path, tmp_path: Path) -> None:
    with keeping(built, cwd=tmp_path) as platform:
        before = platform.server
        (tmp_path / "runyard.toml").write_text("no_such_setting = 1\n")
        done = _restart(platform)

        assert 1 == done.returncode
        assert "the old one goes on" in done.stderr
        assert "no_such_setting" in done.stderr
        assert platform.healthy()
        assert [before] == [pid for pid, line in children(platform.pid) if "runyard serve" in line]


def _restart(platform: Keeping) -> subprocess.CompletedProcess[str]:
    """From a folder without that broken runyard.toml."""
    command = [sys.executable, "-m", "runyard", "restart", "--data-dir", str(platform.data)]
    return subprocess.run(
        command, env=environment(), cwd=platform.data.parent, capture_output=True, text=True, timeout=60, check=False
    )


def test_two_platforms_do_not_share_a_data_directory(built: Path) -> None:
    command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(built)]
    with keeping(built) as platform:
        second = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)

        assert 1 == second.returncode
        assert f"another platform (process {platform.pid}) serves from {built}" in second.stderr
        assert platform.healthy()


def test_a_port_that_is_taken_is_named(built: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "runyard", "serve", "--port", port, "--data-dir", str(built)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)

    assert (1, f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another port\n") == (
        done.returncode,
        done.stderr,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_nothing_behind(built: Path, number: signal.Signals) -> None:
    with keeping(built) as platform:
        endpoint = platform.deploy("stopped")
        endpoint.ask({})
        platform.process.send_signal(number)
        assert 0 == platform.process.wait(30)
        assert [] == left_over(built)
        assert [] == list((built / "workers").iterdir())
    with keeping(built) as platform:
        platform.command("delete", "stopped")


def test_a_stop_without_a_server_leaves_nothing_behind(built: Path) -> None:
    with keeping(built) as platform:
        endpoint = platform.deploy("stopped", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")
        endpoint.ask({})
        for _ in range(2):  # The second crash in a row is followed by a pause.
            os.kill(platform.server, signal.SIGKILL)
            until(lambda: [] == [line for _, line in children(platform.pid) if "runyard serve" in line])
        assert platform.stop() == 0
        assert [] == left_over(built)
    with keeping(built) as platform:
        platform.command("delete", "stopped")


def test_the_spool_is_bounded_and_loses_nothing(platform: Keeping, endpoint: Endpoint) -> None:
    spool = platform.data / "workers" / endpoint.ask({})["worker"] / "output"
    server, lines = platform.server, 100_000
    endpoint.run({"flood": lines})
    os.kill(server, signal.SIGSTOP)
    time.sleep(1.5)
    size = spool.stat().st_size
    os.kill(server, signal.SIGCONT)

    assert size < 5 << 20
    until(lambda: f"flood {lines - 1} {'x' * 80}" in endpoint.logs())
    kept = [int(line.split()[1]) for line in endpoint.logs() if line.startswith("flood ")]
    assert list(range(lines - len(kept), lines)) == kept
    assert spool.stat().st_size < 1 << 20


def test_the_keeper_is_small(platform: Keeping) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{platform.pid}/status").read_text().splitlines())

    assert int(status["VmRSS"].split()[0]) < 24 * 1024
