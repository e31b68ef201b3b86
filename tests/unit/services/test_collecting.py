"""What is still needed is told to the runtime, which lets go of the rest."""

import asyncio
from collections.abc import Collection

import pytest

from runyard.adapters.system import LoopClock
from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import StartFailed
from runyard.services.collecting import EVERY_S, Collecting
from runyard.services.roster import Roster
from tests.builders import a_release, a_worker, an_endpoint


class Book:
    def list(self) -> list[Endpoint]:
        return [an_endpoint(release=a_release(2, lock="app@sha256:2")), an_endpoint(release=a_release(3, lock=None))]


class Runtime:
    """Hears what is in use, and may be broken."""

    def __init__(self) -> None:
        self.told: list[set[str]] = []
        self.broken = False

    async def collect(self, in_use: Collection[str]) -> None:
        self.told.append(set(in_use))
        if self.broken:
            raise StartFailed("no Docker Engine answers")


@pytest.mark.looptime
async def test_locks_of_releases_and_of_workers_are_in_use() -> None:
    roster, runtime = Roster(), Runtime()
    roster.add(a_worker(release=a_release(1, lock="app@sha256:1")))
    looping = asyncio.create_task(Collecting(Book(), roster, runtime, LoopClock()).run())
    await asyncio.sleep(EVERY_S - 1)
    early = list(runtime.told)
    await asyncio.sleep(2)
    looping.cancel()

    assert [] == early
    assert [{"app@sha256:1", "app@sha256:2"}] == runtime.told


@pytest.mark.looptime
async def test_a_runtime_that_cannot_collect_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime()
    runtime.broken = True
    looping = asyncio.create_task(Collecting(Book(), Roster(), runtime, LoopClock()).run())
    await asyncio.sleep(2 * EVERY_S + 1)
    looping.cancel()

    assert 2 == len(runtime.told)
    assert ["unused images stay for now: no Docker Engine answers"] * 2 == caplog.messages
