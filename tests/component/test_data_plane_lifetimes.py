"""What the clock does to jobs: execution timeouts, lifetimes, and how long results are kept."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.builders import ENDPOINT
from tests.edge_kit import Worker, Yard

MINUTE = 60
LATE_S_MAX = 1
"""How much later than due a running job is stopped."""

pytestmark = pytest.mark.looptime


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


async def taken(yard: Yard, worker: Worker, **fields: object) -> str:
    """A job that the worker has."""
    job_id = await yard.client.run(**fields)
    assert job_id == (await worker.take()).json()["id"]
    return job_id


async def code_of(yard: Yard, job_id: str) -> int:
    return (await yard.client.get(f"/status/{job_id}")).status


async def test_a_submitted_jobs_result_is_kept_for_30_minutes(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)
    await asyncio.sleep(100)
    await worker.done(job_id, {"output": 1})

    await asyncio.sleep(30 * MINUTE - 1)
    assert "COMPLETED" == (await yard.client.status(job_id))["status"]
    await asyncio.sleep(1)
    assert 404 == await code_of(yard, job_id)


@pytest.mark.parametrize(
    ("query", "kept_s"), [("", 90), ("?wait=1000", 60), ("?wait=120000", 120), ("?wait=300000", 300)]
)
async def test_a_synchronous_calls_result_is_kept_as_long_as_it_would_have_waited_within_1_and_5_minutes(
    yard: Yard, query: str, kept_s: int
) -> None:
    worker = yard.worker()
    waiting = yard.client.post(f"/runsync{query}", {"input": 1})
    job_id = (await worker.take()).json()["id"]
    await worker.done(job_id, {"output": 1})
    await waiting

    await asyncio.sleep(kept_s - 1)
    assert 200 == await code_of(yard, job_id)
    await asyncio.sleep(1)
    assert 404 == await code_of(yard, job_id)


async def test_what_has_expired_is_gone_but_from_where_it_is_kept(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker, input={"n": 1})
    await worker.stream(job_id, "piece")
    await worker.done(job_id, {"output": 1})
    await asyncio.sleep(30 * MINUTE + LATE_S_MAX)

    told = (await yard.client.get(f"/status/{job_id}")).json()
    path = f"/v2/{ENDPOINT}/requests/{job_id}"
    assert (
        f"job {job_id} has expired: it ended COMPLETED, and what it gave can still be read at {path}" == told["error"]
    )
    assert told["runyard"] == {
        "id": job_id,
        "status": "COMPLETED",
        "createdAt": "2027-01-15T08:00:00.000Z",
        "endedAt": "2027-01-15T08:00:00.000Z",
        "path": path,
    }
    kept = (await yard.client.get(f"/requests/{job_id}")).json()
    assert ({"n": 1}, 1, "2027-01-15T08:30:00.000Z") == (kept["input"], kept["output"], kept["expiresAt"])
    [listed] = (await yard.client.get("/requests")).json()["requests"]
    assert (job_id, "2027-01-15T08:30:00.000Z") == (listed["id"], listed["expiresAt"])


@pytest.mark.parametrize("taking", [False, True])
async def test_a_job_that_expired_unfinished_is_told_of_and_not_kept(yard: Yard, taking: bool) -> None:
    job_id = await yard.client.run(policy={"ttl": 10_000})
    if taking:
        await yard.worker().take()
    await asyncio.sleep(10 + LATE_S_MAX)
    state = "IN_PROGRESS" if taking else "IN_QUEUE"

    for reply in [await yard.client.get(f"/{route}/{job_id}") for route in ("status", "requests", "stream")]:
        told = reply.json()
        assert 404 == reply.status
        assert f"job {job_id} has expired: its time to live was over while it was {state}" == told["error"]
        assert told["runyard"] == {"id": job_id, "status": state, "createdAt": "2027-01-15T08:00:00.000Z"}
    assert [] == (await yard.client.get("/requests")).json()["requests"]


async def test_a_job_that_never_was_is_not_said_to_have_expired(yard: Yard) -> None:
    reply = await yard.client.get("/requests/nobody")

    assert 404 == reply.status
    assert {"error"} == reply.json().keys()


async def test_an_expired_job_cannot_be_retried_cancelled_or_streamed(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)
    await worker.done(job_id, {"error": "boom"})
    await asyncio.sleep(30 * MINUTE)

    replies = [await yard.client.post(f"/{operation}/{job_id}") for operation in ("retry", "cancel", "stream")]

    assert [404] * 3 == [reply.status for reply in replies]


@pytest.mark.row("F006")
async def test_ttl_on_status_sets_how_long_a_job_is_kept_from_then_on(yard: Yard) -> None:
    worker = yard.worker()
    ended, waiting = await taken(yard, worker), await yard.client.run()
    await worker.done(ended, {"output": 1})
    await asyncio.sleep(100)
    for job_id in (ended, waiting):
        reply = await yard.client.get(f"/status/{job_id}?ttl=6000")
        assert (200, job_id) == (reply.status, reply.json()["id"])

    await asyncio.sleep(5.9)
    assert [200, 200] == [await code_of(yard, job_id) for job_id in (ended, waiting)]
    await asyncio.sleep(0.1)
    assert [404, 404] == [await code_of(yard, job_id) for job_id in (ended, waiting)]
    assert 0 == (await yard.client.get("/health")).json()["jobs"]["inQueue"]


@pytest.mark.row("F006")
@pytest.mark.parametrize("ttl", ["", "soon", "-6000"])
async def test_a_ttl_on_status_that_is_no_number_is_refused_and_changes_nothing(yard: Yard, ttl: str) -> None:
    job_id = await yard.client.run()
    reply = await yard.client.get(f"/status/{job_id}?ttl={ttl}")
    await asyncio.sleep(60)

    assert 400 == reply.status
    assert 200 == await code_of(yard, job_id)


@pytest.mark.row("F021", "F026", "F027")
async def test_a_job_that_overruns_its_execution_timeout_is_timed_out_and_its_worker_told_to_stop_it(
    yard: Yard, looptime: object
) -> None:
    worker = yard.worker()
    job_id = await yard.client.run(policy={"executionTimeout": 5000})
    await asyncio.sleep(20)  # It waits longer than it may run.
    await worker.take()
    stopping = worker.stop()
    await worker.done(job_id, {"status": "IN_PROGRESS", "output": "half"})
    stopped = await stopping

    assert 25 <= looptime <= 25 + LATE_S_MAX  # type: ignore[operator]
    assert (200, {"jobsToStop": [job_id]}) == (stopped.status, stopped.json())
    shown = await yard.client.status(job_id)
    assert ("TIMED_OUT", 20_000) == (shown["status"], shown["delayTime"])
    assert 5000 <= shown["executionTime"] <= 5000 + LATE_S_MAX * 1000
    assert "execution timeout: the job ran longer than 5 seconds" == shown["error"]
    assert "output" not in shown
    assert 1 == (await yard.client.get("/health")).json()["jobs"]["failed"]


@pytest.mark.row("F021")
async def test_a_job_without_a_policy_may_run_for_10_minutes(yard: Yard) -> None:
    job_id = await taken(yard, yard.worker())

    await asyncio.sleep(10 * MINUTE - 1)
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]
    await asyncio.sleep(1 + LATE_S_MAX)
    assert "TIMED_OUT" == (await yard.client.status(job_id))["status"]


@pytest.mark.row("F027")
async def test_a_synchronous_call_is_answered_when_its_job_times_out(yard: Yard, looptime: object) -> None:
    waiting = yard.client.post("/runsync", {"input": 1, "policy": {"executionTimeout": 5000}})
    await yard.worker().take()

    assert "TIMED_OUT" == (await waiting).json()["status"]
    assert 5 <= looptime <= 5 + LATE_S_MAX  # type: ignore[operator]


async def test_a_waiting_job_whose_ttl_is_over_is_gone_and_no_worker_gets_it(yard: Yard) -> None:
    job_id = await yard.client.run(policy={"ttl": 10_000})
    await asyncio.sleep(9.9)
    assert 200 == await code_of(yard, job_id)
    await asyncio.sleep(0.1 + LATE_S_MAX)

    assert 404 == await code_of(yard, job_id)
    assert 204 == (await yard.worker().take()).status


async def test_a_running_job_whose_ttl_is_over_is_gone_its_worker_told_and_its_siblings_go_on(
    yard: Yard, looptime: object
) -> None:
    worker = yard.worker()
    stopping = worker.stop()
    doomed = await yard.client.run(policy={"ttl": 10_000})
    sibling = await yard.client.run()
    await worker.take_batch(2)
    stopped = await stopping

    assert 10 <= looptime <= 10 + LATE_S_MAX  # type: ignore[operator]
    assert {"jobsToStop": [doomed]} == stopped.json()
    assert 404 == await code_of(yard, doomed)
    assert 200 == (await worker.done(doomed, {"output": "too late"})).status
    assert 404 == await code_of(yard, doomed)
    await worker.done(sibling, {"output": 1})
    assert "COMPLETED" == (await yard.client.status(sibling))["status"]


async def test_a_ttl_covers_waiting_running_and_the_result(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await yard.client.run(policy={"ttl": 60_000})
    await asyncio.sleep(30)
    await worker.take()
    await asyncio.sleep(10)
    await worker.done(job_id, {"output": 1})

    await asyncio.sleep(19)
    assert "COMPLETED" == (await yard.client.status(job_id))["status"]
    await asyncio.sleep(1)
    assert 404 == await code_of(yard, job_id)


async def test_a_synchronous_call_whose_job_expires_is_told_so_then(yard: Yard, looptime: object) -> None:
    reply = await yard.client.post("/runsync", {"input": 1, "policy": {"ttl": 10_000}})
    told = reply.json()

    # The status was sent after a second, with the job's id.
    assert (200, reply.headers["x-runyard-job-id"], "IN_QUEUE") == (reply.status, told["id"], told["status"])
    assert "has expired" in told["error"]
    assert 404 == await code_of(yard, told["id"])
    assert 10 <= looptime <= 10 + LATE_S_MAX  # type: ignore[operator]


@pytest.mark.parametrize(("ttl", "code"), [(10_000, 200), (9_999, 400), (604_800_000, 200), (604_800_001, 400)])
async def test_a_ttl_is_10_seconds_to_7_days(yard: Yard, ttl: int, code: int) -> None:
    reply = await yard.client.post("/run", {"input": 1, "policy": {"ttl": ttl}})

    assert code == reply.status
    assert ("policy.ttl" in reply.json().get("error", "")) is (code == 400)
