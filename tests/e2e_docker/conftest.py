"""A data directory with a runtime at the tests' engine; nothing of it may be left."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.adapters.runtimes.docker import DockerRuntime
from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.images import Images
from tests.docker_kit.workers import Site


@pytest.fixture
async def site(engine: Engine, docker: EngineClient, images: Images, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(engine.url, docker, tmp_path, images.base())
    yield site
    await site.close()
    assert [] == docker.containers(label=["runyard.worker"])
    assert [] == docker.networks()


@pytest.fixture
def runtime(site: Site) -> DockerRuntime:
    return site.runtime()
