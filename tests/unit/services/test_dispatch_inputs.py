"""Jobs whose inputs are spilled, on their way to workers: they are taken when their input is in hand, and in order."""

import asyncio
import itertools
import logging
from collections.abc import Iterator

import pytest

from runyard.domain.errors import TooBusy
from runyard.domain.job import JobId, JobState
from runyard.domain.payload import Spilled
from runyard.services import hand, topics
from tests.builders import ENDPOINT
from tests.inputs_kit import LARGE, Poll, Scene, turns

pytestmark = pytest.mark.looptime


@pytest.fixture
def scene() -> Iterator[Scene]:
    return Scene()


async def test_a_large_input_lies_elsewhere_while_its_job_waits_and_is_there_when_that_is_taken(scene: Scene) -> None:
    await scene.queue(a=LARGE)
    waiting = await scene.job("a")
    poll = await scene.poll()

    assert isinstance(waiting.input, Spilled)
    assert LARGE == scene.payloads.load(waiting.input)
    assert {"a": LARGE} == poll.answer
    assert waiting.input == (await scene.job("a")).input, "the store has it no more than before"
    assert 0 == scene.inputs._hand.bytes, "nor is it in hand any more"  # pyright: ignore[reportPrivateUsage]


async def test_an_input_at_the_limit_is_no_large_one(scene: Scene) -> None:
    await scene.queue(a=LARGE[:-1])

    assert {} == scene.payloads.held
    assert LARGE[:-1] == (await scene.job("a")).input


async def test_a_parked_poll_gets_a_large_input_too_and_those_who_have_left_do_not(scene: Scene) -> None:
    await scene.poll("gone")
    here, gone = await scene.poll("here"), await scene.poll("gone")
    gone.client = False
    await scene.queue(a=LARGE)
    await turns()

    assert {"a": LARGE} == here.answer
    assert {} == scene.worker("gone").held
    assert 0 == (await scene.job("a")).attempts_lost
    assert ["a"] == scene.payloads.opened, "what could not be handed over stays in hand"


async def test_a_batch_has_what_is_in_hand_and_large_and_small_ones_keep_their_order(scene: Scene) -> None:
    await scene.queue(a=b"1", b=LARGE, c=b"3", d=LARGE)
    first, second = [await scene.poll(limit=9) for _ in range(2)]

    assert {"a": b"1"} == first.answer
    assert [("b", LARGE), ("c", b"3"), ("d", LARGE)] == list((second.answer or {}).items())


async def test_an_answer_has_no_more_than_so_much_input_and_the_rest_is_for_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand, "ANSWER_BYTES_MAX", 2 * len(LARGE))
    await scene.queue(z=b"0", a=LARGE, b=LARGE, c=LARGE, d=b"4", e=LARGE * 3)
    await scene.poll("w0")
    await scene.dispatch.poll(scene.worker("w0"), left := Poll(1, idle=False))
    assert scene.dispatch.leave(scene.worker("w0"), left)
    await turns()
    polls = [await scene.poll(f"w{number}", limit=9) for number in range(3)]

    assert [{"a": LARGE, "b": LARGE}, {"c": LARGE, "d": b"4"}, {"e": LARGE * 3}] == [poll.answer for poll in polls]


async def test_a_job_whose_input_is_gone_fails_and_says_where_it_was_and_the_next_is_taken(scene: Scene) -> None:
    ended: list[str] = []
    scene.signals.subscribe("a", lambda: ended.append("a"))
    await scene.queue(a=LARGE, b=b"2")
    [(kept, _)] = scene.payloads.held.values()
    scene.payloads.held.clear()
    poll = await scene.poll()
    job = await scene.job("a")

    assert (JobState.FAILED, f"the job's input is lost: {kept.ref} is not there") == (job.state, job.error)
    assert None is job.execution_s
    assert {"b": b"2"} == poll.answer
    assert ["a"] == ended
    assert {"b"} == scene.worker().held.keys()


async def test_a_lost_input_that_is_back_can_be_retried(scene: Scene) -> None:
    await scene.queue(a=LARGE)
    held = dict(scene.payloads.held)
    scene.payloads.held.clear()
    poll = await scene.poll()
    scene.payloads.held |= held
    await scene.jobs.retry(ENDPOINT, JobId("a"))
    await turns()

    assert {"a": LARGE} == poll.answer


async def test_who_waits_for_workers_hears_of_a_job_that_fails_for_its_input(scene: Scene) -> None:
    await scene.queue(a=LARGE)
    scene.payloads.held.clear()
    woken: list[JobState] = []
    scene.signals.subscribe(
        topics.demand(ENDPOINT), lambda: woken.append(scene.store._index.find(ENDPOINT, JobId("a")).job.state)
    )  # type: ignore[union-attr]
    await scene.poll()

    assert JobState.FAILED in woken


# While inputs cannot be read

ERRORS = pytest.mark.parametrize(
    "error", [TooBusy("not now"), OSError(5, "Input/output error"), MemoryError()], ids=repr
)


@ERRORS
async def test_jobs_wait_in_their_order_and_so_do_the_small_ones_behind_them(scene: Scene, error: Exception) -> None:
    scene.payloads.broken, scene.payloads.error = {"b", "d"}, error
    await scene.queue(a=b"1", b=LARGE, c=b"3", d=LARGE, e=LARGE)
    assert {"a": b"1"} == (await scene.poll("w1", limit=9)).answer
    parked = await scene.poll("w2", limit=2)
    await scene.queue(f=b"6")
    await asyncio.sleep(60)
    jobs = [await scene.job(id) for id in "bcdef"]
    assert None is parked.answer
    assert {(JobState.IN_QUEUE, 0, ())} == {(job.state, job.attempts_lost, job.attempts) for job in jobs}
    scene.payloads.broken = set()
    await asyncio.sleep(20)

    assert ["b", "c"] == list(parked.answer or {})
    assert ["d", "e", "f"] == list((await scene.poll("w3", limit=9)).answer or {})


@ERRORS
async def test_it_is_tried_again_ever_more_rarely_and_said_once(
    scene: Scene, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene.payloads.broken, scene.payloads.error = {"a"}, error
    await scene.queue(a=LARGE)
    for number in range(5):
        await scene.poll(f"w{number}")
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(30)

    times = scene.payloads.opened_at
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [0.25, 0.5, 1, 2, 4, 8, 10] == pytest.approx(pauses)
    assert 1 == len(caplog.records)


async def test_what_ends_while_its_input_cannot_be_read_is_not_read_any_more_and_keeps_nobody(scene: Scene) -> None:
    scene.payloads.broken = {"a"}
    await scene.queue(a=LARGE, b=b"2")
    poll = await scene.poll()
    await scene.jobs.cancel(ENDPOINT, JobId("a"))
    await turns()
    assert {"b": b"2"} == poll.answer
    await asyncio.sleep(60)

    assert ["a"] == scene.payloads.opened


async def test_so_it_is_if_nobody_says_that_it_has_ended(scene: Scene) -> None:
    scene.payloads.broken = {"a"}
    await scene.queue(a=LARGE, b=b"2")
    poll = await scene.poll()
    was = await scene.job("a")
    await scene.store.save(was.cancel(scene.clock.now()), was=was)
    await asyncio.sleep(0.3)

    assert {"b": b"2"} == poll.answer
    assert ["a"] == scene.payloads.opened


# What happens while an input is loaded


async def loading(scene: Scene, *, parked: bool) -> Poll:
    """A poll that is to have a job as soon as its input is there."""
    scene.payloads.opens.clear()
    poll = Poll()
    if parked:
        await scene.dispatch.poll(scene.worker(), poll)
        await scene.queue(a=LARGE)
    else:
        await scene.queue(a=LARGE)
        await scene.dispatch.poll(scene.worker(), poll)
    await turns()
    assert ["a"] == scene.payloads.opened
    return poll


BOTH = pytest.mark.parametrize("parked", [False, True])


@BOTH
async def test_its_job_waits_and_its_time_does_not_run_yet(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    await asyncio.sleep(1000)
    job = await scene.job("a")
    assert (JobState.IN_QUEUE, None, None) == (job.state, job.lease, poll.answer)
    scene.payloads.opens.set()
    await turns()

    lease = (await scene.job("a")).lease
    assert {"a": LARGE} == poll.answer
    assert scene.clock.now() == (lease and lease.taken_at)


@BOTH
async def test_a_client_that_leaves_meanwhile_has_no_job_and_one_that_parked_meanwhile_gets_it(
    scene: Scene, *, parked: bool
) -> None:
    poll = await loading(scene, parked=parked)
    other = await scene.poll("other")
    poll.client = False
    assert scene.dispatch.leave(scene.worker(), poll)
    scene.payloads.opens.set()
    await turns()

    assert (None, {"a": LARGE}) == (poll.answer, other.answer)
    assert {} == scene.worker().held


@BOTH
async def test_a_job_that_is_cancelled_meanwhile_is_not_handed_over_and_the_next_is_at_once(
    scene: Scene, *, parked: bool
) -> None:
    poll = await loading(scene, parked=parked)
    await scene.queue(b=b"2")
    assert None is poll.answer, "it is behind the large one"
    await scene.jobs.cancel(ENDPOINT, JobId("a"))
    await turns()

    assert {"b": b"2"} == poll.answer
    assert not scene.inputs.loading.under_way


@BOTH
async def test_a_job_that_is_to_live_longer_meanwhile_is_handed_over(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    await scene.jobs.expire_in(ENDPOINT, JobId("a"), 99.0)
    expires_at = scene.clock.now() + 99
    scene.payloads.opens.set()
    await turns()

    assert {"a": LARGE} == poll.answer
    assert expires_at == (await scene.job("a")).expires_at


@BOTH
async def test_a_worker_that_drains_meanwhile_gets_nothing(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    live = scene.worker()
    live.worker = live.worker.drain("scaled down")
    scene.dispatch.release_polls(live)
    assert {} == poll.answer
    scene.payloads.opens.set()
    await turns()

    assert {"a": LARGE} == (await scene.poll("other")).answer
    assert ["a"] == scene.payloads.opened


@BOTH
async def test_an_endpoint_that_goes_meanwhile_takes_its_loads_with_it(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    await scene.jobs.remove_endpoint(ENDPOINT)
    await scene.inputs.loading.settled()

    assert None is poll.answer
    assert not scene.inputs.loading.under_way


@BOTH
async def test_a_platform_that_ends_meanwhile_leaves_the_job_as_it_was(scene: Scene, *, parked: bool) -> None:
    poll = await loading(scene, parked=parked)
    before = await scene.job("a")
    await scene.inputs.close()
    scene.payloads.opens.set()
    await scene.poll("other")
    await scene.inputs.loading.settled()

    assert before == await scene.job("a")
    assert None is poll.answer
    assert ["a"] == scene.payloads.opened, "nothing is begun any more"
