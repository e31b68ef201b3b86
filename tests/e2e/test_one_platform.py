"""One platform for each data directory, whichever store it has and whatever an earlier one has left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.keeping import Endpoint, Keeping, environment, keeping, until

STORES = ("memory", "embedded")


def second(data: Path, store: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(data), "--store", store]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str], platform: Keeping) -> bool:
    words = f"Error: another platform (process {platform.pid}) serves from {platform.data}; stop it, or choose another"
    assert (1, "", True) == (done.returncode, done.stdout, done.stderr.startswith(words)), done
    return platform.healthy()


def runs(pid: int) -> bool:
    """Nobody may have asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("first", STORES)
def test_a_second_serve_is_refused_and_changes_nothing(first: str, tmp_path: Path) -> None:
    with keeping(tmp_path / "data", "--store", first) as platform:
        for store in STORES:
            assert refused(second(platform.data, store), platform)
        (tmp_path / "other-name").symlink_to(platform.data)
        assert "another platform" in second(tmp_path / "other-name", first).stderr
        restore = platform.command("restore", str(tmp_path / "nowhere"), "--data-dir", str(platform.data))
        assert (1, True) == (restore.returncode, "another platform" in restore.stderr)
        os.kill(platform.server, signal.SIGKILL)
        assert "another platform" in second(platform.data, first).stderr, "also while there is no server"
        until(platform.healthy)


@pytest.mark.parametrize("store", STORES)
def test_what_killed_processes_left_refuses_nobody(store: str, tmp_path: Path) -> None:
    with keeping(tmp_path / "data", "--store", store, log=tmp_path / "first") as killed:
        server = killed.server
        os.kill(server, signal.SIGKILL)
        killed.process.kill()
        killed.process.wait()
    with keeping(tmp_path / "data", "--store", store) as platform:
        assert refused(second(platform.data, store), platform)


def test_a_server_that_outlives_its_killed_keeper_writes_nothing_more(tmp_path: Path) -> None:
    """It is stopped, so that it cannot go by itself; two servers on one journal would be the end of it."""
    data = tmp_path / "data"
    with keeping(data, "--store", "embedded", log=tmp_path / "first") as killed:
        endpoint = killed.deploy("kept", "--workers-min", "0", "--workers-max", "0")
        jobs = [endpoint.run({"number": number}) for number in range(20)]
        server = killed.server
        os.kill(server, signal.SIGSTOP)
        killed.process.kill()
        killed.process.wait()
    with keeping(data, "--store", "embedded") as platform:
        there = Endpoint(platform, endpoint.id)

        assert not runs(server)
        assert 20 == platform.http.get(f"/v2/{there.id}/health").json()["jobs"]["inQueue"]
        assert jobs[-1] == platform.http.get(f"/v2/{there.id}/status/{jobs[-1]}").json()["id"]
