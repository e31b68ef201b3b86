"""Large inputs that wait: on disk and not in memory, over a restart and a backup, and whole when their job is taken."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.keeping import BUILD_S_MAX, Endpoint, Keeping, ended, forget_peak, keeping, peak_kb, until

MB = 1_000_000
JOBS = 30
GROWTH_KB_MAX = 96 * 1024
"""Each is read as a whole before it is written, and some at once."""
DIGEST = hashlib.sha256(("é" * MB).encode()).hexdigest()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Without a worker, until a test wants one."""
    with keeping(tmp_path_factory.mktemp("inputs") / "data") as platform:
        yield platform.deploy("sizes", "--workers-min", "0", "--workers-max", "0", handler="sizes.py")


def files(platform: Keeping) -> list[Path]:
    return list((platform.data / "payloads").iterdir())


def staff(endpoint: Endpoint) -> None:
    reply = endpoint.platform.http.patch(f"/v2/serverless/{endpoint.id}", json={"workers": {"min": 1, "max": 1}})
    assert 200 == reply.status_code, reply.text


def detail(endpoint: Endpoint, job_id: str) -> dict[str, object]:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/requests/{job_id}").json()


def test_inputs_of_240_mb_wait_without_taking_memory_and_then_run(idle: Endpoint) -> None:
    platform = idle.platform
    idle.run({"text": "x" * 8 * MB})  # What is loaded once is loaded.
    forget_peak(platform.server)
    before = peak_kb(platform.server)
    job_ids = [idle.run({"text": f"{number:04}" * 2 * MB}) for number in range(JOBS)]
    growth = peak_kb(platform.server) - before
    print(f"server's peak: {before} KB before, {growth} KB more")  # noqa: T201

    assert growth < GROWTH_KB_MAX
    assert JOBS + 1 == len(files(platform))
    assert 0 == platform.restart().returncode
    staff(idle)
    for number, job_id in enumerate(job_ids):
        assert "COMPLETED" == ended(idle, job_id, BUILD_S_MAX)["status"]
        text = f"{number:04}" * 2 * MB
        assert {"length": 8 * MB, "digest": hashlib.sha256(text.encode()).hexdigest()} == detail(idle, job_id)["output"]
    assert text == detail(idle, job_ids[-1])["input"]["text"]  # type: ignore[index]


@pytest.mark.parametrize("path", ["runsync", "openai/v1/x"])
def test_who_waits_for_a_large_input_takes_no_memory(tmp_path: Path, path: str) -> None:
    with keeping(tmp_path / "data") as platform:
        endpoint = platform.deploy("sizes", "--workers-min", "0", "--workers-max", "0", handler="sizes.py")
        body = json.dumps({"input": {"text": "x" * 8 * MB}})
        clients = [http.client.HTTPConnection("127.0.0.1", platform.port, timeout=60) for _ in range(20)]
        server = platform.server
        before = peak_kb(server)
        for number, client in enumerate(clients, 1):
            client.request("POST", f"/v2/{endpoint.id}/{path}", body, {"Authorization": platform.key})
            until(lambda number=number: waiting(endpoint) == number)
        growth = peak_kb(server) - before
        print(f"server's peak: {before} KB before, {growth} KB more")  # noqa: T201
        for client in clients:
            client.close()

    assert growth < GROWTH_KB_MAX


def waiting(endpoint: Endpoint) -> int:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/health").json()["jobs"]["inQueue"]


def test_a_job_that_waits_in_a_backup_has_its_input_and_runs_where_it_is_restored(tmp_path: Path) -> None:
    data, backup, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with keeping(data) as platform:
        endpoint = platform.deploy("sizes", "--workers-min", "0", "--workers-max", "0", handler="sizes.py")
        job_id = endpoint.run({"text": "é" * MB})
        assert 0 == platform.command("backup", str(backup), "--data-dir", str(data)).returncode
        assert 0 == platform.command("restore", str(backup), "--data-dir", str(again)).returncode
    with keeping(again) as platform:
        there = Endpoint(platform, endpoint.id)
        staff(there)
        assert "COMPLETED" == ended(there, job_id, BUILD_S_MAX)["status"]

        assert {"length": MB, "digest": DIGEST} == detail(there, job_id)["output"]


def test_a_job_whose_input_was_deleted_fails_and_says_so(tmp_path: Path) -> None:
    with keeping(tmp_path / "data") as platform:
        endpoint = platform.deploy("sizes", "--workers-min", "0", "--workers-max", "0", handler="sizes.py")
        job_id = endpoint.run({"text": "é" * MB})
        [file] = files(platform)
        size = file.stat().st_size
        file.unlink()
        staff(endpoint)
        assert "FAILED" == ended(endpoint, job_id, BUILD_S_MAX)["status"]

        error = detail(endpoint, job_id)["error"]
        assert f"the job's input is lost: a payload of {size} bytes" in str(error)
        assert file.name in str(error)
