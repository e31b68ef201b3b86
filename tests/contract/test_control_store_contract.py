"""What every `ControlStore` promises."""

import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.stores.sqlite import migrate, open_database
from runyard.domain.account import ApiKey, KeyId, digest_of
from runyard.domain.container import ContainerSpec, Limits
from runyard.domain.endpoint import Endpoint, Release, ReleaseId, RunSpec
from runyard.domain.errors import Conflict, RunyardError
from runyard.domain.job import EndpointId
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.terms import QUEUE, OwnTerms
from runyard.ports.stores import ControlStore

NOW = 1_800_000_000.0


@pytest.fixture(params=["memory", "sqlite"])
async def control(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ControlStore]:
    store = MemoryControl() if request.param == "memory" else SqliteControl(tmp_path / "data" / "runyard.db")
    yield store
    await store.close()


def a_release(endpoint_id: str = "one", version: int = 1, **run: object) -> Release:
    spec = {"bundle": "a" * 64, "handler": "handler.py", "env": (("A", "1"), ("B", "é\n"))} | run
    return Release(
        id=ReleaseId(f"release-{endpoint_id}-{version}"),
        endpoint_id=EndpointId(endpoint_id),
        version=version,
        run=RunSpec(**spec),
        created_at=NOW + version,
    )


def an_endpoint(id: str = "one", **changes: object) -> Endpoint:
    values = {"name": f"named {id}", "release": a_release(id), "created_at": NOW} | changes
    return Endpoint(id=EndpointId(id), **values)


def a_key(id: str = "key", **changes: object) -> ApiKey:
    return ApiKey(id=KeyId(id), name="ci", digest=digest_of(id), created_at=NOW, **changes)


A_CONTAINER = ContainerSpec(
    image="ghcr.io/org/app:1",
    build_args=(("A", "1"),),
    entrypoint=("/run", "-x"),
    args=("a b",),
    ports=("8000/http",),
    registry="cred",
    limits=Limits(cpus=1.5, memory_bytes=1 << 30),
)


@pytest.mark.parametrize(
    "container", [A_CONTAINER, ContainerSpec(dockerfile="docker/Dockerfile")], ids=["pulled", "built"]
)
async def test_a_container_comes_back_as_it_was_kept(control: ControlStore, container: ContainerSpec) -> None:
    endpoint = an_endpoint(release=a_release(bundle="", handler="", container=container))
    await control.add_endpoint(endpoint)

    assert await control.endpoints() == [endpoint]
    assert await control.releases(endpoint.id) == [endpoint.release]


@pytest.mark.parametrize("scaler", [QueueDelay(timedelta(milliseconds=1500)), RequestCount(7)], ids=["delay", "count"])
async def test_an_endpoint_comes_back_as_it_was_kept(control: ControlStore, scaler: QueueDelay | RequestCount) -> None:
    scaling = ScalingPolicy(workers_min=1, workers_max=9, idle_timeout=timedelta(seconds=61), scaler=scaler)
    endpoint = an_endpoint(scaling=scaling, execution_timeout=timedelta(milliseconds=5001))
    await control.add_endpoint(endpoint)

    assert await control.endpoints() == [endpoint]
    assert await control.releases(endpoint.id) == [endpoint.release]


@pytest.mark.parametrize(
    "terms",
    [
        OwnTerms(retention_s=1.5, retention_sync_s=2.5, ttl_s=10.5, ttl_scope=QUEUE, keep_s=0, attempts_max=20),
        OwnTerms(keep_s=7),
    ],
    ids=["all", "one"],
)
async def test_terms_of_its_own_come_back_and_can_be_taken_away(control: ControlStore, terms: OwnTerms) -> None:
    first = an_endpoint("one", terms=terms)
    await control.add_endpoint(first)
    await control.add_endpoint(an_endpoint("two", created_at=NOW + 1))
    assert [first, an_endpoint("two", created_at=NOW + 1)] == await control.endpoints()

    assert await control.save_endpoint(replace(first, terms=OwnTerms(), generation=2), generation=1)
    assert await control.save_endpoint(an_endpoint("two", terms=terms, generation=2, created_at=NOW + 1), generation=1)
    assert [OwnTerms(), terms] == [endpoint.terms for endpoint in await control.endpoints()]


async def test_endpoints_come_oldest_first(control: ControlStore) -> None:
    for id, at in (("b", NOW + 2), ("c", NOW + 1), ("a", NOW + 2)):
        await control.add_endpoint(an_endpoint(id, created_at=at))

    assert [endpoint.id for endpoint in await control.endpoints()] == ["c", "a", "b"]


async def test_a_name_belongs_to_one_endpoint(control: ControlStore) -> None:
    await control.add_endpoint(an_endpoint("one", name="same"))

    with pytest.raises(Conflict, match="'same'"):
        await control.add_endpoint(an_endpoint("two", name="same"))
    await control.add_endpoint(an_endpoint("three", name="Same"))
    with pytest.raises(Conflict, match="'same'"):
        await control.save_endpoint(an_endpoint("three", name="same", generation=2), generation=1)

    assert sorted(endpoint.name for endpoint in await control.endpoints()) == ["Same", "same"]
    assert await control.releases(EndpointId("two")) == []


async def test_an_id_is_used_once(control: ControlStore) -> None:
    await control.add_endpoint(an_endpoint("one"))

    with pytest.raises(Conflict, match="one"):
        await control.add_endpoint(an_endpoint("one", name="other"))


async def test_saving_replaces_the_endpoint_and_keeps_both_releases(control: ControlStore) -> None:
    first = an_endpoint()
    await control.add_endpoint(first)
    second = replace(first, name="renamed", generation=2, release=a_release(version=2, bundle="b" * 64))

    assert await control.save_endpoint(second, generation=1)
    assert await control.endpoints() == [second]
    assert await control.releases(first.id) == [second.release, first.release]


async def test_saving_over_another_generation_changes_nothing(control: ControlStore) -> None:
    first = an_endpoint(generation=5)
    await control.add_endpoint(first)
    late = replace(first, name="late", generation=6, release=a_release(version=2))

    assert not await control.save_endpoint(late, generation=4)
    assert await control.endpoints() == [first]
    assert await control.releases(first.id) == [first.release]
    assert not await control.save_endpoint(an_endpoint("gone", generation=2), generation=1)


async def test_a_removed_endpoint_leaves_nothing_and_frees_its_name(control: ControlStore) -> None:
    await control.add_endpoint(an_endpoint("one", name="same"))
    await control.add_endpoint(an_endpoint("two"))

    await control.remove_endpoint(EndpointId("one"))
    await control.remove_endpoint(EndpointId("one"))

    assert [endpoint.id for endpoint in await control.endpoints()] == ["two"]
    assert await control.releases(EndpointId("one")) == []
    await control.add_endpoint(an_endpoint("three", name="same"))


async def test_the_first_lock_of_a_release_stays(control: ControlStore) -> None:
    endpoint = an_endpoint()
    await control.add_endpoint(endpoint)
    await control.set_lock(endpoint.release.id, "runpod==1.0")
    await control.set_lock(endpoint.release.id, "runpod==2.0")
    await control.set_lock(ReleaseId("unknown"), "x")

    [stored] = await control.endpoints()

    assert stored.release.run.lock == "runpod==1.0"
    assert await control.releases(endpoint.id) == [stored.release]


async def test_an_endpoints_number_is_its_own_for_ever(control: ControlStore) -> None:
    one, two, three = (EndpointId(id) for id in ("one", "two", "three"))
    numbers = [await control.endpoint_number(id) for id in (one, two, one)]
    await control.add_endpoint(an_endpoint("two"))
    await control.remove_endpoint(two)

    assert numbers == [0, 1, 0]
    assert await control.endpoint_number(three) == 2
    assert await control.endpoint_number(two) == 1


async def test_a_key_lives_until_it_is_revoked(control: ControlStore) -> None:
    await control.add_key(a_key("one"))
    await control.add_key(a_key("two"))

    assert await control.revoke_key("one", NOW + 5)
    assert not await control.revoke_key("one", NOW + 6)
    assert not await control.revoke_key("unknown", NOW)
    assert await control.keys() == [a_key("one", revoked_at=NOW + 5), a_key("two")]


async def test_sqlite_keeps_what_it_was_told_and_lets_nobody_else_read_it(tmp_path: Path) -> None:
    path = tmp_path / "runyard.db"
    first = SqliteControl(path)
    await first.add_endpoint(an_endpoint())
    number = await first.endpoint_number(EndpointId("one"))
    modes = modes_in(tmp_path)
    await first.close()

    second = SqliteControl(path)
    kept = await second.endpoints()
    again = await second.endpoint_number(EndpointId("one"))
    await second.close()

    assert kept == [an_endpoint()]
    assert again == number
    assert modes == dict.fromkeys(("runyard.db", "runyard.db-wal", "runyard.db-shm"), 0o600)


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_a_database_of_a_newer_runyard_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runyard.db"
    with closing(open_database(path)) as database:
        database.execute("insert into schema_version (number, name) values (9999, 'from_the_future')")

    with pytest.raises(RunyardError, match="newer Runyard"):
        open_database(path)


def test_a_migration_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("create table good (a text);\n-- A comment; with a semicolon.\n")
    (tmp_path / "0002_bad.sql").write_text("create table half (a text);\ninsert into nothing values (1);\n")

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        with pytest.raises(sqlite3.OperationalError, match="nothing"):
            migrate(database, tmp_path)
        tables = database.execute("select name from sqlite_schema where type = 'table' order by name").fetchall()
        versions = database.execute("select number, name from schema_version").fetchall()

    assert tables == [("good",), ("schema_version",)]
    assert versions == [(1, "0001_good")]
