"""A whole platform whose workers are containers with the official SDK: jobs survive whatever is restarted."""

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.adapters.stores.control import SqliteControl
from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import Endpoint, Release, ReleaseId, RunSpec
from runyard.domain.job import EndpointId
from tests.builders import a_scaling
from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.images import NEWEST_SDK, OLD_SDK, Images
from tests.docker_kit.workers import SUBNETS
from tests.e2e.keeping import Endpoint as Deployed
from tests.e2e.keeping import Keeping, keeping, until

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
def platform(engine: Engine, docker: EngineClient, images: Images, data: Path) -> Iterator[Keeping]:
    """One endpoint for each SDK, deployed before it starts."""
    for name, requirement in (("new", NEWEST_SDK), ("old", OLD_SDK)):
        asyncio.run(deploy(data, name, images.worker(HANDLER, requirement)))
    with keeping(data, env=environment_of(engine)) as platform:
        yield platform
    assert [] == docker.containers(label=["runyard.worker"])
    assert [] == docker.networks()


def environment_of(engine: Engine) -> dict[str, str]:
    return {"RUNYARD_DOCKER_HOST": engine.url, "RUNYARD_DOCKER_SUBNETS": str(SUBNETS)}


async def deploy(data: Path, name: str, image: str) -> None:
    control = SqliteControl(data / "control.db")
    run = RunSpec(container=ContainerSpec(image=image))
    endpoint_id = EndpointId(name)
    release = Release(id=ReleaseId(f"release-{name}"), endpoint_id=endpoint_id, version=1, run=run, created_at=1.0)
    scaling = a_scaling(workers_min=0, workers_max=1)
    await control.add_endpoint(Endpoint(id=endpoint_id, name=name, scaling=scaling, release=release, created_at=1.0))
    await control.close()


def status(platform: Keeping, endpoint: str, job_id: str) -> str:
    return platform.http.get(f"/v2/{endpoint}/status/{job_id}").json()["status"]


def detail(platform: Keeping, endpoint: str, job_id: str) -> dict[str, object]:
    return platform.http.get(f"/v2/{endpoint}/requests/{job_id}").json()


@pytest.mark.parametrize("sdk", ["new", "old"])
def test_a_container_serves_jobs_from_zero(platform: Keeping, sdk: str) -> None:
    assert {"echo": "hello"} == Deployed(platform, sdk).ask({"say": "hello"}, seconds=JOB_S_MAX)


def test_a_worker_with_anothers_name_is_answered_401(platform: Keeping, docker: EngineClient) -> None:
    Deployed(platform, "new").ask({"say": "hello"}, seconds=JOB_S_MAX)
    job_id = Deployed(platform, "new").run({"say": "x", "s": 5})
    until(lambda: status(platform, "new", job_id) == "IN_PROGRESS" or None)
    (worker,) = docker.containers(label=["runyard.worker"])
    plane = worker["Labels"]["runyard.plane"]
    forged = f"{plane}/v2/new/job-done/forged/{job_id}?gpu=none"
    request = urllib.request.Request(forged, data=json.dumps({"output": "mine"}).encode(), method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)

    until(lambda: status(platform, "new", job_id) == "COMPLETED" or None)


def test_a_job_survives_a_restart_of_the_server_in_its_worker(platform: Keeping, docker: EngineClient) -> None:
    Deployed(platform, "new").ask({"say": "warm"}, seconds=JOB_S_MAX)
    job_id = Deployed(platform, "new").run({"say": "on", "s": 4})
    until(lambda: status(platform, "new", job_id) == "IN_PROGRESS" or None)
    workers = {each["Id"] for each in docker.containers(label=["runyard.worker"])}
    assert 0 == platform.restart().returncode

    until(lambda: status(platform, "new", job_id) == "COMPLETED" or None)
    assert workers == {each["Id"] for each in docker.containers(label=["runyard.worker"])}
    assert [] == detail(platform, "new", job_id).get("attempts", [])


@pytest.mark.parametrize("both", [True, False], ids=["all of it", "its keeper"])
def test_a_job_survives_the_death_of_the_platform_in_its_worker(
    platform: Keeping, docker: EngineClient, engine: Engine, data: Path, *, both: bool
) -> None:
    Deployed(platform, "new").ask({"say": "warm"}, seconds=JOB_S_MAX)
    job_id = Deployed(platform, "new").run({"say": "on", "s": 10})
    until(lambda: status(platform, "new", job_id) == "IN_PROGRESS" or None)
    workers = {each["Id"] for each in docker.containers(label=["runyard.worker"])}
    server = platform.server
    for pid in (platform.pid, server) if both else (platform.pid,):
        os.kill(pid, signal.SIGKILL)
    platform.process.wait()
    until(lambda: not Path(f"/proc/{server}").exists() or None)

    with keeping(data, env=environment_of(engine)) as successor:
        assert "IN_PROGRESS" == status(successor, "new", job_id)
        assert workers == {each["Id"] for each in docker.containers(label=["runyard.worker"])}
        # A stock SDK that posts its result on a connection which has died drops it; then the job is done again.
        until(lambda: status(successor, "new", job_id) == "COMPLETED" or None, JOB_S_MAX)
        assert {"echo": "again"} == Deployed(successor, "new").ask({"say": "again"}, seconds=JOB_S_MAX)


@pytest.mark.parametrize("kill", [False, True], ids=["graceful", "kill -9"])
def test_a_restart_of_the_engine_loses_no_job(platform: Keeping, engine: Engine, *, kill: bool) -> None:
    Deployed(platform, "new").ask({"say": "warm"}, seconds=JOB_S_MAX)
    jobs = [Deployed(platform, "new").run({"say": n, "s": 2}) for n in range(3)]
    until(lambda: status(platform, "new", jobs[0]) == "IN_PROGRESS" or None)
    engine.restart(kill=kill)

    for job_id in jobs:
        until(lambda job_id=job_id: status(platform, "new", job_id) == "COMPLETED" or None, JOB_S_MAX)
    attempts = [attempt for job_id in jobs for attempt in detail(platform, "new", job_id).get("attempts", [])]
    assert not any(attempt["counted"] for attempt in attempts), attempts
