"""Workers as containers of Podman's Docker-compatible socket: what every `WorkerRuntime` promises, and nothing beyond.

Podman takes more of a machine than a test can give back (firewall chains, mounts), so this runs where one is named:

    podman system service --time=0 unix:///run/podman/podman.sock &
    RUNYARD_TEST_PODMAN=/run/podman/podman.sock pytest tests/e2e_docker/test_podman.py
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.docker.engine import Engine as Client
from runyard.adapters.docker.images import Images as OurImages
from runyard.adapters.docker.spec import Policy
from runyard.adapters.runtimes.docker import DockerRuntime
from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from tests.contract.test_runtime_contract import *  # noqa: F403
from tests.contract.test_runtime_contract import ENDPOINT, HANDLERS, Fleet
from tests.docker_kit.client import EngineClient
from tests.docker_kit.images import Images
from tests.docker_kit.workers import SUBNETS, Planes, no_credential
from tests.runtime_kit import Listener

SOCKET = os.environ.get("RUNYARD_TEST_PODMAN", "")
pytestmark = pytest.mark.skipif(not SOCKET, reason="no Podman is named (RUNYARD_TEST_PODMAN)")


async def endpoints() -> list[str]:
    return [ENDPOINT]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    with EngineClient(Path(SOCKET)) as podman:
        image = Images(podman).base()
        client, listener = Client(f"unix://{SOCKET}"), Listener()
        runtime = DockerRuntime(
            tmp_path,
            client,
            OurImages(client, FolderBlobs(tmp_path / "blobs"), tmp_path / "images", no_credential),
            Planes(),
            listener,
            endpoints=endpoints,  # type: ignore[arg-type]
            policy=Policy(),
            subnets=SUBNETS,
        )
        runs = {
            name: RunSpec(container=ContainerSpec(image=image, args=("python", "-u", "-c", source)))
            for name, source in HANDLERS.items()
        }
        yield Fleet(runtime, listener, runs)
        await runtime.close()
        assert [] == podman.containers(label=["runyard.worker"])
