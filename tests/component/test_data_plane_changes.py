"""What clients do to jobs that are there: cancel, retry, purge, count and list them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edge_kit import Yard

pytestmark = pytest.mark.looptime


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


async def running(yard: Yard, **fields: Any) -> str:
    """A job that `worker-1` has."""
    job_id = await yard.client.run(**fields)
    assert job_id == (await yard.worker().take(busy=True)).json()["id"]
    return job_id


async def ended(yard: Yard, state: str) -> str:
    """A job in this terminal state."""
    job_id = await running(yard, policy={"executionTimeout": 5000})
    match state:
        case "COMPLETED":
            await yard.worker().done(job_id, {"output": "result"})
        case "FAILED":
            await yard.worker().done(job_id, {"output": "evidence", "error": "boom"})
        case "CANCELLED":
            await yard.client.post(f"/cancel/{job_id}")
        case _:
            await asyncio.sleep(6)
    assert state == (await yard.client.status(job_id))["status"]
    return job_id


@pytest.mark.row("F009")
async def test_a_waiting_job_is_cancelled_at_once_and_no_worker_gets_it(yard: Yard, looptime: object) -> None:
    job_id = await yard.client.run()
    reply = await yard.client.post(f"/cancel/{job_id}")

    assert looptime == 0
    assert (200, {"id": job_id, "status": "CANCELLED"}) == (reply.status, reply.json())
    assert {"id": job_id, "status": "CANCELLED"} == await yard.client.status(job_id)
    assert 204 == (await yard.worker().take()).status


@pytest.mark.row("F009", "F123")
async def test_a_running_job_is_cancelled_at_once_and_its_worker_told_to_stop_it_alone(
    yard: Yard, looptime: object
) -> None:
    doomed, sibling = await running(yard), await running(yard)
    stopping = yard.worker().stop()
    await asyncio.sleep(1)
    reply = await yard.client.post(f"/cancel/{doomed}")
    stopped = await stopping

    assert looptime == 1
    assert (200, {"id": doomed, "status": "CANCELLED"}) == (reply.status, reply.json())
    assert (200, {"jobsToStop": [doomed]}) == (stopped.status, stopped.json())
    assert "IN_PROGRESS" == (await yard.client.status(sibling))["status"]


@pytest.mark.row("F123")
async def test_a_worker_that_was_not_asking_hears_of_all_jobs_to_stop_when_it_does_and_once(
    yard: Yard, looptime: object
) -> None:
    doomed = {await running(yard), await running(yard)}
    for job_id in doomed:
        await yard.client.post(f"/cancel/{job_id}")
    stopped = await yard.worker().stop()

    assert looptime == 0
    assert doomed == set(stopped.json()["jobsToStop"])
    assert 204 == (await yard.worker().stop()).status


@pytest.mark.row("F009")
@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
async def test_a_cancelled_job_that_has_ended_stays_as_it_ended(yard: Yard, state: str) -> None:
    job_id = await ended(yard, state)
    before = await yard.client.status(job_id)
    reply = await yard.client.post(f"/cancel/{job_id}")

    assert (200, {"id": job_id, "status": state}) == (reply.status, reply.json())
    assert before == await yard.client.status(job_id)


@pytest.mark.row("F010")
@pytest.mark.parametrize("state", ["FAILED", "TIMED_OUT"])
async def test_a_job_that_failed_is_run_again_under_its_id_with_its_input_and_nothing_of_its_end(
    yard: Yard, state: str
) -> None:
    job_id = await ended(yard, state)
    reply = await yard.client.post(f"/retry/{job_id}")

    assert (200, {"id": job_id, "status": "IN_QUEUE"}) == (reply.status, reply.json())
    assert {"id": job_id, "status": "IN_QUEUE", "input": 1} == await yard.client.status(job_id)
    other = yard.worker("worker-2")
    assert {"id": job_id, "input": 1} == (await other.take()).json()
    await other.done(job_id, {"output": "second"})
    shown = await yard.client.status(job_id)
    assert ("COMPLETED", "second") == (shown["status"], shown["output"])
    assert "error" not in shown


@pytest.mark.row("F010")
@pytest.mark.parametrize("state", ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "CANCELLED"])
async def test_no_other_job_is_run_again(yard: Yard, state: str) -> None:
    match state:
        case "IN_QUEUE":
            job_id = await yard.client.run()
        case "IN_PROGRESS":
            job_id = await running(yard)
        case _:
            job_id = await ended(yard, state)
    before = await yard.client.status(job_id)
    refused = await yard.client.post(f"/retry/{job_id}")

    assert 409 == refused.status
    assert f"job {job_id} is {state}; only FAILED or TIMED_OUT jobs can be retried" == refused.json()["error"]
    assert before == await yard.client.status(job_id)


@pytest.mark.row("F010")
async def test_a_job_that_is_run_again_has_the_chunks_of_its_new_run_alone(yard: Yard) -> None:
    job_id = await running(yard)
    worker = yard.worker()
    await worker.stream(job_id, "old")
    await worker.done(job_id, {"error": "boom"})
    await yard.client.post(f"/retry/{job_id}")
    await worker.take()
    await worker.stream(job_id, "new")

    assert [{"output": "new"}] == (await yard.client.get(f"/stream/{job_id}")).json()["stream"]


@pytest.mark.row("F011")
async def test_a_purge_cancels_what_waits_and_says_how_many_and_what_runs_goes_on(yard: Yard) -> None:
    runs, done = await running(yard), await ended(yard, "COMPLETED")
    waiting = [await yard.client.run() for _ in range(3)]
    replies = [await yard.client.post("/purge-queue") for _ in range(2)]

    assert [{"removed": 3, "status": "completed"}, {"removed": 0, "status": "completed"}] == [
        reply.json() for reply in replies
    ]
    assert ["CANCELLED"] * 3 == [(await yard.client.status(job_id))["status"] for job_id in waiting]
    assert ["IN_PROGRESS", "COMPLETED"] == [(await yard.client.status(job_id))["status"] for job_id in (runs, done)]
    assert 204 == (await yard.worker().take(busy=True)).status
    await yard.worker().done(runs, {"output": 1})
    assert "COMPLETED" == (await yard.client.status(runs))["status"]


@pytest.mark.row("F011")
async def test_a_purge_leaves_the_queues_of_other_endpoints(yard: Yard) -> None:
    other = yard.client_of("endpoint-2")
    job_id = await other.run()
    await yard.client.post("/purge-queue")

    assert "IN_QUEUE" == (await other.status(job_id))["status"]


@pytest.mark.row("F012", "F013")
async def test_health_counts_jobs_by_state_and_workers_by_what_they_do(yard: Yard) -> None:
    nothing = {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    nobody = {"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0, "unhealthy": 0}
    assert {"jobs": nothing, "workers": nobody} == (await yard.client.get("/health")).json()

    for state in ("COMPLETED", "COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED"):
        await ended(yard, state)
    await running(yard)
    for _ in range(3):
        await yard.client.run()
    yard.worker("worker-2")
    await yard.worker("worker-3").ping()

    assert {
        "jobs": nothing | {"completed": 2, "failed": 2, "inProgress": 1, "inQueue": 3},
        "workers": nobody | {"idle": 1, "initializing": 1, "ready": 2, "running": 1},
    } == (await yard.client.get("/health")).json()
    assert {"jobs": nothing, "workers": nobody} == (await yard.client_of("endpoint-2").get("/health")).json()


async def listed(yard: Yard, query: str = "") -> list[str]:
    reply = await yard.client.get(f"/requests{query}")
    assert 200 == reply.status, reply.body
    return [job["id"] for job in reply.json()["requests"]]


@pytest.mark.row("F014")
async def test_jobs_are_listed_newest_first_by_state_and_worker(yard: Yard) -> None:
    done, failed, runs = await ended(yard, "COMPLETED"), await ended(yard, "FAILED"), await running(yard)
    waits = await yard.client.run()
    elsewhere = await yard.client.run()
    assert waits == (await yard.worker("worker-2").take()).json()["id"]

    assert [elsewhere, waits, runs, failed, done] == await listed(yard)
    assert [failed, done] == await listed(yard, "?states=COMPLETED,FAILED")
    assert [elsewhere] == await listed(yard, "?states=IN_QUEUE")
    assert [runs, failed, done] == await listed(yard, "?workerId=worker-1")
    assert [waits] == await listed(yard, "?workerId=worker-2&states=IN_PROGRESS")
    assert [] == await listed(yard, "?workerId=worker-3")


@pytest.mark.row("F014")
async def test_a_long_list_comes_in_pages_that_stay_in_place_while_jobs_are_added(yard: Yard) -> None:
    ids = [await yard.client.run() for _ in range(7)]
    seen: list[list[str]] = []
    after = ""
    while after is not None:
        page = (await yard.client.get(f"/requests?limit=3{after and f'&after={after}'}")).json()
        seen.append([job["id"] for job in page["requests"]])
        after = page["next"]
        await yard.client.run()

    assert [ids[:3:-1], ids[3:0:-1], ids[:1]] == seen


@pytest.mark.row("F014")
async def test_a_listed_job_shows_all_but_its_payloads_and_one_job_its_input_too(yard: Yard) -> None:
    job_id = await ended(yard, "FAILED")
    facts = {"id": job_id, "status": "FAILED", "delayTime": 0, "executionTime": 0, "workerId": "worker-1"}

    [shown] = (await yard.client.get("/requests")).json()["requests"]
    assert (
        facts
        | {
            "createdAt": "2027-01-15T08:00:00.000Z",
            "run": 1,
            "attemptsLost": 0,
            "error": "boom",
            "expiresAt": "2027-01-15T08:30:00.000Z",
        }
        == shown
    )
    assert (
        facts | {"input": 1, "output": "evidence", "error": "boom", "expiresAt": "2027-01-15T08:30:00.000Z"}
        == (await yard.client.get(f"/requests/{job_id}")).json()
    )


@pytest.mark.row("F014")
@pytest.mark.parametrize(
    "query", ["states=RUNNING", "states=IN_QUEUE,x", "limit=0", "limit=1001", "limit=x", "limit=", "after=x", "after="]
)
async def test_a_list_that_makes_no_sense_is_refused_by_name(yard: Yard, query: str) -> None:
    reply = await yard.client.get(f"/requests?{query}")

    assert 400 == reply.status
    assert query.partition("=")[0] in reply.json()["error"]
