"""What a `JobStore` and its `Archive` promise about jobs that were put away, for every adapter."""

import pytest

from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, Job, JobState
from runyard.domain.payload import Spilled
from runyard.domain.tombstone import tombstone_of
from runyard.ports.archive import STEP
from runyard.ports.stores import JobQuery, JobStore
from tests.builders import ENDPOINT, START, a_job, a_job_that_is
from tests.contract.job_stores import A, NewStore, kept, put_away, saved, stored, taken

END, LATER = START + 60, START + 1000
"""When all jobs here have expired, and when they are put away."""
OTHER = EndpointId("endpoint-2")


async def away(store: JobStore, id: str, state: JobState = JobState.COMPLETED, **changes: object) -> Job:
    """A job that has ended, streamed something, and been put away."""
    waiting = a_job(id, **{"expires_at": END, **changes})
    await store.add(leased := waiting.take(A, START + 1))
    await store.append_output(leased, [b"1", b"2"])
    ended = {
        JobState.COMPLETED: lambda: leased.complete(b'"done"', START + 2),
        JobState.FAILED: lambda: leased.fail("boom", None, START + 2),
        JobState.CANCELLED: lambda: leased.cancel(START + 2),
        JobState.TIMED_OUT: lambda: leased.time_out(START + 2),
    }[state]()
    await saved(store, leased, ended)
    assert await put_away(store, ended, LATER)
    return ended


async def listed(store: JobStore, **query: object) -> list[str]:
    return [job.id for job in (await store.list(ENDPOINT, JobQuery(**query))).jobs]  # type: ignore[arg-type]


# Reading


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT])
async def test_a_job_that_was_put_away_is_there_as_it_ended(store: JobStore, state: JobState) -> None:
    job = await away(store, "a", state, fingerprint=b"f" * 32, s3_config=b"{}")

    assert job == await kept(store, job) == await store.find(ENDPOINT, job.id)
    assert [] == await store.read_output(job, 1, 100), "its stream is gone"
    assert [] == await store.drain_output(job, None)
    assert None is await store.get(OTHER, job.id)
    assert [] == await store.due(LATER, 9)
    assert None is await store.latest(ENDPOINT, job.id), "nothing more happens to it by itself"


async def test_an_output_that_lies_elsewhere_is_named(store: JobStore) -> None:
    [job] = await stored(store, "a", expires_at=END)
    [job] = await store.take(ENDPOINT, A, 1, START)
    ended = await saved(store, job, job.complete(Spilled("there", 5_000_000), START + 2))
    used = await store.archive.used_bytes()
    await put_away(store, ended, LATER)

    assert Spilled("there", 5_000_000) == (await kept(store, ended)).output
    assert await store.archive.used_bytes() - used >= 5_000_000


async def test_an_input_that_lies_elsewhere_is_named_and_counted_with_the_output(store: JobStore) -> None:
    await stored(store, "a", expires_at=END, input=Spilled("in", 3_000_000))
    [job] = await store.take(ENDPOINT, A, 1, START)
    ended = await saved(store, job, job.fail("no", Spilled("out", 5_000_000), START + 2))
    used = await store.archive.used_bytes()
    await put_away(store, ended, LATER)
    assert ended == await kept(store, ended)
    assert await store.archive.used_bytes() - used >= 8_000_000
    again = await saved(store, ended, ended.retry(LATER))
    assert Spilled("in", 3_000_000) == (await kept(store, again)).input
    again = await saved(store, again, again.cancel(LATER + 1))
    await put_away(store, again, LATER + 2)

    assert 3_000_000 <= await store.archive.forget_oldest(LATER * 2, 1) < 4_000_000


async def test_of_what_has_not_ended_a_tombstone_is_left(store: JobStore) -> None:
    waiting, running = await stored(store, "a", "b", expires_at=END, fingerprint=b"f" * 32)
    [running] = await store.take(ENDPOINT, A, 1, START)
    waiting = await kept(store, running._replace(id=a_job("b").id))
    for job in (running, waiting):
        assert await put_away(store, job, LATER)

        assert None is await store.get(ENDPOINT, job.id)
        assert tombstone_of(job, LATER) == await store.find(ENDPOINT, job.id)
        assert None is await store.find(OTHER, job.id)
    assert [] == await listed(store)
    assert (0, 0) == ((await store.counts(ENDPOINT)).in_queue, (await store.counts(ENDPOINT)).in_progress)


# Lists


async def test_lists_hold_both_in_one_order_page_by_page(store: JobStore) -> None:
    await stored(store, "a")
    await away(store, "b")
    await stored(store, "c")
    await away(store, "d", JobState.FAILED)
    await away(store, "e")

    assert ["e", "d", "c", "b", "a"] == await listed(store)
    found: list[str] = []
    after: str | None = None
    while True:
        page = await store.list(ENDPOINT, JobQuery(limit=2, after=after))
        found += [job.id for job in page.jobs]
        if (after := page.next) is None:
            break
        assert len(page.jobs) == 2
    assert ["e", "d", "c", "b", "a"] == found


async def test_lists_choose_among_them_by_state_and_worker(store: JobStore) -> None:
    await away(store, "a")
    await away(store, "b", JobState.FAILED)
    await away(store, "c", JobState.TIMED_OUT)
    await stored(store, "d")

    assert ["c", "b"] == await listed(store, states=frozenset({JobState.FAILED, JobState.TIMED_OUT}))
    assert ["b"] == await listed(store, states=frozenset({JobState.FAILED}))
    assert ["d", "a"] == await listed(store, states=frozenset({JobState.COMPLETED, JobState.IN_QUEUE}))
    assert ["c", "b", "a"] == await listed(store, worker_id=A)
    assert [] == await listed(store, states=frozenset({JobState.FAILED}), worker_id=a_job_that_is(JobState.FAILED).id)


async def test_pages_miss_nothing_where_jobs_have_come_back_amid_them(store: JobStore) -> None:
    jobs = [await away(store, id, JobState.FAILED) for id in "abcdef"]
    for job in (jobs[4], jobs[3]):
        await saved(store, job, job.retry(LATER))

    failed = frozenset({JobState.FAILED})
    found: list[str] = []
    page = await store.list(ENDPOINT, JobQuery(states=failed, limit=2))
    for _ in range(9):
        found += [job.id for job in page.jobs]
        if page.next is None:
            break
        page = await store.list(ENDPOINT, JobQuery(states=failed, limit=2, after=page.next))
    assert ["f", "c", "b", "a"] == found


# Coming back


async def test_a_job_comes_back_to_be_retried(store: JobStore) -> None:
    failed = await away(store, "a", JobState.FAILED)
    counts = await store.counts(ENDPOINT)
    again = await saved(store, failed, failed.retry(LATER))

    assert counts.failed == (await store.counts(ENDPOINT)).failed
    assert ["a"] == await listed(store)
    assert [] == await store.drain_output(again, None)
    assert ["a"] == await taken(store)
    running = await kept(store, failed)
    assert not await store.save(failed.retry(LATER), was=failed)
    done = await saved(store, running, running.complete(b'"now"', LATER))
    await put_away(store, done, LATER + 10_000)
    assert done == await kept(store, done)
    assert ["a"] == await listed(store)


async def test_a_job_comes_back_to_live_longer(store: JobStore) -> None:
    job = await away(store, "a")
    longer = await saved(store, job, job.expire_in(500, LATER))

    assert [longer] == await store.due(LATER + 500, 9)
    assert longer == await store.latest(ENDPOINT, longer.id)


async def test_a_job_that_came_back_leaves_no_tombstone_before_its_end(store: JobStore) -> None:
    ended = await away(store, "a")
    await saved(store, ended, ended.expire_in(100_000, LATER))
    while await store.archive.forget(ENDPOINT, LATER, LATER):
        pass
    assert await kept(store, ended)

    await store.remove_endpoint(ENDPOINT)
    while await store.archive.clear(ENDPOINT):
        pass
    assert None is await store.find(ENDPOINT, ended.id)


async def test_a_job_does_not_come_back_where_there_is_no_room(new_store: NewStore) -> None:
    store = new_store(2000)
    failed = await away(store, "a", JobState.FAILED, input=b"1" * 1500)
    await store.add(a_job("b", input=b"1" * 1000))

    with pytest.raises(TooBusy):
        await store.save(failed.retry(LATER), was=failed)
    assert failed == await kept(store, failed)
    assert None is await store.latest(ENDPOINT, failed.id)


async def test_what_was_put_away_otherwise_does_not_come_back(store: JobStore) -> None:
    failed = await away(store, "a", JobState.FAILED)

    assert not await store.save(failed.retry(LATER), was=failed._replace(error="another"))
    assert failed == await kept(store, failed)


async def test_a_retried_job_that_expires_unfinished_leaves_no_older_end(store: JobStore) -> None:
    failed = await away(store, "a", JobState.FAILED)
    again = await saved(store, failed, failed.retry(LATER))
    await put_away(store, again, LATER + 10**6)

    assert tombstone_of(again, LATER + 10**6) == await store.find(ENDPOINT, again.id)
    assert [] == await listed(store)


async def test_an_id_at_two_endpoints_names_two_jobs(store: JobStore) -> None:
    job = await away(store, "a")
    other = await away(store, "a", JobState.FAILED, endpoint_id=OTHER)

    assert (job, other) == (await kept(store, job), await kept(store, other))
    await store.add(living := a_job("a", endpoint_id=EndpointId("endpoint-3")).take(A, START))
    await store.append_output(living, [b"private"])
    assert [] == await store.drain_output(job, None)
    assert [] == await store.read_output(job, 0, 100)
    assert ["a"] == await listed(store)


# Forgetting


async def test_what_is_forgotten_leaves_a_tombstone(store: JobStore) -> None:
    job = await away(store, "a", fingerprint=b"f" * 32)
    late = await away(store, "b", expires_at=END + 100)

    assert 0 == await store.archive.forget(ENDPOINT, END - 1, LATER)
    assert 1 == await store.archive.forget(ENDPOINT, END, LATER)
    assert tombstone_of(job, LATER) == await store.find(ENDPOINT, job.id)
    assert None is await store.get(ENDPOINT, job.id)
    assert late == await kept(store, late)
    assert ["b"] == await listed(store)


async def test_the_first_expired_of_an_endpoint_go_first(store: JobStore) -> None:
    ids = [f"job-{number}" for number in range(STEP + 1)]
    for number, id in enumerate(ids):
        await away(store, id, expires_at=END - number % 2)

    assert STEP == await store.archive.forget(ENDPOINT, END, LATER)
    assert ids[-1:] == await listed(store)
    assert 1 == await store.archive.forget(ENDPOINT, END, LATER)
    assert 0 == await store.archive.forget(ENDPOINT, END, LATER)


async def test_the_longest_here_go_first_and_never_before_they_expire(store: JobStore) -> None:
    young = await away(store, "young", expires_at=LATER + 1)
    old = await away(store, "old", endpoint_id=OTHER)

    assert 0 < await store.archive.forget_oldest(LATER, 1 << 30)
    assert None is await store.get(OTHER, old.id)
    assert 0 == await store.archive.forget_oldest(LATER, 1 << 30)
    assert 0 == await store.archive.forget(ENDPOINT, LATER, LATER)
    assert young == await kept(store, young)


async def test_no_more_is_forgotten_than_was_asked_for(store: JobStore) -> None:
    for id in "abc":
        await away(store, id, input=b"1" * 5000)
    freed = await store.archive.forget_oldest(LATER, 6000)

    assert 10_000 < freed < 12_000
    assert ["c"] == await listed(store)


async def test_an_endpoint_that_is_no_more_leaves_nothing(store: JobStore) -> None:
    job, other = await away(store, "a", expires_at=LATER * 2), await away(store, "b", endpoint_id=OTHER)

    assert {ENDPOINT, OTHER} == set(await store.archive.endpoints())
    assert 1 == await store.archive.clear(ENDPOINT)
    assert 0 == await store.archive.clear(ENDPOINT)
    assert [OTHER] == await store.archive.endpoints()
    assert None is await store.find(ENDPOINT, job.id)
    assert other == await kept(store, other)


async def test_tombstones_go_by_their_age_those_of_named_jobs_by_another(store: JobStore) -> None:
    named = await away(store, "named", fingerprint=b"f" * 32)
    unnamed = await away(store, "unnamed")
    assert 2 == await store.archive.forget(ENDPOINT, END, LATER)

    assert 0 == await store.archive.bury(LATER - 1, LATER - 1)
    assert 1 == await store.archive.bury(LATER, LATER - 1)
    assert None is await store.find(ENDPOINT, unnamed.id)
    assert None is not await store.find(ENDPOINT, named.id)
    assert 1 == await store.archive.bury(LATER, LATER)
    assert None is await store.find(ENDPOINT, named.id)


async def test_what_is_put_away_gives_its_room_to_others(new_store: NewStore) -> None:
    store = new_store(2000)
    await away(store, "a", input=b"1" * 1500)
    await store.add(a_job("b", input=b"1" * 1900))

    with pytest.raises(TooBusy):
        await store.add(a_job("c", input=b"1" * 1900))
    assert await store.archive.used_bytes() >= 1500
