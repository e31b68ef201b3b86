"""One platform for the whole session. Endpoints are deployed when a test first asks for them, and stay.

What has to wait long begins before the first test and is looked at by the last ones (`EARLY`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runpod

from tests.compat.early import LOST, Doomed, Held, begin_idling
from tests.compat.gate import Gate
from tests.compat.platform import BUILD_S_MAX, LOG_LINES, Endpoint, Platform, running

HERE = Path(__file__).parent
EARLY = ("idle", "held", "doomed")
"""Fixtures that begin something long."""
PLATFORM = pytest.StashKey[Platform]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [place for place, item in enumerate(items) if HERE in item.path.parents]
    in_order = sorted((items[place] for place in places), key=_is_late)
    for place, item in zip(places, in_order, strict=True):
        items[place] = item


def _is_late(item: pytest.Item) -> bool:
    return not set(EARLY).isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    platform = item.session.stash.get(PLATFORM, None)
    if report.failed and platform is not None:
        report.sections.append(("log of the platform", platform.log()))
        endpoints = (value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Endpoint))
        report.sections += [
            (f"log of {endpoint.name}", "\n".join(endpoint.logs(tail=LOG_LINES))) for endpoint in endpoints
        ]
    return report


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with running() as platform, pytest.MonkeyPatch.context() as patch:
        patch.setattr(runpod, "endpoint_url_base", f"{platform.url}/v2")
        patch.setattr(runpod, "api_key", platform.key)
        request.session.stash[PLATFORM] = platform
        yield platform
        del request.session.stash[PLATFORM]


@pytest.fixture(scope="session", autouse=True)
def _early(request: pytest.FixtureRequest) -> None:
    for name in EARLY:
        if any(name in getattr(item, "fixturenames", ()) for item in request.session.items):
            request.getfixturevalue(name)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture(scope="session")
def idle(platform: Platform) -> Endpoint:
    return begin_idling(platform)


@pytest.fixture(scope="session")
def held(platform: Platform) -> Held:
    return Held.begin(platform)


@pytest.fixture(scope="session")
def doomed(platform: Platform) -> dict[str, Doomed]:
    return {way: Doomed.begin(platform, way) for way in LOST}


@pytest.fixture(scope="session")
def outcomes(platform: Platform) -> Endpoint:
    """Plain handlers that end in every way."""
    return warm(platform, "outcomes.py", "outcomes", {"do": "return", "value": "warm"})


@pytest.fixture(scope="session")
def awaited(platform: Platform) -> Endpoint:
    """Async handlers, four at once in one worker."""
    return warm(platform, "awaited.py", "awaited", {"do": "return", "value": "warm"}, "--env", "CONCURRENCY=4")


@pytest.fixture(scope="session")
def refreshing(platform: Platform) -> Endpoint:
    return warm(platform, "refreshing.py", "refreshing", {"n": 0})


@pytest.fixture(scope="session")
def generating(platform: Platform) -> Endpoint:
    return warm(platform, "generating.py", "generating", {"chunks": []})


@pytest.fixture(scope="session")
def aggregating(platform: Platform) -> Endpoint:
    return warm(platform, "generating.py", "aggregating", {"chunks": []}, "--env", "AGGREGATE=1")


@pytest.fixture(scope="session")
def async_generating(platform: Platform) -> Endpoint:
    return warm(platform, "async_generating.py", "async-generating", {"chunks": []})


@pytest.fixture(scope="session")
def talking(platform: Platform) -> Endpoint:
    """A model, as worker-vllm serves one."""
    return warm(platform, "talking.py", "talking", {"openai_route": "/v1/models"})


def warm(platform: Platform, handler: str, name: str, first: dict[str, Any], *flags: str) -> Endpoint:
    """An endpoint whose one worker is up when the first test comes, and stays."""
    endpoint = platform.deploy(handler, name, "--workers-max", "1", "--idle-timeout", "600", *flags)
    assert "COMPLETED" == endpoint.ask(first, seconds=BUILD_S_MAX)["status"]
    return endpoint
