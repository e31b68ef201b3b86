"""What holds for an endpoint's jobs, from a client's request to the end of what it left, on the loop's clock."""

import asyncio
from typing import Any

import pytest

from runyard.adapters.system import LoopClock
from runyard.config import Settings
from runyard.domain.job import JobId
from runyard.domain.terms import QUEUE, OwnTerms
from runyard.domain.worker import Exit
from tests.builders import ENDPOINT
from tests.component.scene import Scene, playing

pytestmark = pytest.mark.looptime
LATE_S_MAX = 1
"""How much later than due the clock may do what it does."""


async def is_kept_for(seconds: float, scene: Scene, job_id: str) -> bool:
    """Whether a job that has ended is there so long from its end on, and then is not."""
    ended_at = (await scene.platform.jobs.get(ENDPOINT, JobId(job_id))).finished_at
    assert ended_at is not None
    await asyncio.sleep(ended_at + seconds - 0.1 - LoopClock().now())
    before = await scene.code(job_id)
    await asyncio.sleep(0.2)
    return (200, 404) == (before, await scene.code(job_id))


BY_SETTING = {"settings": Settings(retention_s=100, retention_sync_s=20)}
BY_ENDPOINT = {"terms": OwnTerms(retention_s=100, retention_sync_s=20)}
EITHER_WAY = pytest.mark.parametrize("set_by", [BY_SETTING, BY_ENDPOINT], ids=["setting", "endpoint"])


@pytest.mark.row("F030")
@EITHER_WAY
async def test_a_result_is_kept_for_its_retention(set_by: dict[str, Any]) -> None:
    async with playing(**set_by) as scene:
        job_id = await scene.run()
        await scene.until(job_id, "COMPLETED")

        assert await is_kept_for(100, scene, job_id)


@pytest.mark.row("F030")
@EITHER_WAY
@pytest.mark.parametrize(("wait_ms", "expected_s"), [(1000, 20), (50_000, 50)])
async def test_a_synchronous_calls_result_is_kept_for_its_retention_or_its_wait(
    set_by: dict[str, Any], wait_ms: int, expected_s: float
) -> None:
    async with playing(**set_by) as scene:
        job_id = (await scene.send({"s": 0}, f"/runsync?wait={wait_ms}")).json()["id"]
        await scene.until(job_id, "COMPLETED")

        assert await is_kept_for(expected_s, scene, job_id)


async def test_where_synchronous_results_are_kept_longer_than_any_wait_they_are() -> None:
    async with playing(terms=OwnTerms(retention_sync_s=900)) as scene:
        job_id = (await scene.send({}, "/runsync?wait=300000")).json()["id"]

        assert await is_kept_for(900, scene, job_id)


@pytest.mark.row("F022", "F028")
@pytest.mark.parametrize("set_by", [{"settings": Settings(ttl_s=60)}, {"terms": OwnTerms(ttl_s=60)}])
async def test_a_job_lives_as_long_as_jobs_of_its_endpoint_do_unless_it_says_otherwise(set_by: dict[str, Any]) -> None:
    async with playing(workers_min=0, workers_max=0, **set_by) as scene:
        plain = await scene.run()
        own = (await scene.send({}, policy={"ttl": 90_000})).json()["id"]

        await asyncio.sleep(59.5)
        assert [200, 200] == [await scene.code(job_id) for job_id in (plain, own)]
        await asyncio.sleep(0.5)
        assert [404, 200] == [await scene.code(job_id) for job_id in (plain, own)]
        await asyncio.sleep(30)
        assert 404 == await scene.code(own)


@pytest.mark.row("F028")
@pytest.mark.parametrize("set_by", [{"settings": Settings(ttl_scope="queue")}, {"terms": OwnTerms(ttl_scope=QUEUE)}])
async def test_where_the_ttl_counts_in_the_queue_only_a_running_job_finishes_and_a_waiting_one_goes(
    set_by: dict[str, Any],
) -> None:
    async with playing(**set_by) as scene:
        running, waiting = [(await scene.send({"s": 30}, policy={"ttl": 10_000})).json()["id"] for _ in range(2)]
        await asyncio.sleep(10 + LATE_S_MAX)
        assert [200, 404] == [await scene.code(job_id) for job_id in (running, waiting)]

        await scene.until(running, "COMPLETED")
        assert await is_kept_for(1800, scene, running)


async def test_where_the_ttl_counts_in_the_queue_only_a_running_job_still_has_an_execution_timeout() -> None:
    async with playing(terms=OwnTerms(ttl_scope=QUEUE, ttl_s=10, retention_s=100)) as scene:
        job_id = (await scene.send({"s": 500}, policy={"executionTimeout": 20_000})).json()["id"]
        job = await scene.until(job_id, "TIMED_OUT")

        assert 20_000 <= job["executionTime"] < 20_000 + LATE_S_MAX * 1000
        assert await is_kept_for(100, scene, job_id)


async def test_a_job_that_lost_its_worker_after_its_ttl_is_gone_and_no_other_worker_gets_it() -> None:
    async with playing(workers_min=2, workers_max=2, terms=OwnTerms(ttl_scope=QUEUE, ttl_s=10)) as scene:
        await asyncio.sleep(5)
        job_id = await scene.run(s=50)
        await asyncio.sleep(20)
        job = await scene.platform.jobs.get(ENDPOINT, JobId(job_id))
        assert job.lease is not None
        scene.crew.exit(job.lease.worker_id, Exit(1))
        await asyncio.sleep(LATE_S_MAX)

        assert 404 == await scene.code(job_id)
        assert [] == [live.id for live in scene.platform.roster if live.held]


@pytest.mark.row("F006")
async def test_a_ttl_on_status_ends_a_running_job_wherever_ttls_count() -> None:
    async with playing(terms=OwnTerms(ttl_scope=QUEUE)) as scene:
        job_id = await scene.run(s=50)
        await scene.until(job_id, "IN_PROGRESS")
        await scene.ask("GET", f"/status/{job_id}?ttl=6000")

        await asyncio.sleep(5.5)
        assert 200 == await scene.code(job_id)
        await asyncio.sleep(0.5)
        assert 404 == await scene.code(job_id)


async def test_a_change_holds_for_jobs_that_are_submitted_from_then_on() -> None:
    async with playing(workers_min=0, workers_max=0) as scene:
        before = await scene.run()
        await scene.patch({"ttlSeconds": 60})
        after = await scene.run()
        await scene.patch({"ttlSeconds": None})
        reset = await scene.run()

        await asyncio.sleep(60)
        assert [200, 404, 200] == [await scene.code(job_id) for job_id in (before, after, reset)]


@pytest.mark.row("F034")
async def test_a_change_of_how_often_jobs_are_tried_holds_for_those_that_are_there() -> None:
    async with playing() as scene:
        job_id = await scene.run(s=30, dies=9)
        await scene.until(job_id, "IN_PROGRESS")
        await scene.patch({"attemptsMax": 1})
        job = await scene.until(job_id, "FAILED")

        assert "(attempt 1 of 1; no attempt is left)" in job["error"]


async def test_an_endpoint_has_as_many_attempts_as_it_says_whatever_the_platform_does() -> None:
    async with playing(Settings(attempts_max=1, quarantine_after=20), terms=OwnTerms(attempts_max=4)) as scene:
        job = await scene.until(await scene.run(dies=9), "FAILED")

        assert "(attempt 4 of 4; no attempt is left)" in job["error"]


async def test_a_named_request_is_the_same_whatever_holds_at_its_endpoint_meanwhile() -> None:
    async with playing(workers_min=0, workers_max=0) as scene:
        first = await scene.send({}, "/run", "Idempotency-Key: one")
        await scene.patch({"ttlSeconds": 60, "ttlScope": "queue", "retentionSeconds": 5})
        again = await scene.send({}, "/run", "Idempotency-Key: one")

        assert (200, first.json()["id"]) == (again.status, again.json()["id"])
