"""Data that any earlier Runyard has left is there under the present one, and what a newer one has left is not touched."""

import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.fleet import SqliteFleet
from runyard.adapters.stores.secrets import SqliteSecrets
from runyard.adapters.stores.sqlite import migrations_in, open_database
from runyard.domain.errors import RunyardError
from runyard.domain.job import Job, JobState
from runyard.domain.terms import NO_OWN_TERMS
from runyard.domain.tombstone import tombstone_of
from runyard.ports.stores import JobQuery
from runyard.ports.webhooks import DeliveryQuery
from tests.builders import ENDPOINT, START, a_job
from tests.contract import samples
from tests.contract.job_stores import B, taken

EVERY_SCHEMA = range(1, samples.NEWEST + 1)
WORKERS_SINCE, JOBS_SINCE, WEBHOOKS_SINCE, TERMS_SINCE, ARCHIVE_SINCE, SECRETS_SINCE = 2, 3, 4, 5, 6, 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.db"


def test_every_schema_has_its_sample() -> None:
    """`python -m tests.contract.samples` writes that of a new one."""
    assert [samples.sample_of(schema).name for schema in EVERY_SCHEMA] == sorted(
        file.name for file in samples.SAMPLES.iterdir()
    )


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
async def test_endpoints_and_keys_are_there(schema: int, path: Path) -> None:
    samples.opened_as(schema, path)
    store = SqliteControl(path)
    second = samples.SECOND if schema >= TERMS_SINCE else replace(samples.SECOND, terms=NO_OWN_TERMS)

    assert samples.KEYS == await store.keys()
    assert [samples.FIRST, second] == await store.endpoints()
    assert [2, 1] == [release.version for release in await store.releases(samples.FIRST.id)]
    assert samples.NUMBERS == {id: await store.endpoint_number(id) for id in samples.NUMBERS}
    await store.close()


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
async def test_workers_are_there(schema: int, path: Path) -> None:
    samples.opened_as(schema, path)
    store = SqliteFleet(path)

    assert (samples.WORKERS if schema >= WORKERS_SINCE else []) == await store.workers()
    await store.save(samples.WORKERS[0])
    await store.close()


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
async def test_jobs_and_results_are_there(schema: int, path: Path) -> None:
    samples.opened_as(schema, path)
    store = EmbeddedJobs(path)
    found = {job.id: facts(job) for job in (await store.list(ENDPOINT, JobQuery(limit=100))).jobs}

    assert ({job.id: facts(job) for job in samples.jobs().values()} if schema >= JOBS_SINCE else {}) == found
    if schema >= JOBS_SINCE:
        running = await store.get(ENDPOINT, samples.jobs()[JobState.IN_PROGRESS].id)
        assert running is not None
        assert samples.STREAMED[1:] == await store.drain_output(running, None), "the first chunk has been read"
        counts = await store.counts(ENDPOINT)
        ended = counts.completed, counts.failed, counts.cancelled, counts.timed_out
        assert ((1, 1, 1, 1), 1, 1) == (ended, counts.in_queue, counts.in_progress)
    await store.add(a_job("new", at=START + 10))
    await store.close()
    store = EmbeddedJobs(path)
    assert "new" == (await taken(store, B, limit=9, now=START + 11))[-1]
    await store.close()


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
async def test_what_was_put_away_is_there(schema: int, path: Path) -> None:
    samples.opened_as(schema, path)
    store = EmbeddedJobs(path)
    found = [await store.find(samples.SECOND.id, job.id) for job in (samples.AWAY, samples.GONE)]

    since = schema >= ARCHIVE_SINCE
    assert ([samples.AWAY, tombstone_of(samples.GONE, START + 30)] if since else [None, None]) == found
    await store.close()


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
async def test_webhooks_that_are_owed_are_there(schema: int, path: Path) -> None:
    samples.opened_as(schema, path)
    store = EmbeddedJobs(path, render=lambda job: b"")
    assert store.outbox is not None
    owed = (await store.outbox.list(samples.SECOND.id, DeliveryQuery())).deliveries

    since = schema >= WEBHOOKS_SINCE
    assert ([(samples.OWING.id, samples.OWING.webhook)] if since else []) == [(one.job_id, one.url) for one in owed]
    assert [samples.OWED] * len(owed) == [await store.outbox.body(one.id) for one in owed]
    assert (samples.SECRETS if since else ()) == await store.outbox.secrets(samples.SECOND.id)
    assert since == (await store.outbox.take(START + 10, ()) is not None), "it is still to be delivered"
    await store.close()


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
async def test_secrets_and_registries_are_there(schema: int, path: Path) -> None:
    samples.opened_as(schema, path)
    store = SqliteSecrets(path)
    found = [*await store.secrets(), *await store.former_secrets(), *await store.registries()]

    assert ([samples.SECRET, samples.FORMER, samples.REGISTRY] if schema >= SECRETS_SINCE else []) == found
    await store.set_secret("new", b"sealed", START, keep_former=False)
    await store.close()


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
def test_an_upgraded_database_has_the_tables_of_a_new_one(schema: int, path: Path, tmp_path: Path) -> None:
    """So no migration that is out there has been changed since."""
    samples.opened_as(schema, path)

    assert tables(tmp_path / "new.db") == tables(path)


def test_data_of_a_newer_runyard_is_refused_and_left_alone(path: Path) -> None:
    samples.opened_as(samples.NEWEST, path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("insert into schema_version (number, name) values (99, 'later')")
        database.commit()
    before = samples.dump(path)

    with pytest.raises(RunyardError, match=f"schema 99, this one knows {samples.NEWEST}.*upgrade"):
        open_database(path)
    assert before == samples.dump(path)


DIES = """
import os, signal, sqlite3, sys
from pathlib import Path
from runyard.adapters.stores.sqlite import migrate
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
migrate(database, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("dying", EVERY_SCHEMA[1:])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_process_that_is_killed_in_a_migration_spoils_nothing(
    dying: int, at_the_end: bool, path: Path, tmp_path: Path
) -> None:
    samples.opened_as(1, path)
    folder = tmp_path / "sql"
    folder.mkdir()
    for number, file in migrations_in().items():
        script = file.read_text()
        if number == dying:
            half = "create table half (made text) strict;\nselect die();\n"
            script = f"{script}\nselect die();" if at_the_end else half + script
        (folder / file.name).write_text(script)
    killed = subprocess.run([sys.executable, "-c", DIES, path, folder], check=False)
    assert -signal.SIGKILL == killed.returncode
    with closing(sqlite3.connect(path)) as database:
        assert (dying - 1,) == database.execute("select max(number) from schema_version").fetchone()

    assert tables(tmp_path / "new.db") == tables(path)
    with closing(sqlite3.connect(path)) as database:
        assert (2, 2) == database.execute(
            "select (select count() from endpoints), (select count() from keys)"
        ).fetchone()


@pytest.mark.parametrize("spoil", ["not a database at all" * 1000, None])
def test_a_file_that_cannot_be_opened_is_named(path: Path, spoil: str | None) -> None:
    path.mkdir() if spoil is None else path.write_text(spoil)

    with pytest.raises(RunyardError, match=re.escape(f"cannot open {path}")):
        open_database(path)


def facts(job: Job) -> tuple[object, ...]:
    """What a reader asks for."""
    times = (job.created_at, job.finished_at, job.expires_at, job.retention_s, job.ttl_s, job.ttl_scope)
    return (job.state, job.input, job.output, job.error, job.lease, *times)


def tables(path: Path) -> list[tuple[str, str]]:
    open_database(path).close()
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select name, sql from sqlite_master where sql is not null order by name").fetchall()
