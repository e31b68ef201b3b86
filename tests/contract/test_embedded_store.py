"""What the embedded store promises beyond its port: it remembers, cleans up behind itself, and survives a full disk."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import tracemalloc
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.stores import journal
from runyard.adapters.stores.batches import Batch
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.journal import LONE_TURNS_MIN
from runyard.adapters.stores.snapshot import HeldSnapshot
from runyard.adapters.stores.sqlite import open_database
from runyard.adapters.stores.syncing import LogSync
from runyard.domain.errors import RunyardError, TooBusy
from runyard.domain.job import ExecutionPolicy, Job, JobState
from runyard.domain.payload import Spilled
from runyard.domain.terms import QUEUE, TtlScope
from runyard.ports.stores import JobQuery
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, B, kept, put_away, saved, stored, taken


def opened(path: Path, *, clean_from_bytes: int = 1 << 20, ended_max: int = 1000) -> EmbeddedJobs:
    return EmbeddedJobs(path / "jobs.db", clean_from_bytes=clean_from_bytes, ended_max=ended_max, pause_s=0)


def full(store: EmbeddedJobs, *, now: bool) -> None:
    """A disk that takes nothing more, whoever opens the file."""
    trouble = "create trigger no_room before insert on journal begin select raise(fail, 'disk is full'); end"
    database = store._journal._database  # pyright: ignore[reportPrivateUsage]
    database.execute(trouble if now else "drop trigger no_room")


async def test_jobs_their_output_and_their_order_are_there_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await stored(store, "a", "b", "c", "d")
    first, second = await store.take(ENDPOINT, A, 2, START)
    await store.append_output(first, [b"1", b"2", b"3"])
    await store.drain_output(first, 1)
    await saved(store, second, second.lose_worker(START, "it died"))
    await store.close()

    store = opened(tmp_path)
    assert first == await kept(store, first)
    assert [b"2", b"3"] == await store.drain_output(first, None)
    assert 1 == (await store.counts(ENDPOINT)).retried
    assert ["b", "c", "d"] == await taken(store, B, limit=9)
    await store.close()


async def test_a_named_job_is_known_by_its_fingerprint_again(tmp_path: Path) -> None:
    store = opened(tmp_path, clean_from_bytes=1 << 16)
    [named] = await stored(store, "named", fingerprint=bytes(range(32)))
    await stored(store, "unnamed")
    for _ in range(8):  # The journal is cleaned meanwhile, and what is old in it written again.
        [job] = await stored(store, "passing", input=b"1" * 60_000)
        assert await put_away(store, job)
    await store.close()

    store = opened(tmp_path)
    assert store.outlives_process
    assert named == await kept(store, named)
    assert None is (await kept(store, a_job("unnamed"))).fingerprint
    await store.close()


async def test_what_has_expired_meanwhile_is_due(tmp_path: Path) -> None:
    store = opened(tmp_path)
    expired = await stored(store, "a", "b", expires_at=START + 50)
    await stored(store, "c")
    await store.close()

    store = opened(tmp_path)
    assert set(expired) == set(await store.due(START + 50, 9))
    assert expired == await store.put_away(expired, START + 50)
    await store.close()

    store = opened(tmp_path)
    assert ["c"] == [job.id for job in (await store.list(ENDPOINT, JobQuery())).jobs]
    await store.close()


@pytest.mark.parametrize("scope", TtlScope)
async def test_a_job_that_may_finish_is_not_due_after_a_restart_either(tmp_path: Path, scope: TtlScope) -> None:
    store = opened(tmp_path)
    await stored(store, "a", "b", expires_at=START + 50, ttl_scope=scope)
    [running] = await store.take(ENDPOINT, A, 1, START + 10)
    await store.close()

    store = opened(tmp_path)
    due = {job.id for job in await store.due(START + 50, 9)}
    assert ({"b"} if scope is QUEUE else {running.id, "b"}) == due
    await store.close()


@pytest.mark.parametrize("put_it_away", [False, True])
@pytest.mark.parametrize(
    "policy", [ExecutionPolicy(), ExecutionPolicy(low_priority=True), ExecutionPolicy(ttl=timedelta(seconds=77))]
)
async def test_a_job_comes_back_on_the_terms_that_it_was_taken_on(
    tmp_path: Path, policy: ExecutionPolicy, put_it_away: bool
) -> None:
    store = opened(tmp_path)
    terms = {"ttl_s": 77.0, "ttl_scope": QUEUE, "retention_s": 5.0}
    [one, other] = await stored(store, "one", "other", policy=policy, **terms)
    other = await saved(store, other, other.expire_in(100, START))
    if put_it_away:
        one = await saved(store, one, one.cancel(START))
        await put_away(store, one)
    await store.close()

    store = opened(tmp_path)
    assert [one, other] == [await kept(store, one), await kept(store, other)]
    await store.close()


async def test_the_file_stays_bounded_and_what_lives_on_keeps_its_place(tmp_path: Path) -> None:
    store = opened(tmp_path, clean_from_bytes=1 << 16)
    await stored(store, "second", "third", "first")
    leased = [await store.take(ENDPOINT, B, 1, START) for _ in range(3)]
    for [job] in (leased[1], leased[0], leased[2]):
        await saved(store, job, job.lose_worker(START, "it died"))
    for number in range(300):
        running = a_job(f"job-{number}", input=b"1" * 2000).take(A, START)
        await store.add(running)
        await put_away(store, await saved(store, running, running.complete(b"2" * 2000, START)))
        while await store.archive.forget_oldest(START + 10_000, 1 << 30):
            pass
    counts = await store.counts(ENDPOINT)
    await store.close()
    assert (tmp_path / "jobs.db").stat().st_size < 600_000, "1.2 MB went through it"

    store = opened(tmp_path)
    assert counts == await store.counts(ENDPOINT)
    assert 300 == counts.completed
    assert ["first", "second", "third"] == await taken(store, A, limit=9)
    await store.close()


async def test_who_waits_alone_is_served_at_once_and_a_crowd_in_one_commit(tmp_path: Path) -> None:
    store = EmbeddedJobs(tmp_path / "jobs.db", synced=False)
    journal = store._journal  # pyright: ignore[reportPrivateUsage]

    async def rows_of(*ids: str) -> int:
        before = journal._row  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(*(store.add(a_job(id)) for id in ids))
        await asyncio.sleep(0)  # The turn is over.
        return journal._row - before  # pyright: ignore[reportPrivateUsage]

    for number in range(LONE_TURNS_MIN):
        assert 1 == await rows_of(str(number))
    with pytest.raises(StopIteration):
        store.add(a_job("alone")).send(None)
    await asyncio.sleep(0)
    full(store, now=True)
    with pytest.raises(TooBusy, match="cannot write"):
        store.add(a_job("in vain")).send(None)
    full(store, now=False)

    assert LONE_TURNS_MIN + 1 == (await store.counts(ENDPOINT)).in_queue
    await asyncio.sleep(0)
    assert 2 == await rows_of(*"abc"), "nobody knew that the first was not alone"
    assert 1 == await rows_of(*"def")
    await store.close()


async def test_a_waiting_job_of_a_few_bytes_takes_less_than_a_kibibyte_of_memory(tmp_path: Path) -> None:
    store, count = opened(tmp_path), 3000
    for number in range(count):
        change = await store.add_soon(a_job(f"{number:039}", at=START + number / 1000))
    await store.kept(change)
    await store.close()

    tracemalloc.start()
    try:
        store = opened(tmp_path)
        gc.collect()
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == (await store.counts(ENDPOINT)).in_queue
    assert taken_bytes < 1024 * count
    await store.close()


async def test_a_full_disk_refuses_what_is_new_shows_what_is_there_and_needs_no_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    [job] = await stored(store, "a")
    full(store, now=True)

    with pytest.raises(TooBusy, match="cannot write"):
        await store.add(a_job("b", input=b"1" * 100_000))
    assert [] == await store.take(ENDPOINT, A, 1, START), "what cannot be leased waits on"
    assert job == await kept(store, job)
    assert 1 == (await store.counts(ENDPOINT)).in_queue
    full(store, now=False)
    await stored(store, "b")
    assert ["a", "b"] == await taken(store, limit=9)
    await store.close()


async def test_nobody_sees_a_change_before_it_is_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    [job] = await stored(store, "a")
    full(store, now=True)
    ending = asyncio.create_task(store.save(job.cancel(START), job))
    await asyncio.sleep(0)

    assert JobState.IN_QUEUE == (await kept(store, job)).state, "the change could not be kept"
    with pytest.raises(TooBusy):
        await ending
    full(store, now=False)
    await store.close()


async def test_what_others_write_to_the_file_is_in_nobodys_way(tmp_path: Path) -> None:
    store = opened(tmp_path)
    others = sqlite3.connect(tmp_path / "jobs.db", timeout=0, isolation_level=None)
    others.execute("create table endpoints_of_a_sort (name text)")
    for number in range(20):
        await stored(store, f"job-{number}")
        others.execute("insert into endpoints_of_a_sort values ('an endpoint')")
    assert [(20,)] == others.execute("select count(*) from journal").fetchall()
    others.close()
    await store.close()


def test_a_commit_does_not_wait_with_a_snapshot_in_hand(tmp_path: Path) -> None:
    ours, others = open_database(tmp_path / "jobs.db"), open_database(tmp_path / "jobs.db")
    held, tries = HeldSnapshot(ours), 0
    held.hold()
    others.execute("begin immediate")

    def work() -> None:
        nonlocal tries
        tries += 1
        if tries == 2:  # The first was refused at once; this one would wait.
            others.execute("commit")
        ours.execute("insert into journal (number, format, records) values (1, 1, x'')")

    held.commit(work)
    assert 2 == tries
    ours.close()
    others.close()


async def test_the_log_beside_the_file_is_begun_anew_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LOG_PAGES", 30)
    store = opened(tmp_path)
    for number in range(400):
        await stored(store, f"job-{number}")
    assert 100 * 4096 > (tmp_path / "jobs.db-wal").stat().st_size
    await store.close()


async def test_a_new_job_and_its_lease_share_a_commit(tmp_path: Path) -> None:
    store = opened(tmp_path)
    change = await store.add_soon(a_job("a"))
    await store.take(ENDPOINT, A, 1, START)
    await store.kept(change)

    assert 1 == store._journal._row  # pyright: ignore[reportPrivateUsage]
    await store.close()


async def test_a_job_that_could_not_be_kept_never_was_whoever_has_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    full(store, now=True)
    change = await store.add_soon(a_job("a"))
    [leased] = await store.take(ENDPOINT, A, 1, START)

    lost: list[RunyardError] = []
    store.if_lost(change, lost.append)
    with pytest.raises(TooBusy):
        await store.kept(change)
    assert 1 == len(lost)
    assert None is await store.latest(ENDPOINT, leased.id)
    assert not await store.save(leased.complete(b"1", START), leased)
    full(store, now=False)
    await store.close()


async def test_many_who_come_at_once_share_a_commit(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await asyncio.gather(*(store.add(a_job(f"job-{number}")) for number in range(500)))

    journal = store._journal  # pyright: ignore[reportPrivateUsage]
    assert journal._row <= 3  # pyright: ignore[reportPrivateUsage]
    await store.close()


async def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await stored(store, "a")
    store._journal._database.execute("update journal set format = 99")  # pyright: ignore[reportPrivateUsage]
    await store.close()

    with pytest.raises(RunyardError, match="format 99"):
        opened(tmp_path)


async def test_a_job_still_names_its_large_output_when_the_store_is_opened_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    jobs = await stored(store, "a", "b")
    job = jobs[0].take(A, START)
    await saved(store, jobs[0], job)
    done = await saved(store, job, job.complete(Spilled("payload-1", 1 << 30), START))
    await store.close()
    store = opened(tmp_path)

    assert done == await kept(store, done)
    assert Spilled("payload-1", 1 << 30) == (await kept(store, done)).output
    assert jobs[1] == await kept(store, jobs[1])
    await store.close()


async def test_a_job_still_names_its_large_input_when_the_store_is_opened_again(tmp_path: Path) -> None:
    """Out of the journal, whole or cleaned, and out of the archive."""
    store = opened(tmp_path, clean_from_bytes=1500, ended_max=1)
    jobs = await stored(store, *"abc", input=Spilled("payload-1", 1 << 30))
    taken = await saved(store, jobs[1], jobs[1].take(A, START))
    gone = await saved(store, jobs[2], jobs[2].cancel(START))
    await put_away(store, gone)
    for number in range(30):
        await ended(store, f"other-{number}")
    await store.close()
    store = opened(tmp_path)

    assert [jobs[0], taken, gone] == [await kept(store, job) for job in (jobs[0], taken, gone)]
    assert {Spilled("payload-1", 1 << 30)} == {(await kept(store, job)).input for job in (jobs[0], taken, gone)}
    await store.close()


# The archive


async def test_memory_holds_the_jobs_that_ended_last_and_the_archive_all(tmp_path: Path) -> None:
    store = opened(tmp_path, ended_max=3)
    jobs = [await ended(store, f"job-{number}") for number in range(9)]
    here = [job for job in jobs if await store.latest(ENDPOINT, job.id)]
    assert len(here) <= 3
    assert here == jobs[len(jobs) - len(here) :]
    await store.close()

    store = opened(tmp_path, ended_max=3)
    assert jobs == [await kept(store, job) for job in jobs]
    assert [job.id for job in reversed(jobs)] == [job.id for job in (await store.list(ENDPOINT, JobQuery())).jobs]
    assert 9 == (await store.counts(ENDPOINT)).completed
    await store.close()


async def test_ended_jobs_leave_memory_for_the_payload_of_others(tmp_path: Path) -> None:
    store = EmbeddedJobs(tmp_path / "jobs.db", bytes_max=40_000, pause_s=0)
    for number in range(20):
        await ended(store, f"job-{number}", input=b"1" * 9_000)
    await store.close()


async def test_a_list_names_each_job_once_while_jobs_are_put_away(tmp_path: Path) -> None:
    store = opened(tmp_path)
    jobs = [await ended(store, f"job-{number}") for number in range(60)]
    names = [job.id for job in reversed(jobs)]

    async def put_all_away() -> None:
        for job in jobs:
            assert [job] == await store.put_away([job], START + 10**6)

    away = asyncio.create_task(put_all_away())
    lists = 0
    while not away.done():
        assert names == [job.id for job in (await store.list(ENDPOINT, JobQuery(limit=100))).jobs]
        lists += 1
    await away
    assert lists > 3
    await store.close()


async def test_what_cannot_be_put_away_stays_where_it_was(tmp_path: Path) -> None:
    store = opened(tmp_path)
    done = await ended(store, "done")
    await store.append_output((await ended(store, "other")), [b"1"])
    [first, _] = await stored(store, "first", "second")
    full(store, now=True)

    with pytest.raises(TooBusy):
        await store.put_away([done, first], START + 10**6)
    assert (done, first) == (await kept(store, done), await kept(store, first))
    assert done == await store.latest(ENDPOINT, done.id)
    counts = await store.counts(ENDPOINT)
    assert (2, 2) == (counts.completed, counts.in_queue)
    full(store, now=False)
    assert ["first", "second"] == await taken(store, limit=9)
    assert [done] == await store.put_away([done], START + 10**6)
    await store.close()


async def test_what_cannot_come_back_stays_in_the_archive(tmp_path: Path) -> None:
    store = opened(tmp_path)
    done = await ended(store, "done")
    await put_away(store, done)
    full(store, now=True)

    with pytest.raises(TooBusy):
        await store.save(done.expire_in(9_000, START), was=done)
    assert done == await kept(store, done)
    assert None is await store.latest(ENDPOINT, done.id)
    full(store, now=False)
    assert await store.save(done.expire_in(9_000, START), was=done)
    assert 1 == (await store.counts(ENDPOINT)).completed
    await store.close()


async def test_a_job_is_changed_on_its_way_to_the_archive(tmp_path: Path) -> None:
    store = opened(tmp_path)
    done = await ended(store, "done")
    longer = done.expire_in(9_000, START)

    assert [[done], True] == await asyncio.gather(store.put_away([done], START + 10**6), store.save(longer, was=done))
    assert longer == await kept(store, longer)
    await store.close()
    store = opened(tmp_path)
    assert longer == await kept(store, longer)
    await store.close()


async def test_what_came_back_is_not_cleaned_away(tmp_path: Path) -> None:
    store = opened(tmp_path, clean_from_bytes=1 << 16)
    done = await ended(store, "done")
    await put_away(store, done)
    longer = await saved(store, done, done.expire_in(9_000, START))
    for number in range(9):
        await put_away(store, await ended(store, f"passing-{number}", input=b"1" * 60_000))
    await store.close()

    store = opened(tmp_path)
    assert longer == await store.latest(ENDPOINT, longer.id)
    assert 10 == (await store.counts(ENDPOINT)).completed
    await store.close()


async def test_a_job_that_comes_back_while_others_are_forgotten_is_not_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    long_after = START + 10**6
    came_before, comes_amid, goes = [await failed(store, id) for id in ("before", "amid", "goes")]
    await store.put_away([came_before, comes_amid, goes], long_after)
    await saved(store, came_before, came_before.retry(long_after))
    journal, waits = store._journal, 0  # pyright: ignore[reportPrivateUsage]
    wait = journal.wait

    async def wait_while_one_comes_back(number: int) -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            await saved(store, comes_amid, comes_amid.retry(long_after))
        await wait(number)

    monkeypatch.setattr(journal, "wait", wait_while_one_comes_back)
    await store.archive.forget(ENDPOINT, long_after, long_after)

    for _ in range(2):
        tombstones = store._journal.read("select job_id from tombstones")  # pyright: ignore[reportPrivateUsage]
        assert ["goes"] == [row["job_id"] for row in tombstones]
        assert [JobState.IN_QUEUE] * 2 == [(await kept(store, job)).state for job in (came_before, comes_amid)]
        await store.close()
        store = opened(tmp_path)
    assert ["before", "amid"] == await taken(store, B, limit=9, now=long_after)
    await store.close()


async def failed(store: EmbeddedJobs, id: str) -> Job:
    await stored(store, id)
    [job] = await store.take(ENDPOINT, A, 1, START)
    return await saved(store, job, job.fail("boom", None, START))


async def test_a_stream_goes_to_the_archive_with_its_job_unless_it_is_long_or_over(tmp_path: Path) -> None:
    store = opened(tmp_path, ended_max=3)
    short, long = await streamed(store, "short", b"1"), await streamed(store, "long", b"1" * (2 << 20))
    for number in range(9):
        await ended(store, f"job-{number}")
    await store.close()

    store = opened(tmp_path, ended_max=3)
    assert (None, long) == (await store.latest(ENDPOINT, short.id), await store.latest(ENDPOINT, long.id))
    assert [b"1"] == await store.read_output(short, 0, 100)
    assert [b"1"] == await store.drain_output(short, None)
    assert [] == await store.drain_output(short, None)
    await store.close()


async def streamed(store: EmbeddedJobs, id: str, chunk: bytes) -> Job:
    [job] = await stored(store, id)
    running = await saved(store, job, job.take(A, START))
    await store.append_output(running, [chunk])
    return await saved(store, running, running.complete(b"1", START + 1))


@pytest.mark.parametrize("failure", ["full", "sync"])
async def test_a_cleaning_that_fails_costs_no_job(
    tmp_path: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, clean_from_bytes=1 << 16)
    waiting = await stored(store, *(f"waiting-{number}" for number in range(20)), input=b"1" * 1000)
    journal = store._journal  # pyright: ignore[reportPrivateUsage]
    failed: list[str] = []
    commit, sync = journal._commit, LogSync._try  # pyright: ignore[reportPrivateUsage]

    def full_disk(data: bytes, batch: Batch) -> None:
        if not failed and (batch.clean_to or len(data) > 15_000):
            failed.append(failure)
            raise sqlite3.OperationalError("database or disk is full")
        commit(data, batch)

    def bad_sync(self: LogSync) -> OSError | None:
        batch = journal._writing  # pyright: ignore[reportPrivateUsage]
        if not failed and batch is not None and batch.clean_to:
            failed.append(failure)
            return OSError(5, "input/output error")
        return sync(self)

    with monkeypatch.context() as patch:
        if failure == "full":
            patch.setattr(journal, "_commit", full_disk)
        else:
            patch.setattr(LogSync, "_try", bad_sync)
        for number in range(40):
            with suppress(TooBusy):
                await put_away(store, await ended(store, f"passing-{number}", input=b"1" * 9_000))
        await store.close()

    assert [failure] == failed
    store = opened(tmp_path)
    assert waiting == [await kept(store, job) for job in waiting]
    await store.close()


async def ended(store: EmbeddedJobs, id: str, **changes: Any) -> Job:
    [job] = await stored(store, id, **changes)
    running = await saved(store, job, job.take(A, START))
    return await saved(store, running, running.complete(b"1", START + 1))
