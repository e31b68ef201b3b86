"""A platform with its keeper as real processes, for tests that replace, crash and stop them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2

HANDLERS = Path(__file__).parent / "handlers"
START_S_MAX = 60.0
STOP_S_MAX = 30.0
BUILD_S_MAX = 300.0
WAIT_S_MAX = 30.0

T = TypeVar("T")


class Keeping:
    """A keeper and what is under it."""

    def __init__(self, data: Path, log: Path, process: subprocess.Popen[str], cwd: Path) -> None:
        self.data, self.log, self.process, self.cwd = data, log, process, cwd
        spoke, _, _ = select.select([process.stdout], [], [], START_S_MAX)
        assert process.stdout is not None
        self.said = process.stdout.readline() if spoke else ""
        assert self.said.startswith("runyard ready on "), f"{self.said!r}\n{log.read_text()}"
        self.url = self.said.split()[-1]
        self.port = int(self.url.rpartition(":")[2])
        self.key = (data / "admin.key").read_text().strip()
        self.http = httpx2.Client(base_url=self.url, headers={"Authorization": self.key}, timeout=2 * WAIT_S_MAX)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def server(self) -> int:
        """The pid of the newest server."""
        return until(lambda: max((pid for pid, line in children(self.pid) if "runyard serve" in line), default=None))

    def command(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        env = environment() | {"RUNYARD_URL": self.url, "RUNYARD_API_KEY": self.key}
        command = [sys.executable, "-m", "runyard", *args]
        return subprocess.run(
            command, env=env, cwd=self.cwd, capture_output=True, text=True, timeout=120, check=False, **options
        )

    def restart(self) -> subprocess.CompletedProcess[str]:
        return self.command("restart", "--data-dir", str(self.data))

    def deploy(self, name: str = "plain", *flags: str, handler: str = "plain.py") -> Endpoint:
        """One worker, always, unless the flags say otherwise."""
        flags = flags or ("--workers-min", "1", "--workers-max", "1")
        done = self.command("deploy", str(HANDLERS), "--handler", handler, "--name", name, "--json", *flags)
        assert 0 == done.returncode, done.stderr
        return Endpoint(self, json.loads(done.stdout)["id"])

    def healthy(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S_MAX)


class Endpoint:
    """A deployed one."""

    def __init__(self, platform: Keeping, id: str) -> None:
        self.platform, self.id = platform, id

    def ask(self, input: dict[str, Any], *, seconds: float = WAIT_S_MAX) -> dict[str, Any]:
        """Submit and wait; the output."""
        reply = self.platform.http.post(
            f"/v2/{self.id}/runsync?wait={int(seconds * 1000)}", json={"input": input}, timeout=seconds + 30
        ).json()
        assert reply.get("status") == "COMPLETED", reply
        return reply["output"]

    def run(self, input: dict[str, Any]) -> str:
        return self.platform.http.post(f"/v2/{self.id}/run", json={"input": input}).json()["id"]

    def workers(self) -> list[dict[str, Any]]:
        return self.platform.http.get(f"/v2/serverless/{self.id}/workers").json()["workers"]

    def stopped(self) -> list[dict[str, Any]]:
        return self.platform.http.get(f"/v2/serverless/{self.id}/workers").json()["runyard"]["stopped"]

    def logs(self, **query: Any) -> list[str]:
        query = {"follow": "false", "tail": 5000, **query}
        reply = self.platform.http.get(f"/v2/serverless/{self.id}/logs", params=query)
        return [json.loads(line[6:])["line"] for line in reply.text.splitlines() if line.startswith("data: ")]


@contextmanager
def keeping(
    data: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    command: Sequence[str] = (),
) -> Iterator[Keeping]:
    """Serve from this folder, by `command` or as everybody does. At the end nothing of it may be left, unless the test
    has killed the keeper.
    """
    log = log or data.parent / f"{data.name}.log"
    cwd = cwd or data.parent
    command = command or [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(data), *flags]
    with (
        log.open("a") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=cwd, env=environment() | (env or {})
        ) as process,
    ):
        platform = None
        try:
            platform = Keeping(data, log, process, cwd)
            yield platform
            if process.poll() is None:
                assert 0 == platform.stop(), log.read_text()
                assert [] == left_over(data)
        finally:
            if platform is not None:
                platform.http.close()
            if process.poll() is None:
                process.kill()


def peak_kb(server: int) -> int:
    """The most that the process has had in memory since `forget_peak`."""
    status = Path(f"/proc/{server}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def forget_peak(server: int) -> None:
    Path(f"/proc/{server}/clear_refs").write_text("5")


def ended(endpoint: Endpoint, job_id: str, seconds: float = 120) -> dict[str, Any]:
    """The job in the list, which holds no outputs, once it has ended."""

    def look() -> dict[str, Any] | None:
        listed = endpoint.platform.http.get(f"/v2/{endpoint.id}/requests").json()["requests"]
        return next(
            (job for job in listed if job["id"] == job_id and job["status"] not in ("IN_QUEUE", "IN_PROGRESS")), None
        )

    return until(look, seconds)


def built_in(folder: Path) -> Path:
    """A data directory there in which the environment of the plain handler is built, and nothing runs."""
    data = folder / "data"
    with keeping(data) as platform:
        platform.deploy().ask({}, seconds=BUILD_S_MAX)
        platform.command("delete", "plain")
    return data


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("RUNYARD_", "RUNPOD_"))}


def children(parent: int) -> list[tuple[int, str]]:
    """Pids and command lines, of those that are not zombies."""
    found: list[tuple[int, str]] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] not in "ZX":
                line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(path.name), line))
        except OSError:
            continue
    return found


def left_over(data: Path) -> list[str]:
    """Command lines of processes that know this folder."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, environ = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(data) in command + environ and int(path.name) != os.getpid():
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def until(probe: Callable[[], T | None], seconds: float = WAIT_S_MAX) -> T:
    """The first true answer of `probe`, asked again and again within a bound."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)
    return answer
