import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.adapters.system import LoopClock
from runyard.domain.errors import Conflict, NotFound, TooBusy, WebhookFailed, WebhookRefused
from runyard.domain.job import Job, JobState
from runyard.domain.webhook import SCHEDULES, Delivery, DeliveryId, DeliveryState, Try, signed_headers
from runyard.ports.webhooks import DeliveryQuery
from runyard.services.webhooks import (
    ACTIVE_BYTES_MAX,
    ACTIVE_BYTES_PER_RECEIVER_MAX,
    ACTIVE_MAX,
    ACTIVE_PER_RECEIVER_MAX,
    PRUNE_AFTER,
    PRUNE_S,
    SETTLE_S,
    Keeping,
    Webhooks,
)
from tests.builders import ENDPOINT, a_job_that_is
from tests.control_doubles import CountingIds
from tests.webhook_kit import Hang, RecordingSender

URL = "https://receiver.test/hook"
BODY = b'{"status":"COMPLETED"}'

pytestmark = pytest.mark.looptime


class Hooks(Webhooks):
    """Deliveries of an outbox in memory. `ended` is what its store would say."""

    def __init__(
        self, sender: RecordingSender, body: bytes = BODY, *, schedule: str = "runpod", keep: int = 10**6
    ) -> None:
        self.outbox = MemoryOutbox(lambda job: body, bytes_max=1 << 40)
        super().__init__(
            self.outbox,
            sender,
            LoopClock(),
            CountingIds(),
            schedule=SCHEDULES[schedule],
            keeping=Keeping(keep=timedelta(hours=1), finished_max=keep, waiting_max=10 * keep, bytes_max=1 << 40),
            chance=lambda: 0.5,
        )
        self._numbers = iter(range(10**6))

    def ended(self, url: str = URL) -> None:
        self.outbox.owe(ended(url, at=LoopClock().now() - 2, created_at=float(next(self._numbers))))

    async def deliveries(self) -> list[Delivery]:
        return list((await self.list(ENDPOINT, DeliveryQuery(limit=10**6))).deliveries)


@pytest.fixture
def sender() -> RecordingSender:
    return RecordingSender()


@pytest.fixture
def hooks(sender: RecordingSender) -> Hooks:
    return Hooks(sender)


@asynccontextmanager
async def running(hooks: Hooks) -> AsyncIterator[None]:
    loop = asyncio.create_task(hooks.run())
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def ended(url: str, **changes: float) -> Job:
    return a_job_that_is(JobState.COMPLETED, webhook=url, **changes)


async def test_the_receiver_gets_what_was_rendered_once(hooks: Hooks, sender: RecordingSender) -> None:
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1000)

    assert [(URL, BODY)] == [(call.url, call.body) for call in sender.calls]


async def test_a_failure_is_repeated_twice_ten_seconds_apart(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [500, WebhookFailed("reset"), 200]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1000)

    assert [0, 10, 20] == sender.to(URL)


@pytest.mark.parametrize("answer", [500, 404, 302, 204, WebhookFailed("reset")], ids=str)
async def test_all_but_200_is_a_failure_and_the_third_is_the_last(
    hooks: Hooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture, answer: int | Exception
) -> None:
    sender.answers[URL] = [answer]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1000)

    assert [0, 10, 20] == sender.to(URL)
    assert 1 == len(caplog.messages)
    assert "job-1" in caplog.messages[0]
    assert "receiver.test" in caplog.messages[0]


async def test_an_attempt_has_ten_seconds(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [Hang()]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1000)

    assert [0, 20, 40] == sender.to(URL)
    assert 0 == sender.active[URL]


async def test_a_refused_address_is_not_tried_again(
    hooks: Hooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture
) -> None:
    sender.answers[URL] = [WebhookRefused("it is a metadata address")]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1000)

    assert [0] == sender.to(URL)
    assert "it is a metadata address" in caplog.text


async def test_the_log_shows_no_secret_of_an_address(
    hooks: Hooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture
) -> None:
    url = "https://user:password@receiver.test/hook?token=secret"
    sender.answers[url] = [500]
    async with running(hooks):
        hooks.ended(url)
        await asyncio.sleep(1000)

    assert "receiver.test" in caplog.text
    assert "password" not in caplog.text
    assert "secret" not in caplog.text


async def test_a_receiver_that_hangs_blocks_nobody(hooks: Hooks, sender: RecordingSender) -> None:
    paths = [f"http://hanging.test/{n}" for n in range(100)]
    sender.answers = {path: [Hang()] for path in paths}
    async with running(hooks):
        for path in paths:
            hooks.ended(path)
        hooks.ended()
        await asyncio.sleep(1)

        assert [0] == sender.to(URL)
        assert ACTIVE_PER_RECEIVER_MAX == sum(sender.active.values())


async def test_so_many_are_under_way_and_lanes_take_turns(hooks: Hooks, sender: RecordingSender) -> None:
    urls = [f"http://hanging-{n}.test/{m}" for n in range(2 * ACTIVE_MAX) for m in range(2)]
    sender.answers = {url: [Hang()] for url in urls}
    async with running(hooks):
        for url in urls:
            hooks.ended(url)
        await asyncio.sleep(1)

        assert ACTIVE_MAX == sum(sender.active.values())
        assert urls[0 : 2 * ACTIVE_MAX : 2] == [call.url for call in sender.calls]

        hooks.ended()
        await asyncio.sleep(30)

        assert [30] == sender.to(URL), "after the lanes that had no turn yet and one more of those that had"


async def test_what_waits_for_its_next_attempt_takes_no_place(hooks: Hooks, sender: RecordingSender) -> None:
    urls = [f"http://failing-{n}.test/" for n in range(2 * ACTIVE_MAX)]
    sender.answers = {url: [500] for url in urls}
    async with running(hooks):
        for url in urls:
            hooks.ended(url)
        await asyncio.sleep(1)
        hooks.ended()
        await asyncio.sleep(1)

        assert [1] == sender.to(URL)


@pytest.mark.parametrize("url", ["http://[::1", "http://", "http://[bad]/"])
async def test_an_address_that_is_none_harms_nobody(hooks: Hooks, sender: RecordingSender, url: str) -> None:
    sender.answers[url] = [WebhookRefused("it is not a URL")]
    async with running(hooks):
        hooks.ended(url)
        hooks.ended()
        await asyncio.sleep(1)

    assert {url, URL} == {call.url for call in sender.calls}


async def test_a_stop_waits_for_what_is_due_alone(hooks: Hooks, sender: RecordingSender, looptime: object) -> None:
    sender.answers["http://failing.test/"] = [500]
    async with running(hooks):
        hooks.ended()
        hooks.ended("http://failing.test/")
        await hooks.settle()

        assert [0] == sender.to(URL)
        assert looptime < 1  # type: ignore[operator]


async def test_a_stop_does_not_wait_long(hooks: Hooks, sender: RecordingSender, looptime: object) -> None:
    sender.answers[URL] = [Hang()]
    async with running(hooks):
        hooks.ended()
        await hooks.settle()

        assert SETTLE_S <= looptime < SETTLE_S + 1  # type: ignore[operator]


async def test_a_try_that_is_cut_off_is_made_again_by_the_next_loop(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [Hang(), 200]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1)
    [delivery] = await hooks.deliveries()
    assert (True, ()) == (delivery.pending, delivery.tries)
    await hooks.outbox.save(delivery)  # As a store does that is opened again.
    async with running(hooks):
        await asyncio.sleep(1)

    assert [0, 1] == sender.to(URL)


# --- Memory ----------------------------------------------------------------------------------------------------------


async def test_large_bodies_are_under_way_one_by_one(sender: RecordingSender) -> None:
    hooks = Hooks(sender, bytes(ACTIVE_BYTES_PER_RECEIVER_MAX))
    sender.answers = {f"http://hanging-{n}.test/{m}": [Hang()] for n in range(9) for m in range(2)}
    for url in sender.answers:
        hooks.ended(url)
    async with running(hooks):
        await asyncio.sleep(1)

        assert ACTIVE_BYTES_MAX // ACTIVE_BYTES_PER_RECEIVER_MAX == sum(sender.active.values())
        assert {1} == set(filter(None, sender.active.values())), "one for each receiver"


async def test_large_bodies_to_one_receiver_leave_room_for_others(sender: RecordingSender) -> None:
    hooks = Hooks(sender, bytes(ACTIVE_BYTES_PER_RECEIVER_MAX))
    sender.answers = {f"http://hanging.test/{n}": [Hang()] for n in range(4)}
    for url in sender.answers:
        hooks.ended(url)
    async with running(hooks):
        await asyncio.sleep(1)

        assert 1 == sum(sender.active.values())


async def test_one_is_never_too_large(sender: RecordingSender) -> None:
    hooks = Hooks(sender, bytes(ACTIVE_BYTES_MAX + 1))
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1)

    assert [0] == sender.to(URL)


# --- The log of tries --------------------------------------------------------------------------------------------------


async def test_every_try_is_noted(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL], sender.says = [500, Hang(), 200], "thanks"
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(5)
        [waits] = await hooks.deliveries()
        await asyncio.sleep(100)
    [done] = await hooks.deliveries()
    start = LoopClock().now() - asyncio.get_running_loop().time()

    assert (DeliveryState.PENDING, start + 10) == (waits.state, waits.next_at)
    assert (DeliveryState.DELIVERED, start + 30) == (done.state, done.finished_at)
    assert done.tries == (
        Try(at=start, duration_s=0.0, status=500, excerpt="thanks"),
        Try(at=start + 10, duration_s=10.0, error="no answer within 10 s"),
        Try(at=start + 30, duration_s=0.0, status=200, excerpt="thanks"),
    )


async def test_back_off_goes_on_where_the_receiver_is_away_for_hours(sender: RecordingSender) -> None:
    hooks = Hooks(sender, schedule="backoff")
    sender.answers[URL] = [WebhookFailed("nobody there")] * 8 + [204]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(50_000)

    assert [0, 5, 25, 105, 425, 1705, 6825, 27_305, 48_905] == [round(at) for at in sender.to(URL)]
    assert DeliveryState.DELIVERED is (await hooks.deliveries())[0].state


async def test_it_is_delivered_again_when_somebody_asks(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [500, 500, 500, 200]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(100)
        [failed] = await hooks.deliveries()
        again = await hooks.redeliver(ENDPOINT, failed.id)
        await asyncio.sleep(1)

    assert (DeliveryState.FAILED, DeliveryState.PENDING) == (failed.state, again.state)
    assert [0, 10, 20, 100] == sender.to(URL)
    assert 4 == len((await hooks.get(ENDPOINT, failed.id)).tries)
    assert 1 == len({call.headers["webhook-id"] for call in sender.calls}), "receivers know it again"
    assert 4 == len({call.headers["webhook-timestamp"] for call in sender.calls})


async def test_one_that_waits_for_its_next_try_is_brought_forward(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [500, 200]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(3)
        [delivery] = await hooks.deliveries()
        await hooks.redeliver(ENDPOINT, delivery.id)
        await asyncio.sleep(100)

    assert [0, 3] == sender.to(URL)


async def test_one_that_is_asked_for_just_when_it_is_taken_is_tried_once(sender: RecordingSender) -> None:
    class Slow(MemoryOutbox):
        async def take(self, now: float, passing: Collection[str]) -> Delivery | None:
            taken = await super().take(now, passing)
            await asyncio.sleep(1)
            return taken

    hooks = Hooks(sender)
    outbox = Slow(lambda job: BODY)
    outbox.owed, hooks._outbox, hooks.outbox = hooks.outbox.owed, outbox, outbox
    sender.answers[URL] = [Hang()]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(0.5)
        [delivery] = await hooks.deliveries()
        await hooks.redeliver(ENDPOINT, delivery.id)
        await asyncio.sleep(5)

        assert [1] == sender.to(URL)


async def test_one_that_is_being_tried_or_unknown_is_refused(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [Hang()]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1)
        [delivery] = await hooks.deliveries()
        with pytest.raises(Conflict, match="being tried now"):
            await hooks.redeliver(ENDPOINT, delivery.id)
    with pytest.raises(NotFound, match="msg_none"):
        await hooks.redeliver(ENDPOINT, DeliveryId("msg_none"))


# --- Signatures ------------------------------------------------------------------------------------------------------


async def test_it_is_signed_with_the_secret_that_one_can_read(hooks: Hooks, sender: RecordingSender) -> None:
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(1)
    secrets = await hooks.secrets(ENDPOINT)
    [call] = sender.calls
    [delivery] = await hooks.deliveries()
    at = float(call.headers["webhook-timestamp"])

    assert 1 == len(secrets)
    assert signed_headers(delivery.id, BODY, secrets, at) == call.headers


async def test_a_retry_after_a_rotation_has_both_signatures(hooks: Hooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [500, 200]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(5)
        new, _ = await hooks.rotate_secret(ENDPOINT)
        await asyncio.sleep(10)

    assert [1, 2] == [len(call.headers["webhook-signature"].split()) for call in sender.calls]
    assert new == (await hooks.secrets(ENDPOINT))[0]


async def test_those_who_ask_at_once_get_one_first_secret(hooks: Hooks) -> None:
    found = await asyncio.gather(*(hooks.secrets(ENDPOINT) for _ in range(5)))

    assert 1 == len(set(found))


async def test_no_secret_is_logged(hooks: Hooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    sender.answers[URL] = [500]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(100)

    assert "was not delivered" in caplog.text
    assert "whsec_" not in caplog.text
    assert (await hooks.secrets(ENDPOINT))[0].value[6:] not in caplog.text


# --- Trouble ---------------------------------------------------------------------------------------------------------


class FullOutbox(MemoryOutbox):
    """Writes nothing down, and says so."""

    full = True

    async def save(self, delivery: Delivery) -> None:
        await super().save(delivery)
        if self.full:
            raise TooBusy("the job store cannot write")

    async def prune(self, before: float, *, finished_max: int, waiting_max: int, bytes_max: int) -> list[Delivery]:
        raise TooBusy("the job store cannot write")


async def test_a_full_disk_ends_no_loop(sender: RecordingSender, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(sender)
    outbox = FullOutbox(lambda job: BODY)
    outbox.owed, hooks._outbox, hooks.outbox = hooks.outbox.owed, outbox, outbox
    sender.answers[URL] = [500, 200]
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(2 * PRUNE_S)
        hooks.ended("http://other.test/")
        await asyncio.sleep(1)

    assert [0, 10] == sender.to(URL)
    assert [2 * PRUNE_S] == sender.to("http://other.test/")
    assert "may be told again" in caplog.text
    assert "stay for now" in caplog.text


async def test_one_that_is_forgotten_while_it_is_begun_harms_nobody(sender: RecordingSender) -> None:
    class Forgetful(MemoryOutbox):
        async def body(self, delivery_id: DeliveryId) -> bytes | None:
            return None

    hooks = Hooks(sender)
    outbox = Forgetful(lambda job: BODY)
    outbox.owed, hooks._outbox, hooks.outbox = hooks.outbox.owed, outbox, outbox
    async with running(hooks):
        for _ in range(2 * ACTIVE_MAX):
            hooks.ended()
        await asyncio.sleep(1)

    assert [] == sender.calls
    assert {} == hooks._active


# --- Forgetting ------------------------------------------------------------------------------------------------------


async def test_what_is_done_is_forgotten_in_time(hooks: Hooks) -> None:
    async with running(hooks):
        hooks.ended()
        await asyncio.sleep(3600)
        assert 1 == len(await hooks.deliveries())
        await asyncio.sleep(PRUNE_S + 1)

        assert [] == await hooks.deliveries()


async def test_what_is_too_much_is_forgotten_soon_and_a_loss_is_logged(
    sender: RecordingSender, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Hooks(sender, keep=10)
    sender.answers["http://failing.test/"] = [500]
    async with running(hooks):
        for number in range(PRUNE_AFTER):
            hooks.ended("http://failing.test/" if number < 110 else URL)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        states = Counter(delivery.state for delivery in await hooks.deliveries())

        # When they were counted, the last one waited, too.
        assert {DeliveryState.PENDING: 99, DeliveryState.DELIVERED: 10} == states
        assert "11 webhooks are lost" in caplog.text


async def test_memory_is_bounded_between_two_looks(caplog: pytest.LogCaptureFixture) -> None:
    outbox = MemoryOutbox(lambda job: BODY, bytes_max=3 * len(BODY))
    for number in range(5):
        outbox.owe(ended(URL, created_at=float(number)))
    page = await outbox.list(ENDPOINT, DeliveryQuery())

    assert 3 == len(page.deliveries)
    assert 2 == len(caplog.messages)
    outbox.close()
    assert "3 webhooks are lost: the platform stops before they were delivered" == caplog.messages[-1]
