"""What the embedded store's outbox promises beyond its port: it shares the fate of the ends that fill it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.adapters.stores import records
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.index import JobIndex
from runyard.adapters.stores.outbox_embedded import EmbeddedOutbox
from runyard.adapters.stores.sqlite import SQL, migrate
from runyard.domain.errors import TooBusy
from runyard.domain.job import Job, JobId
from runyard.domain.webhook import DeliveryState
from runyard.ports.webhooks import DeliveryQuery
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A
from tests.contract.test_embedded_store import full

URL = "https://receiver.test/hook"


def rendered(job: Job) -> bytes:
    return f"{job.id} {job.state}".encode()


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[EmbeddedJobs, EmbeddedOutbox]]:
    store = EmbeddedJobs(path / "jobs.db", render=rendered)
    assert store.outbox is not None
    yield store, store.outbox
    await store.close()


async def running(store: EmbeddedJobs, id: str = "job", webhook: str | None = URL) -> Job:
    job = a_job(id, webhook=webhook).take(A, START)
    await store.add(job)
    return job


def trouble(path: Path, change: str) -> None:
    """A disk that takes no change of this kind to the outbox."""
    database = sqlite3.connect(path / "jobs.db", isolation_level=None)
    database.execute(
        f"create trigger no_room before {change} on webhooks begin select raise(fail, 'disk is full'); end"
    )
    database.close()


async def test_what_was_owed_is_owed_by_the_next_process(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, outbox):
        for id in ("done", "taken", "later", "waits"):
            job = await running(store, id)
            await store.save(job.complete(b"1", START), was=job)
        done, taken, later = [await outbox.take(START, ()) for _ in range(3)]
        assert done is not None
        assert taken is not None
        assert later is not None
        await outbox.save(replace(done, state=DeliveryState.DELIVERED, finished_at=START))
        await outbox.save(replace(later, next_at=START + 10))

    async with opened(tmp_path) as (_, outbox):
        assert taken == await outbox.take(START, ()), "who had taken it is gone"
        waits = await outbox.take(START, ())
        assert waits is not None
        assert b"waits COMPLETED" == await outbox.body(waits.id)
        assert None is await outbox.take(START + 9, ())
        assert "later" == (await outbox.take(START + 10, ())).job_id  # type: ignore[union-attr]
        assert 4 == len((await outbox.list(ENDPOINT, DeliveryQuery())).deliveries)


async def test_the_next_process_counts_on(tmp_path: Path) -> None:
    for round in range(3):
        async with opened(tmp_path) as (store, outbox):
            job = await running(store, f"job-{round}")
            await store.save(job.complete(b"1", START), was=job)
            page = await outbox.list(ENDPOINT, DeliveryQuery())
            assert [f"job-{n}" for n in range(round, -1, -1)] == [delivery.job_id for delivery in page.deliveries]
    async with opened(tmp_path) as (_, outbox):
        gone = await outbox.prune(0, finished_max=1, waiting_max=1, bytes_max=1 << 30)
        assert ["job-0", "job-1"] == [delivery.job_id for delivery in gone]


async def test_nothing_is_owed_for_an_end_that_could_not_be_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, outbox):
        job = await running(store)
        told: list[None] = []
        outbox.owed = lambda: told.append(None)
        full(store, now=True)
        with pytest.raises(TooBusy):
            await store.save(job.complete(b"1", START), was=job)
        full(store, now=False)

        assert [] == told
        assert None is await outbox.take(START, ())
        assert () == (await outbox.list(ENDPOINT, DeliveryQuery())).deliveries
        await store.save(job.fail("boom", None, START), was=job)
        [owed] = (await outbox.list(ENDPOINT, DeliveryQuery())).deliveries
        assert b"job FAILED" == await outbox.body(owed.id)


async def test_an_end_whose_webhook_cannot_be_kept_is_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        job = await running(store)
        trouble(tmp_path, "insert")
        with pytest.raises(TooBusy):
            await store.save(job.complete(b"1", START), was=job)

        assert job == await store.get(ENDPOINT, job.id)
    async with opened(tmp_path) as (store, outbox):
        assert job == await store.get(ENDPOINT, job.id)
        assert None is await outbox.take(START, ())


async def test_nothing_is_given_away_before_it_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, outbox):
        job = await running(store)
        saving = asyncio.create_task(store.save(job.complete(b"1", START), was=job))
        await asyncio.sleep(0)
        assert None is await outbox.next_at(())
        await saving

        assert START == await outbox.next_at(())


async def test_what_a_full_disk_does_not_take_holds_until_the_process_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, outbox):
        job = await running(store)
        await store.save(job.complete(b"1", START), was=job)
        taken = await outbox.take(START, ())
        assert taken is not None
        trouble(tmp_path, "update")
        with pytest.raises(TooBusy):
            await outbox.save(replace(taken, next_at=START + 10))

        assert START + 10 == await outbox.next_at(())


async def test_tries_do_not_fill_the_journal(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, outbox):
        job = await running(store)
        await store.save(job.complete(b"1", START), was=job)
        taken = await outbox.take(START, ())
        assert taken is not None
        journal = store._journal  # pyright: ignore[reportPrivateUsage]
        before = journal._row, journal.bytes  # pyright: ignore[reportPrivateUsage]
        for number in range(5):
            await outbox.save(replace(taken, next_at=START + number))

        assert before == (journal._row, journal.bytes)  # pyright: ignore[reportPrivateUsage]
        await running(store, "next")
    async with opened(tmp_path) as (store, outbox):
        assert None is not await store.get(ENDPOINT, JobId("next"))
        assert START + 4 == await outbox.next_at(())


async def test_ends_and_what_they_owe_share_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, outbox):
        jobs = [await running(store, f"job-{number}") for number in range(100)]
        journal = store._journal  # pyright: ignore[reportPrivateUsage]
        before = journal._row  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(*(store.save(job.complete(b"1", START), was=job) for job in jobs))

        assert 1 == journal._row - before  # pyright: ignore[reportPrivateUsage]
        assert 100 == len((await outbox.list(ENDPOINT, DeliveryQuery(limit=1000))).deliveries)


async def test_a_job_without_a_webhook_writes_what_it_always_wrote(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        job = await running(store, webhook=None)
        statements: list[str] = []
        store._journal._database.set_trace_callback(statements.append)  # pyright: ignore[reportPrivateUsage]
        await store.save(job.complete(b"1", START), was=job)

        assert 1 == len(statements)
        assert statements[0].startswith("insert into journal")


async def test_a_file_from_before_there_was_an_outbox_gets_one(tmp_path: Path) -> None:
    for migration in sorted(SQL.glob("000[1-3]_*.sql")):
        (tmp_path / "then").mkdir(exist_ok=True)
        (tmp_path / "then" / migration.name).write_text(migration.read_text())
    database = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    migrate(database, tmp_path / "then")
    job = a_job("job", webhook=URL).take(A, START)
    index = JobIndex()
    row = records.batch([records.written(index.add(job))])
    database.execute("insert into journal (number, format, records) values (1, ?, ?)", (records.FORMAT, row))
    database.close()

    async with opened(tmp_path) as (store, outbox):
        assert job == await store.get(ENDPOINT, job.id)
        await store.save(job.complete(b"1", START), was=job)

        assert job.id == (await outbox.take(START, ())).job_id  # type: ignore[union-attr]


async def test_what_was_written_but_not_synced_is_taken_back(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    async with opened(tmp_path) as (store, outbox):
        job = await running(store)
        sync = store._journal._sync  # pyright: ignore[reportPrivateUsage]
        assert sync is not None
        log, sync._file = sync._file, reading  # Whose sync fails, really.
        with pytest.raises(TooBusy):
            await store.save(job.complete(b"1", START), was=job)
        assert None is await outbox.next_at(())
        sync._file = log
        await store.save(job.fail("boom", None, START), was=job)

        [owed] = (await outbox.list(ENDPOINT, DeliveryQuery())).deliveries
        assert b"job FAILED" == await outbox.body(owed.id)
    async with opened(tmp_path) as (store, outbox):
        assert "FAILED" == (await store.get(ENDPOINT, job.id)).state  # type: ignore[union-attr]
        taken = await outbox.take(START, ())
        assert taken is not None
        assert b"job FAILED" == await outbox.body(taken.id)
        assert None is await outbox.take(START, ())
    os.close(reading)
    os.close(writing)
