"""A real platform: `runyard serve` as a process, deployed to with `runyard deploy`, called with the official client."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import runpod

HANDLERS = Path(__file__).parent / "handlers"
START_S_MAX = 60
STOP_S_MAX = 60
JOB_S_MAX = 60
BUILD_S_MAX = 300
"""The first worker of all waits for its environment."""
POLL_S = 0.05
LOG_LINES = 40
TERMINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
STOP_GRACE_S = 1
"""How long a blocking handler may go on after its job was cancelled; less than the default, so that tests need not wait."""

T = TypeVar("T")


class Platform:
    """A running one."""

    def __init__(self, url: str, data_dir: Path, log: Path) -> None:
        self.url = url
        self.key = (data_dir / "admin.key").read_text().strip()
        self.http = httpx2.Client(base_url=url, headers={"Authorization": self.key}, timeout=2 * JOB_S_MAX)
        self._log = log

    def deploy(self, handler: str, name: str, *flags: str) -> Endpoint:
        """A new endpoint that runs this file of `handlers/`."""
        command = [sys.executable, "-m", "runyard", "deploy", HANDLERS, "--handler", handler, "--name", name, "--json"]
        env = _environment({"RUNYARD_URL": self.url, "RUNYARD_API_KEY": self.key})
        done = subprocess.run(
            [*command, *flags], env=env, capture_output=True, text=True, timeout=START_S_MAX, check=False
        )
        assert 0 == done.returncode, f"{name} was not deployed: {done.stderr}"
        return Endpoint(self, json.loads(done.stdout)["id"])

    def log(self) -> str:
        """The end of it."""
        return "\n".join(self._log.read_text().splitlines()[-LOG_LINES:])


class Endpoint:
    """A deployed endpoint. What is asked here goes through the official client, but for what it has no words for."""

    def __init__(self, platform: Platform, endpoint_id: str) -> None:
        self.platform = platform
        self.id = endpoint_id
        self.sdk = runpod.Endpoint(endpoint_id, api_key=platform.key)
        self.name: str = self.settings()["name"]

    def run(self, input: dict[str, Any], **fields: Any) -> str:
        """Submit; returns the job's id."""
        return self.sdk.run({"input": input, **fields}).job_id

    def ask(self, input: dict[str, Any], *, seconds: int = JOB_S_MAX, **fields: Any) -> dict[str, Any]:
        """Submit and wait for the end; returns the whole reply, of which the client's `run_sync` shows the output alone."""
        path = f"{self.id}/runsync?wait={seconds * 1000}"
        reply = self.sdk.rp_client.post(path, {"input": input, **fields}, timeout=2 * seconds)
        assert reply["status"] in TERMINAL, reply
        return reply

    def status(self, job_id: str) -> dict[str, Any]:
        return self.sdk.rp_client.get(f"{self.id}/status/{job_id}")

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job's status once it has ended."""
        self.platform.http.get(f"/v2/{self.id}/status-sync/{job_id}", params={"wait": JOB_S_MAX * 1000})
        status = self.status(job_id)
        assert status["status"] in TERMINAL, status
        return status

    def settings(self) -> dict[str, Any]:
        return self._control("")

    def workers(self) -> list[dict[str, Any]]:
        """Those that are alive."""
        return self._control("/workers")["workers"]

    def stopped(self) -> dict[str, dict[str, Any]]:
        """Those that have ended, by id."""
        return {worker["id"]: worker for worker in self._control("/workers")["runyard"]["stopped"]}

    def stopped_worker(self, worker_id: str) -> dict[str, Any]:
        """This worker, once it has ended."""
        return until(lambda: self.stopped().get(worker_id), f"worker {worker_id} ends")

    def logs(self, **query: Any) -> list[str]:
        """The lines its workers wrote, and what the platform says about them."""
        path = f"/v2/serverless/{self.id}/logs"
        reply = self.platform.http.get(path, params={"follow": "false", "tail": 1000, **query})
        assert reply.status_code == 200, reply.text
        events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
        return [json.loads(event)["line"] for event in events]

    def _control(self, path: str) -> Any:
        reply = self.platform.http.get(f"/v2/serverless/{self.id}{path}")
        assert reply.status_code == 200, reply.text
        return reply.json()


def result_of(status: dict[str, Any]) -> dict[str, Any]:
    """How a job ended, without when and where."""
    return {name: status[name] for name in ("status", "output", "error") if name in status}


def until(probe: Callable[[], T | None], what: str, seconds: float = JOB_S_MAX) -> T:
    """The first answer of `probe` that is true; asked again and again, within a bound."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"within {seconds:g} s it did not happen that {what}"
        time.sleep(POLL_S)
    return answer


@contextmanager
def running(settings: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """A platform of its own, in a folder of its own, with these variables. At the end nothing of it may be left."""
    with tempfile.TemporaryDirectory(prefix="runyard-compat-") as folder:
        data_dir, log = Path(folder, "data"), Path(folder, "serve.log")
        command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(data_dir)]
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=folder,
                env=_environment({"RUNYARD_JOB_STOP_GRACE_S": str(STOP_GRACE_S), **(settings or {})}),
            ) as server,
        ):
            try:
                platform = Platform(_ready(server, log), data_dir, log)
                with platform.http:
                    yield platform
            finally:
                _stop(server, log)
        assert 0 == server.returncode, log.read_text()
        assert [] == _left_over(folder)
        assert [] == sorted(str(path) for path in (data_dir / "workers").rglob("*")), log.read_text()


def _ready(server: subprocess.Popen[str], log: Path) -> str:
    spoke, _, _ = select.select([server.stdout], [], [], START_S_MAX)
    line = server.stdout.readline() if spoke else ""
    assert line.startswith("runyard ready on "), f"runyard serve did not start: {line!r}\n{log.read_text()}"
    return line.split()[-1]


def _stop(server: subprocess.Popen[str], log: Path) -> None:
    server.terminate()
    try:
        server.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        server.kill()
        raise AssertionError(f"the platform did not stop within {STOP_S_MAX} s\n{log.read_text()}") from None


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would steer a platform or a client."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("RUNYARD_", "RUNPOD_"))} | dict(more)


def _left_over(folder: str) -> list[str]:
    """Command lines of processes that know this folder."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environ = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if folder.encode() in command + environ:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
