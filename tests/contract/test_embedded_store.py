"""What the embedded store promises beyond its port: it remembers, cleans up behind itself, and survives a full disk."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.domain.errors import RunyardError, TooBusy
from runyard.domain.job import ExecutionPolicy, JobState
from runyard.domain.payload import Spilled
from runyard.domain.terms import QUEUE, TtlScope
from runyard.ports.stores import JobQuery
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, B, kept, saved, stored, taken


def opened(path: Path, *, now: float = START, clean_from_bytes: int = 1 << 20) -> EmbeddedJobs:
    return EmbeddedJobs(path / "jobs.db", now=now, clean_from_bytes=clean_from_bytes)


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
        assert await store.remove(job)
    await store.close()

    store = opened(tmp_path)
    assert store.outlives_process
    assert named == await kept(store, named)
    assert None is (await kept(store, a_job("unnamed"))).fingerprint
    await store.close()


async def test_what_has_expired_meanwhile_is_gone(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await stored(store, "a", "b", expires_at=START + 50)
    await stored(store, "c")
    await store.close()

    store = opened(tmp_path, now=START + 50)
    assert ["c"] == [job.id for job in (await store.list(ENDPOINT, JobQuery())).jobs]
    await store.close()


@pytest.mark.parametrize("scope", TtlScope)
async def test_a_job_that_may_finish_outlives_a_restart_however_late(tmp_path: Path, scope: TtlScope) -> None:
    store = opened(tmp_path)
    await stored(store, "a", "b", expires_at=START + 50, ttl_s=50.0, ttl_scope=scope)
    [running] = await store.take(ENDPOINT, A, 1, START + 10)
    await store.close()

    store = opened(tmp_path, now=START + 50)
    there = (await store.list(ENDPOINT, JobQuery())).jobs
    assert ((running,) if scope is QUEUE else ()) == there
    await store.close()


@pytest.mark.parametrize(
    "policy", [ExecutionPolicy(), ExecutionPolicy(low_priority=True), ExecutionPolicy(ttl=timedelta(seconds=77))]
)
async def test_a_job_comes_back_on_the_terms_that_it_was_taken_on(tmp_path: Path, policy: ExecutionPolicy) -> None:
    store = opened(tmp_path)
    terms = {"ttl_s": 77.0, "ttl_scope": QUEUE, "retention_s": 5.0}
    [one, other] = await stored(store, "one", "other", policy=policy, **terms)
    other = await saved(store, other, other.expire_in(100, START))
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
        await store.remove(await saved(store, running, running.complete(b"2" * 2000, START)))
    counts = await store.counts(ENDPOINT)
    await store.close()
    assert (tmp_path / "jobs.db").stat().st_size < 600_000, "1.2 MB went through it"

    store = opened(tmp_path)
    assert counts == await store.counts(ENDPOINT)
    assert 300 == counts.completed
    assert ["first", "second", "third"] == await taken(store, A, limit=9)
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
