"""What every `FleetStore` promises."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.fleet import MemoryFleet, SqliteFleet
from runyard.domain.container import ContainerSpec
from runyard.domain.job import WorkerId
from runyard.ports.stores import FleetStore
from tests.builders import START, a_release, a_worker, an_endpoint


@pytest.fixture(params=["memory", "sqlite"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FleetStore]:
    store = MemoryFleet() if request.param == "memory" else SqliteFleet(tmp_path / "data" / "runyard.db")
    yield store
    await store.close()


async def test_a_worker_comes_back_as_it_was_kept(fleet: FleetStore) -> None:
    run = a_release(version=3, env=(("A", "1"), ("B", "é\n")), lock="runpod==1.0", container=ContainerSpec(image="app"))
    worker = a_worker(release=run).spawned(START + 1).heard(START + 2).runs_sdk("1.12.0").ailing("hot").drain("old")
    await fleet.save(worker)

    assert [worker] == await fleet.workers()


async def test_keeping_a_worker_again_replaces_it(fleet: FleetStore) -> None:
    worker = a_worker()
    await fleet.save(worker)
    await fleet.save(worker.spawned(START + 1))
    await fleet.save(worker.spawned(START + 1).drain("idle"))

    assert [worker.spawned(START + 1).drain("idle")] == await fleet.workers()


async def test_workers_come_oldest_first(fleet: FleetStore) -> None:
    for id, at in (("b", START + 2), ("c", START + 1), ("a", START + 2)):
        await fleet.save(replace(a_worker(id), created_at=at))

    assert ["c", "a", "b"] == [worker.id for worker in await fleet.workers()]


async def test_a_forgotten_worker_is_gone_and_can_be_forgotten_again(fleet: FleetStore) -> None:
    await fleet.save(a_worker("one"))
    await fleet.save(a_worker("two"))
    for _ in range(2):
        await fleet.forget(WorkerId("one"))

    assert ["two"] == [worker.id for worker in await fleet.workers()]


async def test_sqlite_keeps_workers_beside_the_control_data_and_over_its_own_end(tmp_path: Path) -> None:
    path = tmp_path / "runyard.db"
    control, first = SqliteControl(path), SqliteFleet(path)
    await control.add_endpoint(an_endpoint())
    await first.save(a_worker())
    await control.remove_endpoint(an_endpoint().id)
    await first.close()
    await control.close()

    second = SqliteFleet(path)
    kept = await second.workers()
    await second.close()

    assert [a_worker()] == kept
