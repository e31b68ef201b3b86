"""What every `JobStore` promises: order, compare-and-set, the clock's view, demand and counts.

Output and limits have a suite of their own, `test_job_store_payload_contract.py`.
"""

import pytest

from runyard.domain.errors import Conflict, RunyardError
from runyard.domain.fleet import Demand
from runyard.domain.job import DEFAULT_POLICY, EndpointId, ExecutionPolicy, Job, JobId, JobState
from runyard.domain.terms import QUEUE
from runyard.ports.stores import JobCounts, JobQuery, JobStore
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, B, kept, put_away, saved, stored, taken

OTHER = EndpointId("endpoint-2")
LOW = ExecutionPolicy(low_priority=True)
LATER = START + 100

# Order


async def test_jobs_are_taken_first_in_first_out(store: JobStore) -> None:
    await stored(store, "c", "a", "b")

    assert [["c"], ["a"], ["b"], []] == [await taken(store) for _ in range(4)]


async def test_a_take_gives_at_most_what_was_asked_for(store: JobStore) -> None:
    await stored(store, "a", "b", "c")

    assert ["a", "b"] == await taken(store, limit=2)
    assert ["c"] == await taken(store, limit=2)


async def test_a_job_of_low_priority_is_taken_in_its_turn(store: JobStore) -> None:
    for number, policy in enumerate((LOW, DEFAULT_POLICY, DEFAULT_POLICY, LOW, DEFAULT_POLICY)):
        await stored(store, str(number), policy=policy)
    low, usual, _ = await store.take(ENDPOINT, A, 3, LATER)
    for job in (usual, low):
        await saved(store, job, job.lose_worker(LATER, "it died"))

    assert ["3", "4"] == await taken(store, A, limit=9), "A has lost the others"
    assert ["0", "1"] == await taken(store, B, limit=9)


async def test_a_taken_job_is_leased_and_stored_so(store: JobStore) -> None:
    [job] = await stored(store, "a")
    [got] = await store.take(ENDPOINT, A, 1, LATER)

    assert job.take(A, LATER) == got == await kept(store, job)


async def test_endpoints_share_no_jobs(store: JobStore) -> None:
    await stored(store, "a")
    await stored(store, "b", endpoint_id=OTHER)

    assert ["a"] == await taken(store, limit=9)
    assert None is await store.get(OTHER, JobId("a"))
    assert ["b"] == [job.id for job in await store.take(OTHER, A, 9, LATER)]


async def test_a_job_kept_with_its_lease_is_nobody_elses(store: JobStore) -> None:
    job = a_job().take(A, START)
    await store.add(job)

    assert [] == await taken(store, B)
    assert job == await kept(store, job)


async def test_a_new_job_may_be_leased_before_it_is_kept(store: JobStore) -> None:
    job = a_job()
    change = await store.add_soon(job)
    [leased] = await store.take(ENDPOINT, A, 1, START)

    assert leased == await store.latest(ENDPOINT, job.id)
    await store.kept(change)
    assert leased == await kept(store, job)


async def test_a_job_is_kept_though_nobody_hurries(store: JobStore) -> None:
    lost: list[RunyardError] = []
    store.if_lost(await store.add_soon(a_job()), lost.append)

    assert [] == lost
    assert ["job-1"] == await taken(store)
    with pytest.raises(Conflict):
        await store.add_soon(a_job())


async def test_the_latest_of_a_job_is_asked_for_with_its_endpoint(store: JobStore) -> None:
    await stored(store, "a")

    assert None is await store.latest(OTHER, JobId("a"))
    assert None is await store.latest(ENDPOINT, JobId("b"))


async def test_a_returned_job_goes_first(store: JobStore) -> None:
    await stored(store, "a", "b", "c")
    first, second = await store.take(ENDPOINT, A, 2, LATER)
    for job in (second, first):
        await saved(store, job, job.give_back())

    assert ["a", "b", "c"] == await taken(store, limit=9)


async def test_a_take_that_is_undone_leaves_all_in_their_places(store: JobStore) -> None:
    await stored(store, "a", "b", fenced_from=frozenset({A}))
    await stored(store, "c", "d")
    [given] = await store.take(ENDPOINT, A, 1, LATER)
    await saved(store, given, given.give_back())
    leased = a_job("e").take(A, LATER)
    await store.add(leased)
    await saved(store, leased, leased.give_back())
    await stored(store, "f")

    assert "c" == given.id
    assert ["a", "b", "c", "d", "e", "f"] == await taken(store, B, limit=9)


async def test_a_job_that_lost_its_worker_goes_first(store: JobStore) -> None:
    await stored(store, "a", "b")
    [job] = await store.take(ENDPOINT, A, 1, LATER)
    await saved(store, job, job.lose_worker(LATER, "it died"))

    assert ["a", "b"] == await taken(store, B, limit=9)


async def test_a_retried_job_goes_last(store: JobStore) -> None:
    await stored(store, "a", "b")
    [job] = await store.take(ENDPOINT, A, 1, LATER)
    failed = await saved(store, job, job.fail("boom", None, LATER))
    await saved(store, failed, failed.retry(LATER))

    assert ["b", "a"] == await taken(store, limit=9)


async def test_a_job_changed_while_it_waits_keeps_its_place(store: JobStore) -> None:
    first, second, _ = await stored(store, "a", "b", "c")
    await saved(store, second, second.expire_in(60, LATER))
    await saved(store, first, first.expire_in(60, LATER))

    assert ["a", "b", "c"] == await taken(store, limit=9)


async def test_a_job_never_goes_to_a_worker_it_is_fenced_from_and_holds_up_nobody(store: JobStore) -> None:
    await stored(store, "a", fenced_from=frozenset({A}))
    await stored(store, "b")

    assert ["b"] == await taken(store, A, limit=9)
    assert [] == await taken(store, A)
    assert ["a"] == await taken(store, B)


# Compare and set


async def test_what_is_not_there_is_none(store: JobStore) -> None:
    assert None is await store.get(ENDPOINT, JobId("a"))


async def test_an_id_is_used_once(store: JobStore) -> None:
    [job] = await stored(store, "a")

    with pytest.raises(Conflict, match="job a exists"):
        await store.add(a_job("a", input=b"2"))
    assert job == await kept(store, job)


async def test_a_save_over_another_state_changes_nothing(store: JobStore) -> None:
    [waiting] = await stored(store, "a")
    [running] = await store.take(ENDPOINT, A, 1, LATER)
    done = await saved(store, running, running.complete(b"1", LATER))

    assert not await store.save(waiting.cancel(LATER), was=waiting)
    assert not await store.save(running.fail("late", None, LATER), was=running)
    assert done == await kept(store, done)
    assert [] == await taken(store, B)


async def test_a_job_is_compared_by_what_it_says_not_by_which_object_it_is(store: JobStore) -> None:
    [job] = await stored(store, "a")
    same = a_job("a")

    assert await store.save(same.cancel(LATER), was=same)
    assert JobState.CANCELLED == (await kept(store, job)).state


async def test_what_was_removed_cannot_be_saved(store: JobStore) -> None:
    [job] = await stored(store, "a")

    assert await put_away(store, job)
    assert not await put_away(store, job)
    assert not await store.save(job.cancel(LATER), was=job)
    assert None is await store.get(ENDPOINT, job.id)
    assert [] == await taken(store)


async def test_a_job_that_has_changed_is_not_removed(store: JobStore) -> None:
    [job] = await stored(store, "a")
    await taken(store)

    assert not await put_away(store, job)
    assert None is not await store.get(ENDPOINT, job.id)


async def test_a_removed_id_may_come_again(store: JobStore) -> None:
    [job] = await stored(store, "a")
    await put_away(store, job)
    await stored(store, "a")

    assert ["a"] == await taken(store)


# The clock


async def test_jobs_are_due_when_they_expire_or_run_too_long_the_longest_due_first(store: JobStore) -> None:
    await stored(store, "sleeper")
    await stored(store, "runner", execution_timeout_s=50.0)
    await stored(store, "waiter", expires_at=START + 30.5)
    await store.take(ENDPOINT, A, 2, START + 10)

    assert [] == await store.due(START + 30.4, 9)
    assert ["waiter"] == [job.id for job in await store.due(START + 30.5, 9)]
    assert ["waiter", "runner"] == [job.id for job in await store.due(START + 60, 9)]
    assert ["waiter"] == [job.id for job in await store.due(START + 60, 1)]
    assert ["waiter", "runner", "sleeper"] == [job.id for job in await store.due(START + 10**6, 9)]


async def test_a_job_is_due_at_its_latest_time_only(store: JobStore) -> None:
    [job] = await stored(store, "a", expires_at=START + 30, retention_s=60.0)
    job = await saved(store, job, job.expire_in(100, START))
    [job] = await store.take(ENDPOINT, A, 1, START + 10)
    await saved(store, job, job.complete(None, START + 20))

    assert [] == await store.due(START + 79.9, 9)
    assert ["a"] == [job.id for job in await store.due(START + 80, 9)]


async def test_a_running_job_that_may_finish_is_due_when_it_runs_too_long_and_once_it_waits_again(
    store: JobStore,
) -> None:
    await stored(store, "a", ttl_scope=QUEUE, expires_at=START + 30, execution_timeout_s=50.0)
    [job] = await store.take(ENDPOINT, A, 1, START + 10)

    assert [] == await store.due(START + 59.9, 9)
    assert ["a"] == [job.id for job in await store.due(START + 60, 9)]
    await saved(store, job, job.lose_worker(START + 40, "it died"))
    assert ["a"] == [job.id for job in await store.due(START + 40, 9)]


async def test_a_job_whose_time_is_over_is_not_taken_any_more(store: JobStore) -> None:
    await stored(store, "over", expires_at=LATER)
    await stored(store, "on", expires_at=LATER + 0.1)

    assert ["on"] == [job.id for job in await store.take(ENDPOINT, A, 9, LATER)]


async def test_jobs_stay_due_until_something_is_done_about_them(store: JobStore) -> None:
    [job] = await stored(store, "a", expires_at=START + 30)
    for now in (START + 30, START + 31, START + 999):
        assert [job] == await store.due(now, 9)
    await put_away(store, job)

    assert [] == await store.due(START + 999, 9)


async def test_the_due_are_found_in_whatever_order_they_came(store: JobStore) -> None:
    seconds = [(number * 37) % 100 for number in range(100)]
    for number in seconds:
        await store.add(a_job(f"j{number:02}", expires_at=START + number))

    assert [f"j{number:02}" for number in range(50)] == [job.id for job in await store.due(START + 49, 999)]
    assert [f"j{number:02}" for number in range(7)] == [job.id for job in await store.due(START + 49, 7)]


# Demand and counts


async def test_demand_is_what_waits_and_what_runs(store: JobStore) -> None:
    await stored(store, "run-1", "run-2")
    await taken(store, limit=2)
    await stored(store, "low", policy=LOW)
    await stored(store, *"abcde")

    assert Demand(
        queued=6, pressing=5, overdue=3, oldest_at=START, next_at=START + 3, in_progress=2
    ) == await store.demand(ENDPOINT, START + 2, 99)


async def test_demand_is_counted_as_far_as_asked(store: JobStore) -> None:
    await stored(store, *"abcde")
    demand = await store.demand(ENDPOINT, START + 9, 2)

    assert (5, 2, 2) == (demand.queued, demand.pressing, demand.overdue)


async def test_a_returned_job_is_the_first_that_presses(store: JobStore) -> None:
    await stored(store, *"abc")
    [job] = await store.take(ENDPOINT, A, 1, LATER)
    await saved(store, job, job.give_back())
    demand = await store.demand(ENDPOINT, START - 1, 1)

    assert (START, START) == (demand.oldest_at, demand.next_at)


async def test_low_priority_jobs_press_nobody_wherever_they_come_back(store: JobStore) -> None:
    await stored(store, "a", policy=LOW)
    [job] = await store.take(ENDPOINT, A, 1, LATER)
    await saved(store, job, job.give_back())

    assert Demand(queued=1) == await store.demand(ENDPOINT, LATER, 99)


async def test_an_endpoint_nobody_used_has_no_demand(store: JobStore) -> None:
    assert Demand() == await store.demand(OTHER, START, 9)
    assert JobCounts() == await store.counts(OTHER)
    assert ((), None) == ((page := await store.list(OTHER, JobQuery())).jobs, page.next)


async def test_counts_are_of_now_and_of_all_time(store: JobStore) -> None:
    await stored(store, *"abcdef")
    running = await store.take(ENDPOINT, A, 5, LATER)
    ends = (Job.complete, Job.complete)
    for job, end in zip(running, ends, strict=False):
        await saved(store, job, end(job, None, LATER))
    await saved(store, running[2], running[2].fail("boom", None, LATER))
    await saved(store, running[3], running[3].time_out(LATER))
    await store.purge(ENDPOINT, LATER, 9)
    for job in await store.due(START + 10**6, 99):
        if job.terminal:
            await put_away(store, job)

    assert JobCounts(completed=2, failed=1, timed_out=1, cancelled=1, in_progress=1) == await store.counts(ENDPOINT)


async def test_a_job_counts_as_retried_each_time_it_is_tried_again_by_itself(store: JobStore) -> None:
    await stored(store, "a")
    for worker in ("w1", "w2", "w3"):
        [job] = await store.take(ENDPOINT, A, 1, LATER)
        await saved(store, job, job.lose_worker(LATER, f"{worker} died")._replace(fenced_from=frozenset()))

    assert JobCounts(failed=1, retried=2) == await store.counts(ENDPOINT)


async def test_a_run_that_a_user_asks_for_counts_its_end_again(store: JobStore) -> None:
    [job] = await stored(store, "a")
    for _ in range(2):
        [job] = await store.take(ENDPOINT, B, 1, LATER)
        job = await saved(store, job, job.fail("boom", None, LATER))
        job = await saved(store, job, job.retry(LATER))

    assert JobCounts(failed=2, in_queue=1) == await store.counts(ENDPOINT)


# Many at once


async def test_a_purge_cancels_what_waits_longest_first_and_leaves_what_runs(store: JobStore) -> None:
    jobs = await stored(store, *"abcd")
    await taken(store)

    assert [["b", "c"], ["d"], []] == [await store.purge(ENDPOINT, LATER, 2) for _ in range(3)]
    assert [JobState.IN_PROGRESS, *[JobState.CANCELLED] * 3] == [(await kept(store, job)).state for job in jobs]
    assert jobs[1].cancel(LATER) == await kept(store, jobs[1])
    assert Demand(in_progress=1) == await store.demand(ENDPOINT, LATER, 9)


async def test_a_removed_endpoint_leaves_nothing(store: JobStore) -> None:
    jobs = await stored(store, *"abc")
    await stored(store, "kept", endpoint_id=OTHER)
    [running] = await store.take(ENDPOINT, A, 1, LATER)
    await store.append_output(running, [b"1"])
    await store.remove_endpoint(ENDPOINT)
    await store.remove_endpoint(ENDPOINT)

    assert [None] * 3 == [await store.get(ENDPOINT, job.id) for job in jobs]
    assert JobCounts() == await store.counts(ENDPOINT)
    assert ["kept"] == [job.id for job in await store.due(START + 10**6, 9)]
    assert not await store.save(running.complete(None, LATER), was=running)


# Lists


async def test_jobs_are_listed_newest_first(store: JobStore) -> None:
    await stored(store, *"abc")
    await taken(store)

    assert ["c", "b", "a"] == [job.id for job in (await store.list(ENDPOINT, JobQuery())).jobs]


async def test_pages_hold_every_job_once_though_jobs_come_and_change_meanwhile(store: JobStore) -> None:
    await stored(store, *"abcdef")
    pages, after = [], None
    while True:
        page = await store.list(ENDPOINT, JobQuery(limit=3, after=after))
        pages.append([job.id for job in page.jobs])
        await stored(store, f"new-{len(pages)}")
        await taken(store)
        if (after := page.next) is None:
            break

    assert [["f", "e", "d"], ["c", "b", "a"]] == pages


async def test_a_list_may_be_of_some_states_or_one_worker(store: JobStore) -> None:
    await stored(store, *"abcd")
    [job, _] = await store.take(ENDPOINT, A, 2, LATER)
    await store.take(ENDPOINT, B, 1, LATER)
    await saved(store, job, job.complete(None, LATER))

    async def ids(**query: object) -> list[JobId]:
        return [job.id for job in (await store.list(ENDPOINT, JobQuery(**query))).jobs]

    assert ["c", "b"] == await ids(states=frozenset({JobState.IN_PROGRESS}))
    assert ["d", "a"] == await ids(states=frozenset({JobState.IN_QUEUE, JobState.COMPLETED}))
    assert ["b", "a"] == await ids(worker_id=A)
    assert ["b"] == await ids(worker_id=A, states=frozenset({JobState.IN_PROGRESS}))
    assert [] == await ids(states=frozenset({JobState.FAILED}))


async def test_a_page_past_the_newest_is_the_first_page(store: JobStore) -> None:
    await stored(store, *"ab")
    page = await store.list(ENDPOINT, JobQuery(after="999999999999999"))

    assert (["b", "a"], None) == ([job.id for job in page.jobs], page.next)
