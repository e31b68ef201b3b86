"""Calls that wait: how long `/runsync` is held, what it answers then, and what a waiting job tells."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tests.edge_kit import Yard

pytestmark = pytest.mark.looptime


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


@pytest.mark.row("F003", "F004")
async def test_a_synchronous_call_that_no_worker_takes_is_answered_after_90_seconds_and_the_job_lives_on(
    yard: Yard, looptime: object
) -> None:
    reply = await yard.client.post("/runsync", {"input": {"n": 1}})
    job_id = reply.json()["id"]

    assert looptime == 90
    assert (200, {"id": job_id, "status": "IN_QUEUE"}) == (reply.status, reply.json())
    worker = yard.worker()
    assert job_id == (await worker.take()).json()["id"]
    await worker.done(job_id, {"output": "late"})
    shown = await yard.client.status(job_id)
    assert ("COMPLETED", "late") == (shown["status"], shown["output"])


@pytest.mark.row("F003")
@pytest.mark.parametrize(
    ("wait", "seconds"),
    [("1000", 1), ("2500", 2.5), ("300000", 300), ("0", 1), ("999", 1), ("300001", 300), ("999999999999", 300)],
)
async def test_wait_sets_how_long_a_synchronous_call_waits_within_1_and_300_seconds(
    yard: Yard, looptime: object, wait: str, seconds: float
) -> None:
    reply = await yard.client.post(f"/runsync?wait={wait}", {"input": 1})

    assert looptime == seconds
    assert (200, "IN_QUEUE") == (reply.status, reply.json()["status"])


@pytest.mark.parametrize("wait", ["", "soon", "-1", "1.5", "1e3"])
async def test_a_wait_that_is_no_number_is_refused_and_leaves_no_job(yard: Yard, wait: str) -> None:
    reply = await yard.client.post(f"/runsync?wait={wait}", {"input": 1})

    assert 400 == reply.status
    assert "wait must be a whole number of milliseconds" in reply.json()["error"]
    assert 0 == (await yard.client.get("/health")).json()["jobs"]["inQueue"]


@pytest.mark.row("F002")
@pytest.mark.parametrize(
    ("report", "shown"),
    [
        ({"output": {"a": 1}}, {"status": "COMPLETED", "output": {"a": 1}}),
        ({"error": "boom"}, {"status": "FAILED", "error": "boom"}),
    ],
)
async def test_a_synchronous_call_is_answered_when_the_job_ends_and_status_says_the_same(
    yard: Yard, looptime: object, report: object, shown: dict[str, object]
) -> None:
    worker = yard.worker()
    waiting = yard.client.post("/runsync", {"input": 1})
    job_id = (await worker.take()).json()["id"]
    await asyncio.sleep(7)
    assert not waiting.answered
    await worker.done(job_id, report)
    reply = await waiting

    assert looptime == 7
    assert {"id": job_id, "delayTime": 0, "executionTime": 7000, "workerId": worker.id} | shown == reply.json()
    assert reply.json() == await yard.client.status(job_id)


@pytest.mark.row("F002")
async def test_a_synchronous_call_is_answered_at_once_when_its_job_is_cancelled(yard: Yard, looptime: object) -> None:
    waiting = yard.client.post("/runsync", {"input": 1})
    await asyncio.sleep(1)
    await yard.client.post("/purge-queue")

    assert "CANCELLED" == (await waiting).json()["status"]
    assert looptime == 1


async def test_a_job_whose_client_has_left_goes_on(yard: Yard) -> None:
    worker = yard.worker()
    waiting = yard.client.post("/runsync", {"input": 1})
    job_id = (await worker.take()).json()["id"]
    waiting.leave()
    await asyncio.sleep(1)
    await worker.done(job_id, {"output": 2})

    assert "COMPLETED" == (await yard.client.status(job_id))["status"]


@pytest.mark.row("F001", "F005")
async def test_a_submit_is_answered_at_once_and_its_job_waits_with_its_input(yard: Yard, looptime: object) -> None:
    reply = await yard.client.post("/run", {"input": {"n": 1}})
    job_id = reply.json()["id"]

    assert looptime == 0
    assert (200, {"id": job_id, "status": "IN_QUEUE"}) == (reply.status, reply.json())
    assert {"id": job_id, "status": "IN_QUEUE", "input": {"n": 1}} == await yard.client.status(job_id)
    assert await yard.client.status(job_id) == (await yard.client.post(f"/status/{job_id}")).json()


@pytest.mark.row("F001")
async def test_a_submit_that_a_waiting_worker_takes_is_answered_in_queue_too(yard: Yard) -> None:
    taking = yard.worker().take()
    await asyncio.sleep(1)
    reply = await yard.client.post("/run", {"input": 1})

    assert {"id": (await taking).json()["id"], "status": "IN_QUEUE"} == reply.json()
    assert "IN_PROGRESS" == (await yard.client.status(reply.json()["id"]))["status"]


@pytest.mark.row("F005")
@pytest.mark.parametrize("path", ["status", "stream", "requests"])
async def test_a_job_is_unknown_where_it_was_not_submitted(yard: Yard, path: str) -> None:
    job_id = await yard.client.run()
    elsewhere = yard.client_of("endpoint-2")

    replies = [await elsewhere.get(f"/{path}/{job_id}"), await yard.client.get(f"/{path}/{job_id}x")]
    replies += [await yard.client_of("endpoint-3").get(f"/{path}/{job_id}")]

    assert [404, 404, 404] == [reply.status for reply in replies]
    assert [["error"]] * 3 == [list(reply.json()) for reply in replies]


@pytest.mark.row("F015")
async def test_a_job_id_is_a_uuid_with_a_suffix_and_says_whether_its_call_waited(yard: Yard) -> None:
    queued = [await yard.client.run() for _ in range(200)]
    waited = (await yard.client.post("/runsync?wait=1000", {"input": 1})).json()["id"]

    uuid = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}-u1"
    assert [] == [job_id for job_id in queued if not re.fullmatch(uuid, job_id)]
    assert re.fullmatch(f"sync-{uuid}", waited)
    assert 200 == len(set(queued))


async def test_a_job_tells_why_it_waits_for_as_long_as_it_does(yard: Yard) -> None:
    planning = asyncio.create_task(yard.fleet.run())
    job_id = await yard.client.run()
    await asyncio.sleep(1)
    shown = [
        await yard.client.status(job_id),
        (await yard.client.get(f"/stream/{job_id}")).json(),
        (await yard.client.get(f"/requests/{job_id}")).json(),
        (await yard.client.post("/runsync?wait=1000", {"input": 1})).json(),
    ]
    planning.cancel()

    reason = {"code": "workers_max_zero", "message": "workers.max is 0; raise it to let workers start"}
    assert [("IN_QUEUE", reason)] * 4 == [(body["status"], body["queueReason"]) for body in shown]
    worker = yard.worker()
    await worker.take()
    assert "queueReason" not in await yard.client.status(job_id)


@pytest.mark.row("F023")
async def test_a_low_priority_job_asks_for_no_worker_and_is_done_in_its_turn(yard: Yard) -> None:
    low = [await yard.client.run(policy={"lowPriority": True}) for _ in range(2)]
    demands = [await yard.store.demand("endpoint-1", yard.clock.now(), 100)]
    usual = await yard.client.run(policy={"lowPriority": False})
    demands += [await yard.store.demand("endpoint-1", yard.clock.now(), 100)]

    assert [(2, 0), (3, 1)] == [(demand.queued, demand.pressing) for demand in demands]
    assert [*low, usual] == [job["id"] for job in (await yard.worker().take_batch(3)).json()]
