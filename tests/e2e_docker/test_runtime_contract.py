"""What every `WorkerRuntime` promises, of containers: here and not in `tests/contract`, since it takes an engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.test_runtime_contract import *  # noqa: F403
from tests.contract.test_runtime_contract import HANDLERS, Fleet
from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.images import Images
from tests.docker_kit.workers import Site


@pytest.fixture
async def fleet(engine: Engine, docker: EngineClient, images: Images, tmp_path: Path) -> AsyncIterator[Fleet]:
    site = Site(engine.url, docker, tmp_path, images.base())
    runtime = site.runtime()
    yield Fleet(runtime, site.listener, {name: site.python(source) for name, source in HANDLERS.items()})
    await runtime.close()
    assert [] == docker.containers(label=["runyard.worker"])
    assert [] == [network["Name"] for network in docker.networks()]
