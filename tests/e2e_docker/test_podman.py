"""Workers as containers of Podman's Docker-compatible socket: what every `WorkerRuntime` promises, and nothing beyond.

Podman takes more of a machine than a test can give back (firewall chains, mounts), so this runs where one is named:

    podman system service --time=0 unix:///run/podman/podman.sock &
    RUNYARD_TEST_PODMAN=/run/podman/podman.sock pytest tests/e2e_docker/test_podman.py
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.test_runtime_contract import *  # noqa: F403
from tests.contract.test_runtime_contract import HANDLERS, Fleet
from tests.docker_kit.client import EngineClient
from tests.docker_kit.images import Images
from tests.docker_kit.workers import Site

SOCKET = os.environ.get("RUNYARD_TEST_PODMAN", "")
pytestmark = pytest.mark.skipif(not SOCKET, reason="no Podman is named (RUNYARD_TEST_PODMAN)")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    with EngineClient(Path(SOCKET)) as podman:
        site = Site(f"unix://{SOCKET}", podman, tmp_path, Images(podman).base())
        runtime = site.runtime()
        yield Fleet(runtime, site.listener, {name: site.python(source) for name, source in HANDLERS.items()})
        await runtime.close()
        assert [] == podman.containers(label=["runyard.worker"])
