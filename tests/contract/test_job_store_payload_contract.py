"""What every `JobStore` promises about payloads: stream output, and the bound of what it holds."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, Job, JobId
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobStore
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, B, NewStore, kept, put_away, saved, stored, taken

LATER = START + 100


async def running(store: JobStore, id: str = "a") -> Job:
    """A stored job that worker A holds."""
    job = a_job(id).take(A, START)
    await store.add(job)
    return job


# Output


async def test_each_chunk_is_drained_once_in_order(store: JobStore) -> None:
    job = await running(store)
    assert await store.append_output(job, [b"1", b"2"])
    first = await store.drain_output(job, None)
    assert await store.append_output(job, [b"3"])

    assert [b"1", b"2"] == first
    assert [b"3"] == await store.drain_output(job, None)
    assert [] == await store.drain_output(job, None)


async def test_a_drain_stays_within_its_bytes_but_always_moves_on(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1234", b"567", b"8", b"90"])

    assert [[b"1234"], [b"567"], [b"8", b"90"], []] == [await store.drain_output(job, 3) for _ in range(4)]


async def test_a_drain_may_reach_its_bound_exactly(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"12", b"34", b"5"])

    assert [b"12", b"34"] == await store.drain_output(job, 4)


async def test_chunks_are_taken_from_the_holder_of_the_job_only(store: JobStore) -> None:
    [waiting] = await stored(store, "a")
    [held] = await store.take(ENDPOINT, A, 1, START)
    elsewhere, earlier = waiting.take(B, START), waiting.take(A, START - 1)
    assert [False] * 3 == [await store.append_output(job, [b"1"]) for job in (waiting, elsewhere, earlier)]
    done = await saved(store, held, held.complete(None, LATER))

    assert [False] * 2 == [await store.append_output(job, [b"1"]) for job in (held, done)]
    assert [] == await store.drain_output(done, None)


async def test_progress_does_not_end_the_right_to_stream(store: JobStore) -> None:
    job = await running(store)
    await saved(store, job, job.progress(b'"half"'))

    assert await store.append_output(job, [b"1"])


async def test_output_outlives_the_end_of_its_job(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1"])
    done = await saved(store, job, job.cancel(LATER))

    assert [b"1"] == await store.drain_output(done, None)


@pytest.mark.parametrize("back", [Job.give_back, lambda job: job.lose_worker(LATER, "it died")], ids=["given", "lost"])
async def test_a_job_that_waits_again_has_no_output(store: JobStore, back: Any) -> None:
    job = await running(store)
    await store.append_output(job, [b"old"])
    await saved(store, job, back(job))
    [again] = await store.take(ENDPOINT, B, 1, LATER)
    await store.append_output(again, [b"new"])

    assert [b"new"] == await store.drain_output(again, None)


async def test_a_retried_job_has_no_output(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"old"])
    failed = await saved(store, job, job.fail("boom", None, LATER))
    retried = await saved(store, failed, failed.retry(LATER))

    assert [] == await store.drain_output(retried, None)


async def test_what_is_not_there_has_no_output(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1"])
    await put_away(store, job)

    assert not await store.append_output(job, [b"2"])
    assert [] == await store.drain_output(job, None)


# Output, read again and again


async def test_chunks_are_read_from_any_place_by_any_number_of_readers(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1", b"2", b"3"])

    assert [b"1", b"2", b"3"] == await store.read_output(job, 0, 100)
    assert [b"1", b"2", b"3"] == await store.read_output(job, 0, 100)
    assert [[b"2", b"3"], [b"3"], [], []] == [await store.read_output(job, after, 100) for after in (1, 2, 3, 9)]


async def test_reading_and_draining_know_nothing_of_each_other(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1", b"2"])
    await store.read_output(job, 0, 100)

    assert [b"1", b"2"] == await store.drain_output(job, None)
    await store.append_output(job, [b"3"])
    assert [b"1", b"2", b"3"] == await store.read_output(job, 0, 100)


async def test_a_read_stays_within_its_bytes_but_always_moves_on(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1234", b"567", b"8", b"90"])

    assert [[b"1234"], [b"567"], [b"8", b"90"]] == [await store.read_output(job, after, 3) for after in (0, 1, 2)]


async def test_chunks_can_be_read_after_the_end_and_beside_progress(store: JobStore) -> None:
    job = await running(store)
    await store.append_output(job, [b"1"])
    going = await saved(store, job, job.progress(b'"half"'))
    assert [b"1"] == await store.read_output(job, 0, 100)
    done = await saved(store, going, going.complete(b"[]", LATER))

    assert [[b"1"]] * 3 == [await store.read_output(one, 0, 100) for one in (job, going, done)]


async def test_a_reader_gets_chunks_of_the_attempt_it_asks_for_only(store: JobStore) -> None:
    first = await running(store)
    await store.append_output(first, [b"old", b"older"])
    waiting = await saved(store, first, first.lose_worker(LATER, "it died"))
    assert [[], []] == [await store.read_output(job, 0, 100) for job in (first, waiting)]
    [second] = await store.take(ENDPOINT, B, 1, LATER)
    await store.append_output(second, [b"new", b"newer"])

    assert [] == await store.read_output(first, 1, 100)
    assert [b"newer"] == await store.read_output(second, 1, 100)


async def test_what_is_not_there_has_nothing_to_read(store: JobStore) -> None:
    job = await running(store)
    assert [] == await store.read_output(job, 0, 100)
    await store.append_output(job, [b"1"])
    await put_away(store, job)

    assert [] == await store.read_output(job, 0, 100)


# Bounds


async def fits(store: JobStore, size: int) -> bool:
    """Whether a job with an input of that size is taken; it is not kept."""
    probe = a_job("probe", input=b"x" * size)
    try:
        await store.add(probe)
    except TooBusy:
        return False
    return await put_away(store, probe)


async def test_a_full_store_refuses_a_job_and_keeps_what_it_has(new_store: NewStore) -> None:
    store = new_store(10)
    [job] = await stored(store, "a", input=b"12345678")

    with pytest.raises(TooBusy, match=r"the job store is full \(10 bytes of payload\)"):
        await store.add(a_job("b", input=b"123"))
    assert None is await store.get(ENDPOINT, JobId("b"))
    assert await fits(store, 2)
    assert ["a"] == await taken(store, limit=9)
    assert job.input == (await kept(store, job)).input


async def test_a_full_store_refuses_chunks_but_never_a_result(new_store: NewStore) -> None:
    store = new_store(len(a_job().input))
    job = await running(store)

    with pytest.raises(TooBusy):
        await store.append_output(job, [b"1"])
    assert await store.save(job.complete(b'"a result larger than all the store"', LATER), was=job)
    assert [] == await store.drain_output(job, None)


async def test_all_that_is_as_long_as_others_like_takes_room(new_store: NewStore) -> None:
    store = new_store(10)
    await stored(store, "a", input=b"12", s3_config=b"3", webhook="4")
    [job] = await store.take(ENDPOINT, A, 1, START)
    assert (await fits(store, 6), await fits(store, 7)) == (True, False)
    await saved(store, job, job.fail("56", b"78", LATER))

    assert (await fits(store, 2), await fits(store, 3)) == (True, False)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "take", "done", "fail", "lose", "give", "retry", "chunk", "drain", "progress", "purge"]
        ),
        st.integers(0, 60),
    ),
    min_size=10,
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, by_endpoint=st.booleans())
async def test_all_room_comes_back_when_the_jobs_have_gone(
    new_store: NewStore, steps: list[tuple[str, int]], by_endpoint: bool
) -> None:
    store = new_store(100)
    jobs: dict[JobId, Job] = {}
    for number, (verb, size) in enumerate(steps):
        with suppress(TooBusy):
            await _step(store, jobs, verb, size, number)
        jobs = {id: await kept(store, job) for id, job in jobs.items()}
    if by_endpoint:
        await store.remove_endpoint(ENDPOINT)
    else:
        for job in jobs.values():
            await put_away(store, job)

    assert (await fits(store, 100), await fits(store, 101)) == (True, False)


async def _step(store: JobStore, jobs: dict[JobId, Job], verb: str, size: int, number: int) -> None:
    payload = b"x" * size
    held = next((job for job in jobs.values() if job.lease is not None and not job.terminal), None)
    ended = next((job for job in jobs.values() if job.error is not None), None)
    match verb:
        case "add":
            job = a_job(f"j{number}", input=payload if size % 4 else Spilled(f"payload-{number}", 1 << 30))
            await store.add(job)
            jobs[job.id] = job
        case "take":
            await store.take(ENDPOINT, A if size % 2 else B, 1 + size % 3, START)
        case "purge":
            await store.purge(ENDPOINT, START, 1 + size % 3)
        case "retry" if ended is not None:
            await store.save(ended.retry(START), was=ended)
        case "chunk" if held is not None:
            await store.append_output(held, [payload, payload])
        case "drain" if held is not None:
            await store.drain_output(held, size)
        case _ if held is not None and verb in _CHANGES:
            await store.save(_CHANGES[verb](held, payload), was=held)
        case _:
            pass


_CHANGES: dict[str, Any] = {
    "done": lambda job, payload: job.complete(payload, START),
    "fail": lambda job, payload: job.fail("boom", payload, START),
    "lose": lambda job, payload: job.lose_worker(START, "it died"),
    "give": lambda job, payload: job.give_back(),
    "progress": lambda job, payload: job.progress(payload),
}


async def test_one_endpoint_may_leave_room_for_another(new_store: NewStore) -> None:
    store = new_store(10)
    await stored(store, "a", input=b"1234567890")
    await store.remove_endpoint(ENDPOINT)
    await store.add(a_job("b", input=b"1234567890", endpoint_id=EndpointId("other")))


# Large payloads


async def test_an_input_that_lies_elsewhere_is_named_and_does_not_count_as_held(new_store: NewStore) -> None:
    store = new_store(1000)
    input = Spilled("payload-1", 1 << 40)
    [waiting] = await stored(store, "a", input=input)
    assert (input, input) == ((await kept(store, waiting)).input, (await store.latest(ENDPOINT, waiting.id)).input)
    [job] = await store.take(ENDPOINT, A, 1, START)
    assert input == job.input
    failed = await saved(store, job, job.fail("no", Spilled("payload-2", 1 << 40), LATER))
    await saved(store, failed, failed.retry(LATER))
    [again] = await store.take(ENDPOINT, A, 1, LATER)

    assert (input, None) == (again.input, again.output)
    assert await fits(store, 1000)


async def test_an_output_that_lies_elsewhere_is_named_and_does_not_count_as_held(new_store: NewStore) -> None:
    store = new_store(1000)
    job = await running(store)
    progress = await saved(store, job, job.progress(Spilled("payload-1", 1 << 30)))
    done = await saved(store, progress, progress.complete(Spilled("payload-2", 1 << 40), LATER))

    assert done == await kept(store, done)
    assert Spilled("payload-2", 1 << 40) == (await kept(store, done)).output
    await store.add(a_job("b", input=b"x" * 500))
