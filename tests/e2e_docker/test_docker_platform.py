"""A whole platform whose workers are containers with the official SDK: jobs survive whatever is restarted."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.images import DOCKERFILE, NEWEST_SDK, OLD_SDK, Images
from tests.docker_kit.workers import SUBNETS
from tests.e2e.keeping import Endpoint, Keeping, keeping, until

HANDLER = """
import time
import runpod

def handler(job):
    time.sleep(job["input"].get("s", 0))
    return {"echo": job["input"]["say"]}

runpod.serverless.start({"handler": handler})
"""
JOB_S_MAX = 90.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def platform(engine: Engine, docker: EngineClient, data: Path) -> Iterator[Keeping]:
    with keeping(data, env=environment_of(engine)) as platform:
        yield platform
    assert [] == docker.containers(label=["runyard.worker"])
    assert [] == docker.networks()


@pytest.fixture
def endpoint(platform: Keeping, images: Images) -> Endpoint:
    return deploy(platform, images.worker(HANDLER))


def environment_of(engine: Engine) -> dict[str, str]:
    return {"RUNYARD_DOCKER_HOST": engine.url, "RUNYARD_DOCKER_SUBNETS": str(SUBNETS)}


def deploy(platform: Keeping, target: str) -> Endpoint:
    done = platform.command("deploy", target, "--name", "contained", "--workers-max", "1", "--wait", "--json")
    assert 0 == done.returncode, done.stderr
    return Endpoint(platform, json.loads(done.stdout)["id"])


def status(endpoint: Endpoint, job_id: str) -> str:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/status/{job_id}").json()["status"]


def detail(endpoint: Endpoint, job_id: str) -> dict[str, object]:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/requests/{job_id}").json()


@pytest.mark.parametrize("sdk", [NEWEST_SDK, OLD_SDK], ids=["new", "old"])
def test_an_image_that_is_deployed_serves_jobs_from_zero(platform: Keeping, images: Images, sdk: str) -> None:
    endpoint = deploy(platform, images.worker(HANDLER, sdk))
    assert {"echo": "hello"} == endpoint.ask({"say": "hello"}, seconds=JOB_S_MAX)


def test_a_folder_with_a_dockerfile_is_built_and_serves_jobs(platform: Keeping, images: Images, tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE.format(sdk=images.sdk()))
    (folder / "handler.py").write_text(HANDLER)

    assert {"echo": "built"} == deploy(platform, str(folder)).ask({"say": "built"}, seconds=JOB_S_MAX)


def test_a_worker_with_anothers_name_is_answered_401(endpoint: Endpoint, docker: EngineClient) -> None:
    endpoint.ask({"say": "hello"}, seconds=JOB_S_MAX)
    job_id = endpoint.run({"say": "x", "s": 5})
    until(lambda: status(endpoint, job_id) == "IN_PROGRESS" or None)
    (worker,) = docker.containers(label=["runyard.worker"])
    plane = worker["Labels"]["runyard.plane"]
    forged = f"{plane}/v2/{endpoint.id}/job-done/forged/{job_id}?gpu=none"
    request = urllib.request.Request(forged, data=json.dumps({"output": "mine"}).encode(), method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)

    until(lambda: status(endpoint, job_id) == "COMPLETED" or None)


def test_a_job_survives_a_restart_of_the_server_in_its_worker(endpoint: Endpoint, docker: EngineClient) -> None:
    endpoint.ask({"say": "warm"}, seconds=JOB_S_MAX)
    job_id = endpoint.run({"say": "on", "s": 4})
    until(lambda: status(endpoint, job_id) == "IN_PROGRESS" or None)
    workers = {each["Id"] for each in docker.containers(label=["runyard.worker"])}
    assert 0 == endpoint.platform.restart().returncode

    until(lambda: status(endpoint, job_id) == "COMPLETED" or None)
    assert workers == {each["Id"] for each in docker.containers(label=["runyard.worker"])}
    assert [] == detail(endpoint, job_id).get("attempts", [])


@pytest.mark.parametrize("both", [True, False], ids=["all of it", "its keeper"])
def test_a_job_survives_the_death_of_the_platform_in_its_worker(
    endpoint: Endpoint, docker: EngineClient, engine: Engine, data: Path, *, both: bool
) -> None:
    platform = endpoint.platform
    endpoint.ask({"say": "warm"}, seconds=JOB_S_MAX)
    job_id = endpoint.run({"say": "on", "s": 10})
    until(lambda: status(endpoint, job_id) == "IN_PROGRESS" or None)
    workers = {each["Id"] for each in docker.containers(label=["runyard.worker"])}
    server = platform.server
    for pid in (platform.pid, server) if both else (platform.pid,):
        os.kill(pid, signal.SIGKILL)
    platform.process.wait()
    until(lambda: not Path(f"/proc/{server}").exists() or None)

    with keeping(data, env=environment_of(engine)) as successor:
        again = Endpoint(successor, endpoint.id)
        assert "IN_PROGRESS" == status(again, job_id)
        assert workers == {each["Id"] for each in docker.containers(label=["runyard.worker"])}
        # A stock SDK that posts its result on a connection which has died drops it; then the job is done again.
        until(lambda: status(again, job_id) == "COMPLETED" or None, JOB_S_MAX)
        assert {"echo": "again"} == again.ask({"say": "again"}, seconds=JOB_S_MAX)


@pytest.mark.parametrize("kill", [False, True], ids=["graceful", "kill -9"])
def test_a_restart_of_the_engine_loses_no_job(endpoint: Endpoint, engine: Engine, *, kill: bool) -> None:
    endpoint.ask({"say": "warm"}, seconds=JOB_S_MAX)
    jobs = [endpoint.run({"say": n, "s": 2}) for n in range(3)]
    until(lambda: status(endpoint, jobs[0]) == "IN_PROGRESS" or None)
    engine.restart(kill=kill)

    for job_id in jobs:
        until(lambda job_id=job_id: status(endpoint, job_id) == "COMPLETED" or None, JOB_S_MAX)
    attempts = [attempt for job_id in jobs for attempt in detail(endpoint, job_id).get("attempts", [])]
    assert not any(attempt["counted"] for attempt in attempts), attempts
