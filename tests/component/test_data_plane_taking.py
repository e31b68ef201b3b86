"""How workers come by jobs: parked polls, batches, order, drains, strangers, and results that never come."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.adapters.stores.embedded import EmbeddedJobs
from tests.edge_kit import Worker, Yard

HOLD_S = 22
SUSPECTED_S = 2
STRANGER_PAUSE_S = 1

pytestmark = pytest.mark.looptime


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


async def health(yard: Yard) -> dict[str, int]:
    """The counts of jobs that are not zero."""
    return {name: count for name, count in (await yard.client.get("/health")).json()["jobs"].items() if count}


@pytest.mark.row("F119")
async def test_a_take_waits_and_is_answered_with_the_job_that_comes(yard: Yard, looptime: object) -> None:
    taking = yard.worker().take()
    await asyncio.sleep(5)
    assert not taking.answered
    job_id = await yard.client.run({"n": 1})
    taken = await taking

    assert looptime == 5
    assert (200, "application/json") == (taken.status, taken.headers["content-type"])
    assert {"id": job_id, "input": {"n": 1}} == taken.json()


@pytest.mark.row("F119", "F123")
@pytest.mark.parametrize("way", ["take", "stop"])
async def test_a_poll_that_nothing_comes_for_is_answered_with_nothing_after_22_seconds(
    yard: Yard, looptime: object, way: str
) -> None:
    reply = await getattr(yard.worker(), way)()

    assert looptime == HOLD_S
    assert (204, b"") == (reply.status, reply.body)


async def test_results_that_were_kept_together_are_acknowledged_together(tmp_path: Path) -> None:
    yard = Yard(store=EmbeddedJobs(tmp_path / "jobs.db", synced=False))
    await yard.open()
    worker, count = yard.worker(), 20
    for number in range(count):
        await yard.client.run(number)
    ids = [job["id"] for job in (await worker.take_batch(count)).json()]
    line = worker.line()
    line.send(b"".join(worker.request("POST", f"/job-done/{worker.id}/{id}", {"output": 1}) for id in ids))

    assert [200] * count == [(await line.reply()).status for _ in ids]
    assert line.writes <= 3, "the first, kept at once; the second, whose turn it was; those behind it"
    line.leave()
    await yard.close()


@pytest.mark.row("F120")
async def test_a_batch_take_gets_a_list_of_at_most_what_it_asks_for(yard: Yard) -> None:
    worker = yard.worker()
    ids = [await yard.client.run(n) for n in range(5)]
    replies = [await worker.take_batch(3), await worker.take_batch(3, busy=True)]

    assert [ids[:3], ids[3:]] == [[job["id"] for job in reply.json()] for reply in replies]
    assert [{"id": ids[3], "input": 3}, {"id": ids[4], "input": 4}] == replies[1].json()


@pytest.mark.row("F120")
async def test_a_batch_take_that_waits_gets_a_list_of_one_or_nothing(yard: Yard, looptime: object) -> None:
    worker = yard.worker()
    taking = worker.take_batch(3)
    await asyncio.sleep(1)
    job_id = await yard.client.run()

    assert [{"id": job_id, "input": 1}] == (await taking).json()
    assert 204 == (await worker.take_batch(2, busy=True)).status
    assert looptime == 1 + HOLD_S


@pytest.mark.row("F017")
async def test_jobs_are_taken_in_the_order_they_came(yard: Yard) -> None:
    workers = [yard.worker(f"worker-{n}") for n in range(3)]
    ids = [await yard.client.run() for _ in range(30)]

    taken = [(await workers[n % 3].take(busy=True)).json()["id"] for n in range(30)]

    assert ids == taken


@pytest.mark.row("F017")
async def test_a_lookup_that_sets_a_ttl_leaves_a_job_its_place(yard: Yard) -> None:
    ids = [await yard.client.run() for _ in range(3)]
    await yard.client.get(f"/status/{ids[0]}?ttl=60000")

    assert ids == [job["id"] for job in (await yard.worker().take_batch(3)).json()]


async def test_a_job_goes_to_one_of_the_workers_that_wait(yard: Yard, looptime: object) -> None:
    takes = [yard.worker(f"worker-{n}").take() for n in range(3)]
    await asyncio.sleep(1)
    ids = {await yard.client.run() for _ in range(2)}

    replies = [await take for take in takes]

    assert looptime == HOLD_S
    assert [200, 200, 204] == sorted(reply.status for reply in replies)
    assert ids == {reply.json()["id"] for reply in replies if reply.status == 200}


async def test_a_worker_gets_no_job_of_another_endpoint(yard: Yard) -> None:
    taking = yard.worker(endpoint_id="endpoint-2").take()
    await yard.client.run()

    assert 204 == (await taking).status


@pytest.mark.row("F119")
async def test_a_job_handed_to_a_worker_that_has_left_goes_to_the_next_as_if_it_had_not_been(yard: Yard) -> None:
    worker = yard.worker()
    taking = worker.take()
    await asyncio.sleep(1)
    submitting = yard.client.post("/run", {"input": 1})
    taking.leave()  # The submit is answered before the platform learns of it.
    job_id = (await submitting).json()["id"]

    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]
    assert {"inQueue": 1} == await health(yard)
    assert {} == worker.live.held
    assert job_id == (await worker.take()).json()["id"]


@pytest.mark.row("F119")
async def test_a_worker_that_has_left_its_poll_is_given_nothing(yard: Yard) -> None:
    left = yard.worker().take()
    await asyncio.sleep(1)
    left.leave()
    await asyncio.sleep(1)
    stays = yard.worker("worker-2").take()
    await asyncio.sleep(1)

    assert await yard.client.run() == (await stays).json()["id"]


async def test_a_worker_that_drains_gets_no_job_and_quick_answers(yard: Yard, looptime: object) -> None:
    worker = yard.worker()
    first = await yard.client.run()
    await worker.take()
    parked = worker.take(busy=True)
    await asyncio.sleep(1)
    await worker.done(first, {"output": 1, "stopPod": True})
    second = await yard.client.run()

    polls = [await parked, await worker.take(), await worker.take_batch(2), await worker.stop()]

    assert [204] * 4 == [poll.status for poll in polls]
    assert looptime < 2  # type: ignore[operator]
    assert "IN_QUEUE" == (await yard.client.status(second))["status"]
    assert second == (await yard.worker("worker-2").take()).json()["id"]


@pytest.mark.row("F119", "F123", "F124")
@pytest.mark.parametrize("way", ["take", "take_batch", "stop", "ping"])
@pytest.mark.parametrize("secret", ["another worker's", ""])
async def test_a_poll_without_the_workers_own_secret_is_refused_after_a_pause(
    yard: Yard, looptime: object, way: str, secret: str
) -> None:
    job_id = await yard.client.run()
    yard.worker(), yard.worker("worker-2", secret="another worker's")
    stranger = yard.worker(secret=secret)

    refused = await (stranger.take_batch(1) if way == "take_batch" else getattr(stranger, way)())

    assert looptime == STRANGER_PAUSE_S
    assert (401, ["error"]) == (refused.status, list(refused.json()))
    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]


async def test_a_poll_of_a_worker_that_is_not_known_is_refused_after_a_pause(yard: Yard, looptime: object) -> None:
    worker = yard.worker()
    paths = [f"/v2/endpoint-1/job-take/{worker.id}x", f"/v2/endpoint-2/job-take/{worker.id}"]
    worker.prefix = ""

    replies = [await worker.get(path) for path in paths]

    assert looptime == len(paths) * STRANGER_PAUSE_S
    assert [401, 401] == [reply.status for reply in replies]


@pytest.mark.row("F121", "F122")
async def test_a_report_without_the_workers_own_secret_is_refused(yard: Yard) -> None:
    job_id = await yard.client.run()
    await yard.worker().take()
    yard.worker("worker-2", secret="another worker's")
    stranger = yard.worker(secret="another worker's")

    refused = [await stranger.done(job_id, {"output": 1}), await stranger.stream(job_id, 1)]

    assert [401, 401] == [reply.status for reply in refused]
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]


async def lose(worker: Worker) -> None:
    """The worker says twice, some time apart, that it works on nothing."""
    assert 204 == (await worker.take()).status
    await asyncio.sleep(SUSPECTED_S)
    assert 204 == (await worker.take()).status


async def test_a_job_whose_result_was_lost_is_the_next_that_is_taken_and_its_worker_takes_no_more(yard: Yard) -> None:
    worker = yard.worker()
    lost, other = await yard.client.run(), await yard.client.run()
    assert lost == (await worker.take()).json()["id"]
    await lose(worker)

    assert {"inQueue": 2, "retried": 1} == await health(yard)
    assert "workerId" not in await yard.client.status(lost)
    assert [lost, other] == [job["id"] for job in (await yard.worker("worker-2").take_batch(2)).json()]
    assert 204 == (await worker.take()).status
    assert 200 == (await worker.done(lost, {"output": "too late"})).status
    assert "IN_PROGRESS" == (await yard.client.status(lost))["status"]


async def test_a_job_whose_result_was_lost_three_times_fails(yard: Yard) -> None:
    job_id = await yard.client.run()
    for n in range(1, 4):
        worker = yard.worker(f"worker-{n}")
        assert job_id == (await worker.take()).json()["id"]
        await lose(worker)

    shown = await yard.client.status(job_id)
    assert ("FAILED", "worker-3") == (shown["status"], shown["workerId"])
    assert "without sending a result (attempt 3 of 3; no attempt is left)" in shown["error"]
    assert {"failed": 1, "retried": 2} == await health(yard)
    assert 3 == (await yard.client.get("/requests")).json()["requests"][0]["attemptsLost"]


async def test_a_worker_that_is_idle_for_a_moment_while_its_result_travels_loses_nothing(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await yard.client.run()
    await worker.take()
    assert 204 == (await worker.take()).status
    await worker.done(job_id, {"output": 1})
    await asyncio.sleep(SUSPECTED_S)
    idle = worker.take()
    await asyncio.sleep(1)

    assert not idle.answered
    assert {"completed": 1} == await health(yard)
