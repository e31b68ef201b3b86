"""Large inputs on their way to hand: how many at a time, and what may come in between."""

import asyncio
from collections.abc import Iterator

import pytest

from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.job import EndpointId, Job, JobId, WorkerId
from runyard.ports.stores import Ready
from runyard.services import hand, loading
from tests.builders import ENDPOINT
from tests.inputs_kit import LARGE, Poll, Scene, turns

pytestmark = pytest.mark.looptime


class HeldJobs(MemoryJobs):
    """While `goes` is not set, who takes jobs, or looks at the first, waits."""

    def __init__(self) -> None:
        super().__init__()
        self.goes = asyncio.Event()
        self.goes.set()

    async def take(
        self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float, ready: Ready | None = None
    ) -> list[Job]:
        jobs = await super().take(endpoint_id, worker_id, limit, now, ready)
        await self.goes.wait()
        return jobs

    async def first(self, endpoint_id: EndpointId, limit: int) -> list[Job]:
        await self.goes.wait()
        return await super().first(endpoint_id, limit)


@pytest.fixture
def scene() -> Iterator[Scene]:
    return Scene()


async def test_inputs_of_those_behind_are_loaded_at_the_same_time(scene: Scene) -> None:
    scene.payloads.opens.clear()
    await scene.queue(a=LARGE, b=b"2", c=LARGE, d=LARGE)
    poll = await scene.poll(limit=9)
    assert ["a", "c", "d"] == scene.payloads.opened
    scene.payloads.opens.set()
    await turns()
    await scene.poll("w2", limit=9)

    assert ["a", "b", "c", "d"] == [*(poll.answer or {}), *scene.worker("w2").held]
    assert 3 == len(scene.payloads.opened)


async def test_while_jobs_are_taken_from_hand_those_behind_them_are_loaded(scene: Scene) -> None:
    await scene.queue(**{f"j{number:02}": LARGE for number in range(40)})
    await scene.poll()
    for _ in range(10):
        await scene.poll()

    assert [f"j{number:02}" for number in range(11 + 16)] == scene.payloads.opened, "16 ahead of what is taken"


async def test_ahead_is_loaded_what_there_is_room_for_and_what_is_first_in_any_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    monkeypatch.setattr(scene.inputs._hand, "_bytes_max", int(2.5 * len(LARGE)))
    await scene.queue(a=LARGE * 3, b=LARGE, c=LARGE, d=LARGE)
    scene.payloads.opens.clear()
    poll = await scene.poll()
    assert ["a"] == scene.payloads.opened
    scene.payloads.opens.set()
    await turns()

    assert {"a": LARGE * 3} == poll.answer
    assert ["a", "b", "c"] == scene.payloads.opened


async def test_two_workers_get_twenty_large_jobs_in_their_order(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "ANSWER_BYTES_MAX", 3 * len(LARGE))
    names = [f"j{number:02}" for number in range(20)]
    await scene.queue(**dict.fromkeys(names, LARGE))
    order: list[str] = []
    while len(order) < 20:
        polls = [await scene.poll(id, limit=20) for id in ("w1", "w2")]
        assert all(len(poll.answer or {}) <= 3 for poll in polls)
        for poll in sorted(polls, key=lambda poll: list(poll.answer or {})):
            order += poll.answer or {}
        for id, poll in zip(("w1", "w2"), polls, strict=True):
            scene.dispatch.leave(scene.worker(id), poll)

    assert names == order


async def test_so_much_is_read_at_a_time_and_what_is_larger_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "HAND_BYTES_MAX", 2 * len(LARGE))
    scene = Scene()
    scene.payloads.opens.clear()
    await scene.queue(a=LARGE, b=LARGE, c=LARGE, d=LARGE * 3)
    poll = await scene.poll(limit=9)
    assert ["a", "b"] == scene.payloads.opened
    scene.payloads.opens.set()
    await turns()
    others = [await scene.poll(id, limit=9) for id in ("w2", "w3")]

    assert ["a", "b", "c", "d"] == [id for each in (poll, *others) for id in each.answer or {}]


async def test_what_is_being_read_for_a_job_that_ends_is_closed_when_it_is_read(scene: Scene) -> None:
    scene.payloads.opens.clear()
    await scene.queue(a=LARGE)
    await scene.poll()
    await scene.jobs.cancel(ENDPOINT, JobId("a"))
    await scene.inputs.loading.settled()
    scene.payloads.opens.set()
    await turns()

    assert ["a"] == scene.payloads.opened == scene.payloads.closed
    assert 0 == scene.inputs._hand.bytes  # pyright: ignore[reportPrivateUsage]


async def test_what_is_given_up_for_a_job_that_waits_after_all_is_begun_anew(scene: Scene) -> None:
    scene.payloads.opens.clear()
    await scene.queue(a=LARGE)
    poll = await scene.poll()
    scene.signals.fire("a")
    await turns()
    assert {ENDPOINT: 1} == scene.inputs.loading.under_way
    scene.payloads.opens.set()
    await turns()

    assert {"a": LARGE} == poll.answer
    assert not scene.inputs.loading.under_way
    assert ["a", "a"] == scene.payloads.closed


async def test_what_has_ended_meanwhile_is_not_in_hand_even_if_nobody_says_so(scene: Scene) -> None:
    scene.payloads.opens.clear()
    await scene.queue(a=LARGE, b=b"2")
    poll = await scene.poll()
    was = await scene.job("a")
    await scene.store.save(was.cancel(scene.clock.now()), was=was)
    scene.payloads.opens.set()
    await turns()

    assert {"b": b"2"} == poll.answer
    assert 0 == scene.inputs._hand.bytes  # pyright: ignore[reportPrivateUsage]


async def test_a_worker_that_drains_before_its_poll_is_parked_is_told_that_there_is_nothing() -> None:
    scene = Scene(store := HeldJobs())
    scene.payloads.opens.clear()
    await scene.queue(a=LARGE)
    store.goes.clear()
    live, poll = scene.worker(), Poll()
    polling = asyncio.create_task(scene.dispatch.poll(live, poll))
    await turns()
    live.worker = live.worker.drain("scaled down")
    scene.dispatch.release_polls(live)
    store.goes.set()
    await polling

    assert 1 == poll.ends
    assert not scene.dispatch.leave(live, poll)


async def test_a_poll_that_leaves_while_another_is_offered_a_job_is_not_ended_twice() -> None:
    scene = Scene(store := HeldJobs())
    first = await scene.poll("w1")
    await scene.poll("w2")
    store.goes.clear()
    submitting = asyncio.create_task(scene.queue(a=LARGE))
    await turns()
    live = scene.worker("w1")
    live.worker = live.worker.drain("scaled down")
    scene.dispatch.release_polls(live)
    store.goes.set()
    await submitting
    await turns()

    assert 1 == first.ends
    assert {JobId("a")} == scene.worker("w2").held.keys()
