"""Jobs whose workers die or are stopped, from a client's request to what it reads of each attempt, on the loop's clock."""

import asyncio
import json

import pytest

from runyard.config import Settings
from runyard.domain.job import EndpointId, JobId
from runyard.domain.worker import Exit
from tests.builders import ENDPOINT
from tests.component.scene import playing
from tests.component.wire import POST

pytestmark = pytest.mark.looptime


@pytest.mark.row("F034")
async def test_a_job_that_kills_each_worker_ends_with_the_evidence_of_every_attempt() -> None:
    async with playing() as scene:
        job_id = await scene.run(dies=11)
        job = await scene.until(job_id, "FAILED")

        assert "killed by signal 11" in job["error"]
        assert "(attempt 3 of 3; no attempt is left); quarantined: 3 workers died with this job in hand" in job["error"]
        assert True is job["quarantined"]
        assert [11, 11, 11] == [attempt["signal"] for attempt in job["attempts"]]
        assert [["worker_died", True, [f"working on {job_id}"]]] * 3 == [
            [attempt["cause"], attempt["counted"], attempt["lastLines"]] for attempt in job["attempts"]
        ]
        assert 3 == len({attempt["workerId"] for attempt in job["attempts"]})
        assert 2 == await scene.retried()


@pytest.mark.row("F034")
async def test_a_job_whose_worker_died_is_done_by_the_next() -> None:
    async with playing() as scene:
        job_id = await scene.run(s=30)
        await scene.until(job_id, "IN_PROGRESS")
        scene.crew.exit(next(iter(scene.crew.running)), Exit(3))
        job = await scene.until(job_id, "COMPLETED")

        [attempt] = job["attempts"]
        assert ("worker_died", 3, True) == (attempt["cause"], attempt["exitCode"], attempt["counted"])
        assert attempt["workerId"] != job["workerId"]
        assert (await scene.retried(), "quarantined" in job) == (1, False)


async def test_a_quarantined_job_says_how_to_insist_and_then_runs() -> None:
    async with playing() as scene:
        job_id = await scene.run(dies=9)
        await scene.until(job_id, "FAILED")
        refused = await scene.ask(POST, f"/retry/{job_id}")
        outcome = await scene.platform.jobs.retry(ENDPOINT, JobId(job_id), force=True)
        again = await scene.until(job_id, "FAILED")

        assert 409 == refused.status
        assert f"runyard retry {ENDPOINT} {job_id} --force" in refused.error
        assert 2 == outcome.run
        assert [1, 1, 1, 2, 2, 2] == [attempt["run"] for attempt in again["attempts"]]


async def test_the_settings_say_how_often_a_job_is_tried() -> None:
    async with playing(Settings(attempts_max=5, quarantine_after=2)) as scene:
        killer = await scene.until(await scene.run(dies=9), "FAILED")
    async with playing(Settings(attempts_max=1)) as scene:
        once = await scene.until(await scene.run(dies=9), "FAILED")

    assert "(attempt 2 of 5); quarantined: 2 workers" in killer["error"]
    assert "(attempt 1 of 1; no attempt is left)" in once["error"]
    assert "quarantined" not in once


async def test_a_job_interrupted_because_the_platform_stops_keeps_its_attempts() -> None:
    async with playing(Settings(stop_grace_s=3)) as scene:
        job_id = await scene.run(s=500)
        await scene.until(job_id, "IN_PROGRESS")
        await scene.platform.drain()
        job = await scene.platform.jobs.get(EndpointId(ENDPOINT), JobId(job_id))

        assert ("IN_QUEUE", 1, 1) == (job.state, job.attempts_lost, job.attempts_excused)
        [attempt] = job.attempts
        assert ("worker_stopped", False) == (attempt.evidence.cause, attempt.counted)
        assert "was stopped: the platform stops" in attempt.reason
        assert 1 == await scene.retried()


async def test_a_draining_worker_that_dies_before_it_is_told_to_has_died_of_itself() -> None:
    async with playing() as scene:
        job_id = await scene.run(s=30)
        await scene.until(job_id, "IN_PROGRESS")
        [live] = scene.platform.roster
        scene.platform.lifecycle.replace(live, "runs an older release")
        scene.crew.exit(live.id, Exit(1))
        job = await scene.until(job_id, "COMPLETED")

        assert [("worker_died", True)] == [(attempt["cause"], attempt["counted"]) for attempt in job["attempts"]]


async def test_a_job_whose_worker_ended_together_with_the_platform_keeps_its_attempts() -> None:
    async with playing() as scene:
        job_id = await scene.run(s=30)
        await scene.until(job_id, "IN_PROGRESS")
        scene.crew.exit(next(iter(scene.crew.running)), Exit(None, 9, with_platform=True))
        job = await scene.until(job_id, "COMPLETED")

        assert [("platform_died", False)] == [(attempt["cause"], attempt["counted"]) for attempt in job["attempts"]]


@pytest.mark.parametrize(("exit", "failures"), [(Exit(None, 15, with_platform=True), 0), (Exit(None, 15), 1)])
async def test_a_worker_that_was_taken_along_is_no_failed_start(exit: Exit, failures: int) -> None:
    async with playing() as scene:
        job_id = await scene.run(s=30)
        await scene.until(job_id, "IN_PROGRESS")
        scene.crew.exit(next(iter(scene.crew.running)), exit)
        await asyncio.sleep(0.01)

        [endpoint] = scene.platform.endpoints.list()
        assert failures == scene.platform.lifecycle.failures_of(endpoint).count


async def test_a_job_that_ran_too_long_shows_what_its_worker_said() -> None:
    async with playing() as scene:
        body = json.dumps({"input": {"s": 60}, "policy": {"executionTimeout": 5000}})
        job_id = (await scene.ask(POST, "/run", body)).json()["id"]
        job = await scene.until(job_id, "TIMED_OUT")

        [attempt] = job["attempts"]
        assert ("timed_out", [f"working on {job_id}"]) == (attempt["cause"], attempt["lastLines"])
        assert 0 == await scene.retried()


async def test_the_words_about_other_jobs_are_no_evidence() -> None:
    async with playing() as scene:
        job_id = await scene.run(s=1)
        await scene.until(job_id, "COMPLETED")
        other = await scene.run(dies=9)
        job = await scene.until(other, "FAILED")

        assert [f"working on {other}"] == job["attempts"][0]["lastLines"]
