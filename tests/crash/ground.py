"""The platform under test: one data directory and one port, and whatever keeper serves from it now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx2

from tests.crash.clients import Target
from tests.crash.record import Line, parse
from tests.e2e.keeping import Keeping, children, environment, left_over, until

HANDLERS = Path(__file__).parent / "handlers"
SETTINGS = {
    # Process namespaces would hide the workers' pids, and their log has one owner.
    "RUNYARD_ISOLATION": "off",
    "RUNYARD_PING_INTERVAL_MS": "1000",
    "RUNYARD_JOB_STOP_GRACE_S": "1",
    "RUNYARD_INPUT_INLINE_BYTES": "10000",
}


class Ground:
    """`log` is what the handlers write."""

    PATIENCE_S = 60.0

    def __init__(self, folder: Path, *, store: str) -> None:
        self.data, self.log = folder / "data", folder / "handlers.log"
        self._folder, self._store = folder, store
        self.log.touch()
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "runyard", "serve", "--store", self._store]
        command += ["--port", str(self.port), "--data-dir", str(self.data)]
        log = self._folder / "serve.log"
        with log.open("a") as errors:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self._folder,
                env=environment() | SETTINGS,
            )
        self.platform = Keeping(self.data, log, process, self._folder)
        self.port, self.key = self.platform.port, self.platform.key

    def deploy(self, name: str, workers: int, **env: str) -> Target:
        settings = [f"{key}={value}" for key, value in {"CRASH_LOG": str(self.log), **env}.items()]
        done = self.platform.command(
            *("deploy", str(HANDLERS), "--handler", "append.py", "--name", name, "--json"),
            *("--workers-min", str(workers), "--workers-max", str(workers)),
            *(flag for setting in settings for flag in ("--env", setting)),
        )
        assert 0 == done.returncode, done.stderr
        return Target(f"/v2/{json.loads(done.stdout)['id']}", generates="GENERATES" in env)

    def restart(self) -> subprocess.CompletedProcess[str]:
        return self.platform.restart()

    def stop(self) -> None:
        """SIGTERM; nothing may be left."""
        status = self.platform.stop()
        self._put_away()
        assert 0 == status, self.last_words()
        assert [] == left_over(self.data)

    def kill_keeper(self) -> None:
        self.platform.process.kill()
        self.platform.process.wait()
        self._put_away()

    def close(self) -> None:
        """Whatever state it is in."""
        if self.platform.process.poll() is None:
            self.kill_keeper()

    def servers(self) -> list[int]:
        return [pid for pid, line in children(self.platform.pid) if "runyard serve" in line]

    def workers(self) -> dict[str, int]:
        """Pids of the workers that run, by id."""
        ups = [line for line in self.lines() if line.event == "up"]
        return {line.worker: line.pid for line in ups if _is(line)}

    def signal_worker(self, worker: str, number: signal.Signals) -> None:
        with suppress(KeyError, ProcessLookupError):
            os.kill(self.workers()[worker], number)

    def lines(self) -> tuple[Line, ...]:
        return parse(self.log.read_text())

    def wait_until_healthy(self) -> None:
        until(self.platform.healthy, self.PATIENCE_S)

    def get(self, path: str) -> httpx2.Response:
        return self.platform.http.get(path)

    def last_words(self) -> str:
        return "\n".join((self._folder / "serve.log").read_text().splitlines()[-40:])

    def _put_away(self) -> None:
        self.platform.http.close()
        assert self.platform.process.stdout is not None
        self.platform.process.stdout.close()


def _is(line: Line) -> bool:
    """Whether that very process runs: it is what its environment says."""
    try:
        environ = Path(f"/proc/{line.pid}/environ").read_bytes()
    except OSError:
        return False
    return f"RUNPOD_POD_ID={line.worker}".encode() in environ
