"""A lost answer costs nothing: what is sent again under its name is one job, and runs once, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.client import Endpoint as Named
from runyard.client import JobStatus
from tests.e2e.keeping import Endpoint, Keeping, keeping, until

KEY = {"Idempotency-Key": "order-17"}
NOT_ISOLATED = {"RUNYARD_ISOLATION": "off"}
"""So that handlers can note in the tests' folder that they have begun: log lines are lost with a server that is killed."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once") / "data"


@pytest.fixture(scope="module")
def platform(data: Path) -> Iterator[Keeping]:
    with keeping(data, "--store", "embedded", env=NOT_ISOLATED) as platform:
        yield platform


@pytest.fixture(scope="module")
def endpoint(platform: Keeping) -> Endpoint:
    endpoint = platform.deploy("tolerant", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")
    endpoint.ask({}, seconds=300)
    return endpoint


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def listed(endpoint: Endpoint) -> list[str]:
    return [job["id"] for job in endpoint.platform.http.get(f"/v2/{endpoint.id}/requests").json()["requests"]]


def begun(notes: Path) -> int:
    """How often a handler has begun that was told to note it here."""
    return notes.read_text().count("begun") if notes.exists() else 0


def body_of(notes: Path, seconds: float = 0.0) -> bytes:
    return json.dumps({"input": {"s": seconds, "notes": str(notes)}}).encode()


def submitted(endpoint: Endpoint, path: str, body: bytes, headers: dict[str, str]) -> socket.socket:
    """A request that has been sent whole, and whose answer nobody has read."""
    platform = endpoint.platform
    sock = socket.create_connection(("127.0.0.1", platform.port))
    named = {"Host": "yard", "Authorization": platform.key, "Content-Length": str(len(body)), **headers}
    lines = [f"POST /v2/{endpoint.id}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]
    sock.sendall("\r\n".join(lines).encode() + body)
    return sock


def test_a_job_whose_answer_was_lost_with_the_server_is_found_by_its_key(
    platform: Keeping, endpoint: Endpoint, notes: Path
) -> None:
    before = listed(endpoint)
    body = body_of(notes, 2)
    with submitted(endpoint, "/runsync", body, KEY):
        until(lambda: begun(notes))
        os.kill(platform.server, signal.SIGKILL)
    until(platform.healthy)
    replies = [
        platform.http.post(f"/v2/{endpoint.id}/{path}", content=body, headers=KEY) for path in ("run", "runsync", "run")
    ]

    new = [job_id for job_id in listed(endpoint) if job_id not in before]
    assert [new * 3, [200] * 3] == [[r.json()["id"] for r in replies], [r.status_code for r in replies]]
    assert ["COMPLETED"] * 2 == [reply.json()["status"] for reply in replies[1:]]
    assert 1 == begun(notes)
    other = platform.http.post(f"/v2/{endpoint.id}/run", json={"input": {}}, headers=KEY)
    assert 409 == other.status_code


def test_a_job_whose_submission_was_cut_off_by_a_kill_runs_once_when_it_is_sent_again(
    platform: Keeping, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Whether it was kept or not: nobody waits to see."""
    for number in range(2):
        notes, headers = tmp_path / f"{number}", {"Idempotency-Key": f"cut-{number}"}
        body = body_of(notes)
        with submitted(endpoint, "/run", body, headers):
            os.kill(platform.server, signal.SIGKILL)
        until(platform.healthy)
        reply = platform.http.post(f"/v2/{endpoint.id}/runsync", content=body, headers=headers)

        assert (200, "COMPLETED") == (reply.status_code, reply.json()["status"])
        assert 1 == begun(notes)


def test_the_client_sends_again_by_itself(platform: Keeping, endpoint: Endpoint, notes: Path) -> None:
    found: list[JobStatus] = []

    def ask() -> None:
        with Named(endpoint.id, url=platform.url, api_key=platform.key) as named:
            found.append(named.run_sync({"s": 2, "notes": str(notes)}, timeout_s=60))

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: begun(notes))
    os.kill(platform.server, signal.SIGKILL)
    asking.join(60)

    assert ["COMPLETED"] == [status.status for status in found]
    assert 1 == begun(notes)


def test_an_early_head_leads_to_the_job_when_the_wait_breaks(
    platform: Keeping, endpoint: Endpoint, notes: Path
) -> None:
    url = f"/v2/{endpoint.id}/runsync"
    with platform.http.stream("POST", url, content=body_of(notes, 3)) as reply:
        job_id = reply.headers["x-runyard-job-id"]
    shown = platform.http.get(f"/v2/{endpoint.id}/status-sync/{job_id}").json()

    assert (job_id, "COMPLETED") == (shown["id"], shown["status"])
    assert 1 == begun(notes)


def test_a_wait_behind_an_early_head_is_answered_in_a_planned_restart(platform: Keeping, endpoint: Endpoint) -> None:
    url = f"/v2/{endpoint.id}/runsync"
    with platform.http.stream("POST", url, json={"input": {"s": 4}}) as reply:
        job_id = reply.headers["x-runyard-job-id"]
        assert 0 == platform.restart().returncode
        reply.read()

    assert {"id": job_id, "status": "IN_PROGRESS"}.items() <= reply.json().items()
    assert "COMPLETED" == platform.http.get(f"/v2/{endpoint.id}/status-sync/{job_id}").json()["status"]


def test_a_stop_tells_who_waits_of_the_job_that_stays(data: Path, platform: Keeping, endpoint: Endpoint) -> None:
    """Last: it stops the platform."""
    with platform.http.stream("POST", f"/v2/{endpoint.id}/runsync", json={"input": {"s": 60}}) as reply:
        job_id = reply.headers["x-runyard-job-id"]
        assert 0 == platform.stop()
        reply.read()
    told = reply.json()
    assert (job_id, "IN_QUEUE", False) == (told["id"], told["status"], "error" in told)
    with keeping(data, "--store", "embedded") as again:
        again.http.post(f"/v2/{endpoint.id}/cancel/{job_id}")

        assert "CANCELLED" == again.http.get(f"/v2/{endpoint.id}/status/{job_id}").json()["status"]
