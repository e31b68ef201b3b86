"""What a job loses, and what it does not, when its worker or the whole platform goes away under it: real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.keeping import BUILD_S_MAX, Endpoint, Keeping, keeping, until

ALWAYS_ONE = ("--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an endpoint whose environment is built, and nothing that runs."""
    data = tmp_path_factory.mktemp("attempts") / "data"
    with keeping(data, "--store", "embedded") as platform:
        platform.deploy("plain", *ALWAYS_ONE).ask({}, seconds=BUILD_S_MAX)
    return data


def the_endpoint(platform: Keeping) -> Endpoint:
    [endpoint] = platform.http.get("/v2/serverless").json()["endpoints"]
    return Endpoint(platform, endpoint["id"])


def detail(endpoint: Endpoint, job_id: str) -> dict[str, Any]:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/requests/{job_id}").json()


def job_that_is(endpoint: Endpoint, job_id: str, status: str) -> dict[str, Any]:
    """The job once it is there."""
    return until(lambda: found if (found := detail(endpoint, job_id))["status"] == status else None, 60)


@pytest.mark.row("F034")
def test_a_job_that_ends_its_worker_each_time_is_put_aside_with_the_evidence(data: Path) -> None:
    with keeping(data, "--store", "embedded") as platform:
        endpoint = the_endpoint(platform)
        job_id = endpoint.run({"say": "last words", "exits": 3})
        job = job_that_is(endpoint, job_id, "FAILED")
        dead = platform.command("jobs", "plain", "--dead")
        refused = platform.command("retry", "plain", job_id)
        again = platform.command("retry", "plain", job_id, "--force")
        second = job_that_is(endpoint, job_id, "FAILED")

        assert "quarantined: 3 workers died with this job in hand" in job["error"]
        assert [("worker_died", 3)] * 3 == [(attempt["cause"], attempt["exitCode"]) for attempt in job["attempts"]]
        assert all("last words" in attempt["lastLines"] for attempt in job["attempts"])
        assert 3 == len({attempt["workerId"] for attempt in job["attempts"]})
        assert f"{job_id}  FAILED, quarantined" in dead.stdout
        assert "worker_died, exit code 3" in dead.stdout
        assert (1, True) == (refused.returncode, "--force" in refused.stderr)
        assert (0, f"{job_id} IN_QUEUE\n") == (again.returncode, again.stdout)
        assert {1, 2} == {attempt["run"] for attempt in second["attempts"]}


@pytest.mark.row("F034")
def test_a_job_that_ran_when_the_platform_was_stopped_loses_no_attempt(data: Path) -> None:
    with keeping(data, "--store", "embedded", env={"RUNYARD_ATTEMPTS_MAX": "1"}) as platform:
        endpoint = the_endpoint(platform)
        job_id = endpoint.run({"s": 5})
        job_that_is(endpoint, job_id, "IN_PROGRESS")
    with keeping(data, "--store", "embedded", env={"RUNYARD_ATTEMPTS_MAX": "1"}) as platform:
        job = job_that_is(the_endpoint(platform), job_id, "COMPLETED")

    assert [("worker_stopped", False)] == [(attempt["cause"], attempt["counted"]) for attempt in job["attempts"]]


@pytest.mark.row("F034")
def test_a_job_that_ran_when_the_keeper_was_killed_loses_no_attempt(data: Path) -> None:
    with keeping(data, "--store", "embedded", env={"RUNYARD_ATTEMPTS_MAX": "1"}) as platform:
        endpoint = the_endpoint(platform)
        job_id = endpoint.run({"s": 5})
        job_that_is(endpoint, job_id, "IN_PROGRESS")
        os.kill(platform.pid, signal.SIGKILL)
        platform.process.wait()
    with keeping(data, "--store", "embedded", env={"RUNYARD_ATTEMPTS_MAX": "1"}) as platform:
        job = job_that_is(the_endpoint(platform), job_id, "COMPLETED")

    assert [("platform_died", False)] == [(attempt["cause"], attempt["counted"]) for attempt in job["attempts"]]


def test_a_worker_that_dies_while_there_is_no_server_has_died_of_itself(data: Path) -> None:
    with keeping(data, "--store", "embedded") as platform:
        endpoint = the_endpoint(platform)
        job_id = endpoint.run({"s": 2, "exits": 4})
        job_that_is(endpoint, job_id, "IN_PROGRESS")
        server = platform.server
        os.kill(server, signal.SIGSTOP)
        time.sleep(3)  # It ends meanwhile.
        os.kill(server, signal.SIGKILL)
        until(platform.healthy)
        attempt = until(lambda: detail(endpoint, job_id).get("attempts"))[0]
        platform.command("cancel", "plain", job_id)

    assert ("worker_died", 4, True) == (attempt["cause"], attempt["exitCode"], attempt["counted"])
