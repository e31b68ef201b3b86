"""What the tests with a real engine stand on is itself sound."""

import random

import pytest

from tests.docker_kit import host
from tests.docker_kit.client import EngineClient, EngineError
from tests.docker_kit.engine import Engine
from tests.docker_kit.images import NEWEST_SDK, OLD_SDK, Images
from tests.docker_kit.registry import Cut, Registry

BLOB_BYTES = 1 << 20


@pytest.fixture(scope="module")
def blob(docker: EngineClient) -> str:
    """An image that is quick to push, and not to be compressed."""
    files = {"Dockerfile": "FROM scratch\nCOPY blob /blob\n", "blob": random.Random(7).randbytes(BLOB_BYTES)}
    docker.build("runyard-test/blob:1", files)
    return "runyard-test/blob:1"


def test_a_container_runs_python(docker: EngineClient, images: Images) -> None:
    source = "import ssl, sqlite3; print(len(ssl.create_default_context().get_ca_certs()) > 9)"

    assert "True\n" == docker.output(images.base(), "python", "-c", source)
    assert "sh works\n" == docker.output(images.base(), "sh", "-c", "echo sh works")


@pytest.mark.parametrize("requirement", [NEWEST_SDK, OLD_SDK])
def test_a_worker_image_has_the_official_sdk(docker: EngineClient, images: Images, requirement: str) -> None:
    handler = "import runpod\nprint(runpod.__version__, runpod.serverless.start.__name__)\n"
    said = docker.output(images.worker(handler, requirement))

    assert said.split() == [said.split()[0], "start"]
    assert said.startswith(requirement.partition("=")[2].lstrip("=").rpartition(".")[0]), said


def test_a_command_runs_inside_a_container(docker: EngineClient, images: Images) -> None:
    container = docker.run(images.base(), "sleep", "60")

    assert (3, "inside\n") == docker.exec(container, "sh", "-c", "echo inside; exit 3")
    docker.remove(container)
    assert [] == docker.containers(id=[container])


@pytest.mark.parametrize("kill", [False, True], ids=["graceful", "kill -9"])
def test_the_engine_comes_back_with_what_it_had(
    engine: Engine, docker: EngineClient, images: Images, *, kill: bool
) -> None:
    container = docker.run(images.base(), "sleep", "60", StopTimeout=1)
    pid = engine.pid
    engine.restart(kill=kill)

    assert engine.pid != pid
    assert [container] == [each["Id"] for each in docker.containers(id=[container])]
    assert docker.has_image(images.base())
    docker.remove(container)


def test_containers_outlive_an_engine_that_restores_them(engine: Engine, docker: EngineClient, images: Images) -> None:
    with engine.live_restore():
        container = docker.run(images.base(), "sh", "-c", "while :; do echo tick; sleep 0.1; done")
        pid = docker.state(container)["Pid"]
        engine.restart(kill=True)

        assert pid == docker.state(container)["Pid"]
        docker.remove(container)


def test_a_pushed_image_can_be_pulled(docker: EngineClient, registry: Registry, blob: str) -> None:
    reference = registry.push(docker, blob, "blob:pushed")
    docker.pull(reference)

    assert docker.has_image(reference)


def test_a_registry_that_is_away_comes_back(docker: EngineClient, registry: Registry, blob: str) -> None:
    reference = registry.push(docker, blob, "blob:away")
    with registry.down(), pytest.raises(EngineError, match="connection refused"):
        docker.pull(reference)

    docker.pull(reference)


def test_a_private_registry_refuses_and_accepts(docker: EngineClient, private_registry: Registry, blob: str) -> None:
    reference = private_registry.push(docker, blob, "blob:secret")
    with pytest.raises(EngineError, match="no basic auth credentials"):
        docker.pull(reference)
    with pytest.raises(EngineError, match="unauthorized"):
        docker.pull(reference, ("tester", "wrong"))

    docker.pull(reference, private_registry.login)


def test_a_registry_dies_in_the_middle_of_a_pull(docker: EngineClient, registry: Registry, cut: Cut) -> None:
    files = {"Dockerfile": "FROM scratch\nCOPY blob /blob\n", "blob": random.Random(8).randbytes(BLOB_BYTES)}
    docker.build("runyard-test/blob:2", files)
    registry.push(docker, "runyard-test/blob:2", "blob:cut")
    docker.untag("runyard-test/blob:2")
    cut.cut_after = BLOB_BYTES // 2
    with pytest.raises(EngineError):
        docker.pull(f"{cut.host}/blob:cut")
    assert cut.is_cut

    cut.heal()
    docker.pull(f"{cut.host}/blob:cut")


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_nothing_is_left_on_the_machine(engine: Engine, docker: EngineClient, images: Images, *, kill: bool) -> None:
    """Whatever was going on, and even with nobody to ask for an orderly end."""
    before = engine.traces_before
    network = docker.create_network("isolated", internal=True)
    running = docker.run(images.base(), "sleep", "60", HostConfig={"NetworkMode": network, "Memory": 1 << 28})
    docker.run(images.base(), "sleep", "60", HostConfig={"PortBindings": {"80/tcp": [{}]}}, ExposedPorts={"80/tcp": {}})
    docker.call("POST", f"/containers/{running}/pause")
    assert set() != host.traces() - before
    if kill:
        engine.kill()
    engine.stop()
    left = host.traces() - before
    engine.start()

    assert set() == left
    engine.clear(docker)
