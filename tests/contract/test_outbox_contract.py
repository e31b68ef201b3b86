"""What every `Outbox` promises, together with the `JobStore` to which it belongs."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import PRUNE_STEP, MemoryOutbox
from runyard.domain.attempt import AttemptLimits
from runyard.domain.job import EndpointId, Job, JobId
from runyard.domain.webhook import Delivery, DeliveryId, DeliveryState, SigningSecret, Try
from runyard.ports.stores import JobStore
from runyard.ports.webhooks import DeliveryQuery, Outbox
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, put_away, saved

URL = "https://receiver.test/hook"
OTHER = "https://other.test/hook"
LONG_AGO, EVER = START - 1e6, START + 1e6


class Yard:
    """A store, what it owes, and what it has said about that."""

    def __init__(self, store: JobStore, outbox: Outbox) -> None:
        self.store, self.outbox = store, outbox
        self.told = 0
        outbox.owed = self._count

    def _count(self) -> None:
        self.told += 1

    async def ended(self, id: str = "job", *, url: str | None = URL, at: float = START, **changes: object) -> Job:
        """A job that was taken and has completed."""
        running = a_job(id, webhook=url, at=at, **changes).take(A, at)
        await self.store.add(running)
        return await saved(self.store, running, running.complete(b'"done"', at))

    async def owed(self, endpoint_id: EndpointId = ENDPOINT, **query: object) -> list[Delivery]:
        page = await self.outbox.list(endpoint_id, DeliveryQuery(**query))  # type: ignore[arg-type]
        return list(page.deliveries)

    async def take(self, now: float = EVER, *passing: str) -> Delivery:
        taken = await self.outbox.take(now, passing)
        assert taken is not None
        return taken

    async def take_all(self, now: float = EVER, *passing: str) -> list[str]:
        found: list[str] = []
        while (taken := await self.outbox.take(now, passing)) is not None:
            found.append(taken.job_id)
        return found

    async def finish(self, delivery: Delivery, *, at: float = START + 1) -> Delivery:
        done = replace(delivery, state=DeliveryState.DELIVERED, finished_at=at)
        await self.outbox.save(done)
        return done


def rendered(job: Job) -> bytes:
    return f"{job.id} {job.state} {job.output!r}".encode()


@pytest_asyncio.fixture(params=["memory", "embedded"])
async def yard(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Yard]:
    if request.param == "memory":
        outbox = MemoryOutbox(rendered)
        store: JobStore = MemoryJobs(outbox=outbox)
        yield Yard(store, outbox)
    else:
        store = EmbeddedJobs(tmp_path / "jobs.db", render=rendered)
        assert store.outbox is not None
        yield Yard(store, store.outbox)
    await store.close()


# --- What is owed ----------------------------------------------------------------------------------------------------


async def test_an_end_owes_its_webhook_what_was_rendered(yard: Yard) -> None:
    job = await yard.ended()
    [delivery] = await yard.owed()

    assert 1 == yard.told
    assert (job.id, ENDPOINT, URL) == (delivery.job_id, delivery.endpoint_id, delivery.url)
    assert (DeliveryState.PENDING, START, START) == (delivery.state, delivery.created_at, delivery.next_at)
    assert rendered(job) == await yard.outbox.body(delivery.id)
    assert len(rendered(job)) == delivery.size


@pytest.mark.parametrize(
    "end",
    [
        lambda job: job.complete(b"1", START),
        lambda job: job.fail("boom", None, START),
        lambda job: job.cancel(START),
        lambda job: job.time_out(START),
        lambda job: job.lose_worker(START, "it died", limits=AttemptLimits(attempts_max=1)),
    ],
    ids=["completed", "failed", "cancelled", "timed out", "lost"],
)
async def test_each_way_to_end_owes_one_and_only_one(yard: Yard, end: Callable[[Job], Job]) -> None:
    running = a_job("job", webhook=URL).take(A, START)
    await yard.store.add(running)
    progress = await saved(yard.store, running, running.progress(b"1"))
    ended = await saved(yard.store, progress, end(progress))
    await saved(yard.store, ended, ended.expire_in(60, START))

    assert [rendered(ended)] == [await yard.outbox.body(delivery.id) for delivery in await yard.owed()]
    assert 1 == yard.told


async def test_a_purge_owes_for_those_that_have_a_webhook(yard: Yard) -> None:
    for id, url in (("a", URL), ("b", None), ("c", URL)):
        await yard.store.add(a_job(id, webhook=url))
    await yard.store.purge(ENDPOINT, START, 10)

    assert ["c", "a"] == [delivery.job_id for delivery in await yard.owed()]


async def test_what_is_no_end_or_has_no_webhook_owes_nothing(yard: Yard) -> None:
    await yard.ended("silent", url=None)
    running = a_job("job", webhook=URL).take(A, START)
    await yard.store.add(running)
    lost = await saved(yard.store, running, running.lose_worker(START, "it died"))
    assert not await yard.store.save(running.complete(b"1", START), was=running), "it is not his any more"
    await put_away(yard.store, lost)

    assert [] == await yard.owed()
    assert 0 == yard.told


async def test_each_run_owes_its_own(yard: Yard) -> None:
    running = a_job("job", webhook=URL).take(A, START)
    await yard.store.add(running)
    failed = await saved(yard.store, running, running.fail("boom", None, START))
    again = await saved(yard.store, failed, failed.retry(START))
    await saved(yard.store, again, again.cancel(START))
    second, first = await yard.owed()

    assert first.id != second.id
    assert b"CANCELLED" in (await yard.outbox.body(second.id) or b"")
    assert b"FAILED" in (await yard.outbox.body(first.id) or b"")


async def test_what_is_owed_outlives_its_job_and_its_endpoint(yard: Yard) -> None:
    job = await yard.ended()
    await put_away(yard.store, job)
    await yard.store.remove_endpoint(ENDPOINT)

    assert job.id == (await yard.take()).job_id


# --- Turns -----------------------------------------------------------------------------------------------------------


async def test_it_is_given_when_its_time_has_come_and_once(yard: Yard) -> None:
    await yard.ended()

    assert START == await yard.outbox.next_at(())
    assert None is await yard.outbox.take(START - 0.1, ())
    assert [JobId("job")] == await yard.take_all(START)
    assert None is await yard.outbox.next_at(())


async def test_it_comes_back_when_it_is_saved_to_be_tried_later(yard: Yard) -> None:
    await yard.ended()
    delivery = await yard.take()
    tries = (
        Try(at=START, duration_s=0.5, status=500, excerpt="ä\0"),
        Try(at=START + 1, duration_s=10.0, error="no answer", refused=True),
    )
    later = replace(delivery, next_at=START + 10, round_tries=2, tries=tries)
    await yard.outbox.save(later)

    assert START + 10 == await yard.outbox.next_at(())
    assert None is await yard.outbox.take(START + 9.9, ())
    assert later == await yard.take(START + 10)
    assert later == await yard.outbox.get(ENDPOINT, delivery.id)


async def test_what_has_finished_comes_back_only_when_it_is_asked_for_again(yard: Yard) -> None:
    await yard.ended()
    done = await yard.finish(await yard.take())

    assert [] == await yard.take_all()
    assert [done] == await yard.owed()
    await yard.outbox.save(done.again(START + 5))

    assert [JobId("job")] == await yard.take_all(START + 5)


async def test_one_that_waits_is_moved_and_not_doubled(yard: Yard) -> None:
    await yard.ended()
    [delivery] = await yard.owed()
    await yard.outbox.save(replace(delivery, next_at=START + 99))
    assert [] == await yard.take_all(START + 98)
    await yard.outbox.save(replace(delivery, next_at=START + 50))

    assert ["job"] == await yard.take_all()


async def test_receivers_take_turns_and_some_are_passed_over(yard: Yard) -> None:
    for number in range(3):
        await yard.ended(f"a{number}", at=START + number)
    await yard.ended("b", url=OTHER, at=START + 2)

    assert ["a0", "b", "a1"] == [(await yard.take(START + 3)).job_id for _ in range(3)]
    assert [] == await yard.take_all(EVER, "receiver.test")
    assert None is await yard.outbox.next_at(("receiver.test",))
    assert ["a2"] == await yard.take_all()


async def test_a_receiver_is_a_host_and_a_port_whatever_the_rest(yard: Yard) -> None:
    await yard.ended("a", url="https://u:p@Receiver.test/1?2")
    await yard.ended("b", url="https://receiver.test:8443/")
    await yard.ended("c", url="http://[bad")

    assert ["b", "c"] == sorted(await yard.take_all(EVER, "receiver.test"))


# --- Reading ---------------------------------------------------------------------------------------------------------


async def test_they_are_listed_newest_first_in_pages(yard: Yard) -> None:
    for number in range(5):
        await yard.ended(f"job-{number}")
    await yard.ended("elsewhere", endpoint_id=EndpointId("endpoint-2"))
    first = await yard.outbox.list(ENDPOINT, DeliveryQuery(limit=3))
    second = await yard.outbox.list(ENDPOINT, DeliveryQuery(limit=3, after=first.next))

    assert ["job-4", "job-3", "job-2"] == [delivery.job_id for delivery in first.deliveries]
    assert ["job-1", "job-0"] == [delivery.job_id for delivery in second.deliveries]
    assert None is second.next


async def test_they_are_found_by_job_and_by_state(yard: Yard) -> None:
    for number in range(3):
        await yard.ended(f"job-{number}")
    done = await yard.finish(await yard.take())

    assert [done] == await yard.owed(state=DeliveryState.DELIVERED)
    assert ["job-2", "job-1"] == [delivery.job_id for delivery in await yard.owed(state=DeliveryState.PENDING)]
    assert ["job-1"] == [delivery.job_id for delivery in await yard.owed(job_id=JobId("job-1"))]
    assert [] == await yard.owed(job_id=JobId("job-1"), state=DeliveryState.DELIVERED)
    assert [] == await yard.owed(EndpointId("endpoint-2"), job_id=JobId("job-1"))


async def test_it_is_shown_to_its_own_endpoint_only(yard: Yard) -> None:
    await yard.ended()
    [delivery] = await yard.owed()

    assert delivery == await yard.outbox.get(ENDPOINT, delivery.id)
    assert None is await yard.outbox.get(EndpointId("endpoint-2"), delivery.id)
    assert None is await yard.outbox.get(ENDPOINT, DeliveryId("msg_none"))
    assert None is await yard.outbox.body(DeliveryId("msg_none"))


# --- Forgetting ------------------------------------------------------------------------------------------------------


async def prune(
    yard: Yard,
    *,
    before: float = LONG_AGO,
    finished_max: int = 1000,
    waiting_max: int = 1000,
    bytes_max: int = 1 << 30,
) -> list[str]:
    gone: list[str] = []
    while some := await yard.outbox.prune(
        before, finished_max=finished_max, waiting_max=waiting_max, bytes_max=bytes_max
    ):
        gone += [delivery.job_id for delivery in some]
    return gone


async def test_what_finished_long_ago_is_forgotten(yard: Yard) -> None:
    for id in ("old", "new", "waits"):
        await yard.ended(id)
    old = await yard.finish(await yard.take(), at=START)
    await yard.finish(await yard.take(), at=START + 5)

    assert ["old"] == await prune(yard, before=START + 5)
    assert ["waits", "new"] == [delivery.job_id for delivery in await yard.owed()]
    assert None is await yard.outbox.body(old.id)
    assert [] == await prune(yard, before=START + 5)


async def test_of_too_many_of_one_endpoint_the_oldest_go(yard: Yard) -> None:
    for number in range(6):
        await yard.ended(f"job-{number}")
        await yard.ended(f"other-{number}", url=OTHER, endpoint_id=EndpointId(f"other-{number}"))
    for at in (3, 1, 2):
        await yard.finish(await yard.take(EVER, "other.test"), at=START + at)

    assert [] == await prune(yard, finished_max=3, waiting_max=3)
    assert ["job-1"] == await prune(yard, finished_max=2, waiting_max=3)
    assert ["job-3"] == await prune(yard, finished_max=2, waiting_max=2)
    assert ["job-2", "job-0", "job-4"] == await prune(yard, finished_max=0, waiting_max=1)
    assert ["job-5"] == await yard.take_all(EVER, "other.test")


async def test_of_too_many_bytes_the_oldest_go_and_those_that_wait_last(yard: Yard) -> None:
    for number in range(5):
        await yard.ended(f"job-{number}")
    size = (await yard.owed())[0].size
    for _ in range(2):
        await yard.finish(await yard.take())

    assert [] == await prune(yard, bytes_max=5 * size)
    assert ["job-0"] == await prune(yard, bytes_max=4 * size)
    assert ["job-1", "job-2"] == await prune(yard, bytes_max=3 * size - 1)
    assert ["job-3", "job-4"] == await yard.take_all()


async def test_it_forgets_a_bounded_number_at_once(yard: Yard) -> None:
    for number in range(PRUNE_STEP + 1):
        await yard.ended(f"job-{number}")

    assert PRUNE_STEP == len(await yard.outbox.prune(LONG_AGO, finished_max=0, waiting_max=0, bytes_max=0))
    assert 1 == len(await yard.outbox.prune(LONG_AGO, finished_max=0, waiting_max=0, bytes_max=0))


async def test_what_was_forgotten_meanwhile_is_not_kept_again(yard: Yard) -> None:
    await yard.ended()
    delivery = await yard.take()
    await prune(yard, waiting_max=0)
    await yard.finish(delivery)

    assert [] == await yard.owed()


# --- Secrets ---------------------------------------------------------------------------------------------------------


async def test_secrets_are_kept_for_each_endpoint(yard: Yard) -> None:
    secrets = (
        SigningSecret(value="whsec_bmV3", created_at=START),
        SigningSecret(value="whsec_b2xk", created_at=START - 1, expires_at=START + 1),
    )
    assert () == await yard.outbox.secrets(ENDPOINT)
    await yard.outbox.keep_secrets(ENDPOINT, secrets[1:])
    await yard.outbox.keep_secrets(ENDPOINT, secrets)

    assert secrets == await yard.outbox.secrets(ENDPOINT)
    assert () == await yard.outbox.secrets(EndpointId("endpoint-2"))
