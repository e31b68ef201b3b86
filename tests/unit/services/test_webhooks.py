import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runyard.adapters.system import LoopClock
from runyard.domain.errors import WebhookFailed, WebhookRefused
from runyard.domain.job import Job, JobState
from runyard.services.webhooks import (
    ACTIVE_MAX,
    ACTIVE_PER_LANE_MAX,
    HELD_BYTES_MAX,
    HELD_MAX,
    HELD_PER_LANE_BYTES_MAX,
    HELD_PER_LANE_MAX,
    SETTLE_S,
    Webhooks,
)
from tests.builders import a_job_that_is
from tests.webhook_kit import Hang, RecordingSender

URL = "https://receiver.test/hook"
BODY = b'{"status":"COMPLETED"}'

pytestmark = pytest.mark.looptime


@pytest.fixture
def sender() -> RecordingSender:
    return RecordingSender()


@pytest.fixture
def hooks(sender: RecordingSender) -> Webhooks:
    return Webhooks(sender, LoopClock(), render=lambda job: BODY)


@asynccontextmanager
async def running(hooks: Webhooks) -> AsyncIterator[None]:
    loop = asyncio.create_task(hooks.run())
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def ended(url: str | None = URL) -> Job:
    return a_job_that_is(JobState.COMPLETED, webhook=url)


async def test_the_receiver_gets_what_was_rendered_once(hooks: Webhooks, sender: RecordingSender) -> None:
    async with running(hooks):
        hooks.ended(ended())
        await asyncio.sleep(1000)

    assert [(URL, BODY)] == [(call.url, call.body) for call in sender.calls]


async def test_the_body_is_the_job_as_it_ended() -> None:
    sender = RecordingSender()
    hooks = Webhooks(sender, LoopClock(), render=lambda job: f"{job.id} {job.state}".encode())
    hooks.ended(a_job_that_is(JobState.FAILED, webhook=URL))
    async with running(hooks):
        await asyncio.sleep(1)

    assert [b"job-1 FAILED"] == [call.body for call in sender.calls]


async def test_a_job_without_a_webhook_costs_nothing(sender: RecordingSender) -> None:
    hooks = Webhooks(sender, LoopClock(), render=lambda job: pytest.fail("it was rendered"))
    async with running(hooks):
        hooks.ended(ended(url=None))
        await asyncio.sleep(100)

    assert [] == sender.calls


async def test_a_failure_is_repeated_twice_ten_seconds_apart(hooks: Webhooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [500, WebhookFailed("reset"), 200]
    async with running(hooks):
        hooks.ended(ended())
        await asyncio.sleep(1000)

    assert [0, 10, 20] == sender.to(URL)


@pytest.mark.parametrize("answer", [500, 404, 302, 204, WebhookFailed("reset")], ids=str)
async def test_all_but_200_is_a_failure_and_the_third_is_the_last(
    hooks: Webhooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture, answer: int | Exception
) -> None:
    sender.answers[URL] = [answer]
    async with running(hooks):
        hooks.ended(ended())
        await asyncio.sleep(1000)

    assert [0, 10, 20] == sender.to(URL)
    assert 1 == len(caplog.messages)
    assert "job-1" in caplog.messages[0]
    assert "receiver.test" in caplog.messages[0]


async def test_an_attempt_has_ten_seconds(hooks: Webhooks, sender: RecordingSender) -> None:
    sender.answers[URL] = [Hang()]
    async with running(hooks):
        hooks.ended(ended())
        await asyncio.sleep(1000)

    assert [0, 20, 40] == sender.to(URL)
    assert 0 == sender.active[URL]


async def test_a_refused_address_is_not_tried_again(
    hooks: Webhooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture
) -> None:
    sender.answers[URL] = [WebhookRefused("it is a metadata address")]
    async with running(hooks):
        hooks.ended(ended())
        await asyncio.sleep(1000)

    assert [0] == sender.to(URL)
    assert "it is a metadata address" in caplog.text


async def test_the_log_shows_no_secret_of_an_address(
    hooks: Webhooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture
) -> None:
    url = "https://user:password@receiver.test/hook?token=secret"
    sender.answers[url] = [500]
    async with running(hooks):
        hooks.ended(ended(url))
        await asyncio.sleep(1000)

    assert "receiver.test" in caplog.text
    assert "password" not in caplog.text
    assert "secret" not in caplog.text


async def test_a_receiver_that_hangs_blocks_nobody(hooks: Webhooks, sender: RecordingSender) -> None:
    paths = [f"http://hanging.test/{n}" for n in range(100)]
    sender.answers = {path: [Hang()] for path in paths}
    async with running(hooks):
        for path in paths:
            hooks.ended(ended(path))
        hooks.ended(ended())
        await asyncio.sleep(1)

        assert [0] == sender.to(URL)
        assert ACTIVE_PER_LANE_MAX == sum(sender.active.values())


async def test_so_many_are_under_way_and_lanes_take_turns(hooks: Webhooks, sender: RecordingSender) -> None:
    urls = [f"http://hanging-{n}.test/{m}" for n in range(2 * ACTIVE_MAX) for m in range(2)]
    sender.answers = {url: [Hang()] for url in urls}
    async with running(hooks):
        for url in urls:
            hooks.ended(ended(url))
        await asyncio.sleep(1)

        assert ACTIVE_MAX == sum(sender.active.values())
        assert urls[0 : 2 * ACTIVE_MAX : 2] == [call.url for call in sender.calls]

        hooks.ended(ended())
        await asyncio.sleep(30)

        assert [30] == sender.to(URL), "after the lanes that had no turn yet and one more of those that had"


async def test_what_waits_for_its_next_attempt_takes_no_place(hooks: Webhooks, sender: RecordingSender) -> None:
    urls = [f"http://failing-{n}.test/" for n in range(2 * ACTIVE_MAX)]
    sender.answers = {url: [500] for url in urls}
    async with running(hooks):
        for url in urls:
            hooks.ended(ended(url))
        await asyncio.sleep(1)
        hooks.ended(ended())
        await asyncio.sleep(1)

        assert [1] == sender.to(URL)


async def test_a_lane_is_bounded_and_what_is_too_much_is_dropped(
    hooks: Webhooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture
) -> None:
    full = "http://full.test/"
    for _ in range(HELD_PER_LANE_MAX + 5):
        hooks.ended(ended(full))
    hooks.ended(ended())
    async with running(hooks):
        await asyncio.sleep(1)

        assert HELD_PER_LANE_MAX == len(sender.to(full))
        assert [0] == sender.to(URL)
        assert 1 == len(caplog.messages), "a flood of drops is no flood of log lines"

        hooks.ended(ended(full))
        await asyncio.sleep(1)

        assert HELD_PER_LANE_MAX + 1 == len(sender.to(full))


async def test_what_is_held_in_all_is_bounded(hooks: Webhooks, sender: RecordingSender) -> None:
    for n in range(HELD_MAX + 5):
        hooks.ended(ended(f"http://receiver-{n}.test/"))
    async with running(hooks):
        await asyncio.sleep(1)

    assert HELD_MAX == len(sender.calls)


@pytest.mark.parametrize(("lanes", "bytes_max"), [(1, HELD_PER_LANE_BYTES_MAX), (8, HELD_BYTES_MAX)])
async def test_bytes_are_bounded_too(sender: RecordingSender, lanes: int, bytes_max: int) -> None:
    body = bytes(16 << 20)
    hooks = Webhooks(sender, LoopClock(), render=lambda job: body)
    for n in range(100):
        hooks.ended(ended(f"http://receiver-{n % lanes}.test/"))
    async with running(hooks):
        await asyncio.sleep(1)

    assert bytes_max // len(body) - 1 == len(sender.calls)  # The addresses count, too.


async def test_one_delivery_is_never_too_large(sender: RecordingSender) -> None:
    body = bytes(HELD_BYTES_MAX)
    hooks = Webhooks(sender, LoopClock(), render=lambda job: body)
    async with running(hooks):
        hooks.ended(ended())
        await asyncio.sleep(1)

    assert [0] == sender.to(URL)


@pytest.mark.parametrize("url", ["http://[::1", "http://", "http://[bad]/"])
async def test_an_address_that_is_none_harms_nobody(hooks: Webhooks, sender: RecordingSender, url: str) -> None:
    sender.answers[url] = [WebhookRefused("it is not a URL")]
    async with running(hooks):
        hooks.ended(ended(url))
        hooks.ended(ended())
        await asyncio.sleep(1)

    assert {url, URL} == {call.url for call in sender.calls}


async def test_a_stop_waits_for_first_attempts_alone(
    hooks: Webhooks, sender: RecordingSender, caplog: pytest.LogCaptureFixture, looptime: object
) -> None:
    sender.answers["http://failing.test/"] = [500]
    async with running(hooks):
        hooks.ended(ended())
        hooks.ended(ended("http://failing.test/"))
        await hooks.settle()

        assert [0] == sender.to(URL)
        assert looptime < 1  # type: ignore[operator]
        assert ["1 webhooks are lost: the platform stops before they were delivered"] == caplog.messages


async def test_a_stop_does_not_wait_long(hooks: Webhooks, sender: RecordingSender, looptime: object) -> None:
    sender.answers[URL] = [Hang()]
    async with running(hooks):
        hooks.ended(ended())
        await hooks.settle()

        assert SETTLE_S <= looptime < SETTLE_S + 1  # type: ignore[operator]
