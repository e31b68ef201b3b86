"""A platform whose disk fills: a file system of its own, filled by somebody else, and by the platform itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.keeping import BUILD_S_MAX, Endpoint, Keeping, children, keeping, until

MIB = 1 << 20
DISK_BYTES = 1024 * MIB
RESERVE_BYTES = 32 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system in memory."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this test mounts a file system, which only root may")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Ballast:
    """What somebody else keeps on the disk."""

    def __init__(self, disk: Path) -> None:
        self._file = disk / "ballast"

    def leave(self, free_bytes: int) -> None:
        """Grow until only so much is free."""
        with self._file.open("ab") as file:
            room = os.statvfs(self._file)
            grow = room.f_bavail * room.f_frsize - free_bytes
            if grow > 0:
                os.posix_fallocate(file.fileno(), file.tell(), grow)

    def take_all(self) -> None:
        self.leave(MIB)  # What others write meanwhile fits into that.
        with self._file.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 512)

    def go(self) -> None:
        self._file.unlink(missing_ok=True)


@pytest.fixture
def ballast(disk: Path) -> Iterator[Ballast]:
    ballast = Ballast(disk)
    yield ballast
    ballast.go()


def serving(disk: Path, log_folder: Path, reserve_bytes: int) -> Any:
    data = disk / "data"
    return keeping(
        data, "--store", "embedded", env={"RUNYARD_DISK_RESERVE_BYTES": str(reserve_bytes)}, log=log_folder / "log"
    )


def deployed(platform: Keeping) -> Endpoint:
    endpoint = platform.deploy("tolerant", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")
    endpoint.ask({}, seconds=BUILD_S_MAX)
    return endpoint


def submitted(endpoint: Endpoint, input: Any) -> httpx2.Response:
    return endpoint.platform.http.post(f"/v2/{endpoint.id}/run", json={"input": input})


def shown(endpoint: Endpoint, job_id: str) -> dict[str, Any]:
    reply = endpoint.platform.http.get(f"/v2/{endpoint.id}/status/{job_id}")
    assert 200 == reply.status_code, reply.text
    return reply.json()


def events(log: Path, words: str) -> list[str]:
    found = [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]
    return [event for event in found if words in event]


def test_a_reserve_is_kept_for_what_was_accepted(disk: Path, ballast: Ballast, tmp_path: Path) -> None:
    with serving(disk, tmp_path, RESERVE_BYTES) as platform:
        endpoint = deployed(platform)
        running = endpoint.run({"s": 4})
        waiting, unwanted = endpoint.run({}), endpoint.run({})
        ballast.leave(RESERVE_BYTES // 2)
        refused = until(lambda: reply if (reply := submitted(endpoint, {})).status_code != 200 else None)

        assert (503, "1") == (refused.status_code, refused.headers["retry-after"])
        assert "disk is full" in refused.json()["error"]
        assert 200 == platform.http.post(f"/v2/{endpoint.id}/cancel/{unwanted}").status_code
        for job_id in (running, waiting):
            until(lambda job_id=job_id: shown(endpoint, job_id)["status"] == "COMPLETED")
        assert platform.healthy()
        assert "runyard_disk_full 1.0" in platform.http.get("/metrics").text
        ballast.go()
        until(lambda: submitted(endpoint, {}).status_code == 200)
        assert "runyard_disk_full 0.0" in platform.http.get("/metrics").text
        assert 1 == len(events(platform.log, "the disk is full"))
        assert 1 == len(events(platform.log, "the disk has room again"))
        assert 0 == platform.command("delete", "tolerant").returncode


def fill(endpoint: Endpoint, ballast: Ballast) -> None:
    """Until nothing whatever can be written: what the log beside the database has kept of the disk goes, too."""
    ballast.take_all()
    for size in (500_000, 5000, 10):
        until(lambda size=size: submitted(endpoint, {"s": 0, "pad": "x" * size}).status_code == 503)


def test_without_any_room_reads_go_on_and_no_result_is_lost(disk: Path, ballast: Ballast, tmp_path: Path) -> None:
    with serving(disk, tmp_path, 0) as platform:
        endpoint = deployed(platform)
        done = endpoint.run({})
        until(lambda: shown(endpoint, done)["status"] == "COMPLETED")
        running = endpoint.run({"s": 3, "say": "it has begun"})
        until(lambda: shown(endpoint, running)["status"] == "IN_PROGRESS")
        waiting = endpoint.run({})
        fill(endpoint, ballast)
        assert "1" == submitted(endpoint, {}).headers["retry-after"]
        until(lambda: events(platform.log, "cannot be written"))
        assert "COMPLETED" == shown(endpoint, done)["status"]
        subprocess.run(["sleep", "4"], check=True)  # The result comes meanwhile, and is held.
        assert "IN_PROGRESS" == shown(endpoint, running)["status"]
        assert platform.healthy()
        ballast.go()

        until(lambda: shown(endpoint, running)["status"] == "COMPLETED")
        until(lambda: shown(endpoint, waiting)["status"] == "COMPLETED")
        counts = platform.http.get(f"/v2/{endpoint.id}/health").json()["jobs"]
        assert (0, 0) == (counts["failed"], counts["retried"]), "nothing ran twice"
        assert 1 == len(events(platform.log, "changes to jobs cannot be written"))
        assert 0 == platform.command("delete", "tolerant").returncode


def test_without_any_room_a_server_and_a_worker_that_end_are_replaced(
    disk: Path, ballast: Ballast, tmp_path: Path
) -> None:
    with serving(disk, tmp_path, 0) as platform:
        endpoint = deployed(platform)
        done = endpoint.run({})
        until(lambda: shown(endpoint, done)["status"] == "COMPLETED")
        running = endpoint.run({"s": 10})
        until(lambda: shown(endpoint, running)["status"] == "IN_PROGRESS")
        worker = endpoint.workers()[0]["id"]
        fill(endpoint, ballast)
        server = platform.server
        for pid, _ in children(platform.pid):
            if pid != server:
                os.kill(pid, signal.SIGKILL)
        os.kill(server, signal.SIGKILL)
        until(lambda: platform.server != server and platform.healthy())

        assert "COMPLETED" == shown(endpoint, done)["status"], "reads go on"
        fill(endpoint, ballast)  # The folder of the worker that has ended was deleted, and left some room.
        ballast.go()
        until(lambda: shown(endpoint, running)["status"] == "COMPLETED", 60)
        assert worker != shown(endpoint, running)["workerId"]
        assert 200 == submitted(endpoint, {}).status_code
        assert 0 == platform.command("delete", "tolerant").returncode
