"""`runyard serve` and its clients as real processes. No worker is started: that is what the other tests here are for."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STOP_TIMEOUT_S = 15.0


class Served:
    """A platform that serves."""

    def __init__(self, process: subprocess.Popen[str], url: str, data: Path) -> None:
        self.process = process
        self.data = data
        self.env = environment() | {"RUNYARD_URL": url, "RUNYARD_DATA_DIR": str(data)}

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runyard", *args]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RUNYARD_")}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    data = tmp_path / "data"
    command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(data)]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("runyard ready on http://127.0.0.1:"), (tmp_path / "log").read_text()
            yield Served(process, said.split()[-1], data)
        finally:
            process.kill()


def test_a_platform_is_served_used_and_stopped(served: Served, tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "handler.py").write_text("")
    key = served.data / "admin.key"
    mode = stat.S_IMODE(key.stat().st_mode)

    deployed = served.run("deploy", str(tmp_path / "hello"), "--workers-max", "0", "--json")
    listed = served.run("endpoints", "--json")
    made = served.run("keys", "create", "ci")
    job = served.run("run", "hello", '{"a": 1}')
    shown = served.run("jobs", "hello", "--json")
    served.env["RUNYARD_API_KEY"] = made.stdout.strip()
    purged = served.run("purge", "hello")
    served.process.send_signal(signal.SIGTERM)

    assert (mode, deployed.returncode) == (0o600, 0), deployed.stderr
    assert [endpoint["name"] for endpoint in json.loads(listed.stdout)["endpoints"]] == ["hello"]
    assert [entry["id"] for entry in json.loads(shown.stdout)["requests"]] == [job.stdout.strip()]
    assert purged.stdout == "cancelled 1 waiting jobs\n"
    assert served.process.wait(STOP_TIMEOUT_S) == 0
