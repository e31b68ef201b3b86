"""Real Docker for tests. One engine for the whole session, started when a test first asks for it.

    engine              a Docker engine of the tests' own (`Engine`): url, client(), restart(), down(), live_restore(), log()
    docker              a client of it (`EngineClient`)
    images              what makes images (`Images`): base(), sdk(), worker(), built()
    registry            a registry without a password (`Registry`): host, push(), down()
    private_registry    one with a password: `registry.LOGIN`
    cut                 a way to `registry` that breaks off after so many bytes (`Cut`): host, cut_after, heal()

Where no engine can be had, what asks for one is skipped, and says why. The log of the engine is shown with a failure.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import AnotherEngine, Engine, running, unavailable
from tests.docker_kit.images import Images
from tests.docker_kit.registry import LOGIN, Cut, Registry, serving, through_a_cut

ENGINE = pytest.StashKey[Engine]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    engine = item.session.stash.get(ENGINE, None)
    if report.failed and engine is not None and "engine" in getattr(item, "fixturenames", ()):
        report.sections.append(("log of the engine", engine.log()))
    return report


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if reason := unavailable():
        pytest.skip(reason)
    try:
        with running() as engine:
            request.session.stash[ENGINE] = engine
            yield engine
            del request.session.stash[ENGINE]
    except AnotherEngine as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def docker(engine: Engine) -> Iterator[EngineClient]:
    with engine.client() as client:
        yield client


@pytest.fixture(scope="session")
def images(docker: EngineClient) -> Images:
    return Images(docker)


@pytest.fixture(scope="session")
def registry(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(tmp_path_factory.mktemp("private-registry"), login=LOGIN) as registry:
        yield registry


@pytest.fixture
def cut(registry: Registry) -> Iterator[Cut]:
    with through_a_cut(registry) as cut:
        yield cut
