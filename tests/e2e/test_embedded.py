"""Jobs in the embedded store outlive every server that served them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.keeping import Endpoint, Keeping, keeping, until


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "data"


@pytest.fixture
def platform(data: Path) -> Iterator[Keeping]:
    with keeping(data, "--store", "embedded") as platform:
        yield platform


@pytest.fixture
def endpoint(platform: Keeping) -> Endpoint:
    return platform.deploy("tolerant", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")


def state(endpoint: Endpoint, job_id: str) -> str:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/status/{job_id}").json()["status"]


def test_no_job_and_no_result_is_lost_with_a_killed_server(platform: Keeping, endpoint: Endpoint) -> None:
    done = endpoint.run({})
    until(lambda: state(endpoint, done) == "COMPLETED", 300)
    running, *waiting = [endpoint.run({"s": 2 if number == 0 else 0}) for number in range(20)]
    until(lambda: state(endpoint, running) == "IN_PROGRESS")
    os.kill(platform.server, signal.SIGKILL)
    until(platform.healthy)

    assert "COMPLETED" == state(endpoint, done)
    until(lambda: all(state(endpoint, job_id) == "COMPLETED" for job_id in [running, *waiting]))


def test_no_job_is_lost_in_a_planned_restart(platform: Keeping, endpoint: Endpoint) -> None:
    endpoint.ask({}, seconds=60)
    jobs = [endpoint.run({"s": 0.05}) for _ in range(40)]
    assert 0 == platform.restart().returncode

    until(lambda: all(state(endpoint, job_id) == "COMPLETED" for job_id in jobs))
    counts = platform.http.get(f"/v2/{endpoint.id}/health").json()["jobs"]
    assert (0, 0) == (counts["failed"], counts["retried"]), "nothing ran twice"


def test_what_waited_when_the_platform_was_stopped_is_done_when_it_is_back(data: Path) -> None:
    with keeping(data, "--store", "embedded") as platform:
        endpoint = platform.deploy("tolerant", "--workers-min", "0", "--workers-max", "0")
        jobs = [endpoint.run({}) for _ in range(5)]
    with keeping(data, "--store", "embedded") as platform:
        endpoint = platform.deploy("tolerant", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")

        until(lambda: all(state(endpoint, job_id) == "COMPLETED" for job_id in jobs))
