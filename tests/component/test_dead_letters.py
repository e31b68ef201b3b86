"""`/v2/serverless/{id}/dead-letters`: what failed, why, and its way back into the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.domain.attempt import Cause, Evidence
from runyard.domain.job import EndpointId, Job, JobId, JobState, WorkerId
from runyard.services.dead_letters import DeadLetters
from runyard.services.dispatch import Dispatch
from runyard.services.jobs import Jobs
from runyard.services.roster import Roster
from tests.builders import ENDPOINT, a_job
from tests.component.control_plane import ControlPlane
from tests.control_doubles import CountingIds, SetClock
from tests.payload_kit import MemoryPayloads, inputs_in

CRASH = Evidence(Cause.WORKER_DIED, signal=11, last_lines=("loading", "boom"))


class Morgue:
    """A control plane with one endpoint, and jobs that ended there as a test says."""

    def __init__(self, plane: ControlPlane, endpoint_id: str) -> None:
        self.plane = plane
        self.endpoint_id = EndpointId(endpoint_id)
        self.path = f"/v2/serverless/{endpoint_id}/dead-letters"

    async def job(self, id: str, state: JobState = JobState.FAILED) -> Job:
        now = self.plane.clock.at
        job = a_job(id, endpoint_id=self.endpoint_id, at=now)
        if state is not JobState.IN_QUEUE:
            job = job.take(WorkerId("w1"), now)
            ends = {
                JobState.FAILED: lambda: job.fail("boom", None, now + 2),
                JobState.TIMED_OUT: lambda: job.time_out(now + 600, ("step 7",)),
                JobState.COMPLETED: lambda: job.complete(b"1", now + 2),
            }
            job = ends[state]()
        await self.plane.job_store.add(job)
        return job

    async def killer(self, id: str) -> Job:
        job = a_job(id, endpoint_id=self.endpoint_id, at=self.plane.clock.at)
        for number in range(3):
            job = job.take(WorkerId(f"w{number}"), self.plane.clock.at)
            job = job.lose_worker(self.plane.clock.at + 1, f"worker w{number} ended (killed by signal 11)", CRASH)
        await self.plane.job_store.add(job)
        return job

    async def list(self, query: str = "") -> dict[str, Any]:
        reply = await self.plane.client.get(self.path + query)
        assert 200 == reply.status_code, reply.text
        return reply.json()

    async def ids(self, query: str = "") -> list[str]:
        return [job["id"] for job in (await self.list(query))["deadLetters"]]

    async def redrive(self, status: int = 200, **body: Any) -> dict[str, Any]:
        reply = await self.plane.client.post(f"{self.path}/redrive", json=body)
        assert status == reply.status_code, reply.text
        return reply.json()

    async def queue(self) -> list[str]:
        """Who waits, in the order in which workers will get them."""
        return [job.id for job in await self.plane.job_store.take(self.endpoint_id, WorkerId("fresh"), 10_000, 0)]


@pytest.fixture
async def morgue() -> AsyncIterator[Morgue]:
    async with ControlPlane().running() as plane:
        yield Morgue(plane, (await plane.create())["id"])


async def test_what_failed_or_timed_out_is_listed_newest_first_and_nothing_else(morgue: Morgue) -> None:
    await morgue.job("failed")
    await morgue.job("late", JobState.TIMED_OUT)
    await morgue.job("done", JobState.COMPLETED)
    await morgue.job("waits", JobState.IN_QUEUE)

    assert ["late", "failed"] == await morgue.ids()


async def test_a_dead_letter_has_the_evidence_of_each_attempt(morgue: Morgue) -> None:
    await morgue.killer("killer")
    [letter] = (await morgue.list())["deadLetters"]

    assert ("FAILED", True, 1, 3) == tuple(letter[key] for key in ("status", "quarantined", "run", "attemptsLost"))
    assert "quarantined: 3 workers died" in letter["error"]
    assert {
        "run": 1,
        "workerId": "w2",
        "takenAt": "2027-01-15T08:00:00.000Z",
        "endedAt": "2027-01-15T08:00:01.000Z",
        "cause": "worker_died",
        "counted": True,
        "reason": "worker w2 ended (killed by signal 11)",
        "signal": 11,
        "lastLines": ["loading", "boom"],
    } == letter["attempts"][2]


async def test_a_job_that_ran_too_long_has_the_last_lines_of_its_worker(morgue: Morgue) -> None:
    await morgue.job("late", JobState.TIMED_OUT)
    [letter] = (await morgue.list())["deadLetters"]

    assert ("TIMED_OUT", 600_000) == (letter["status"], letter["executionTime"])
    assert [("timed_out", ["step 7"])] == [(a["cause"], a["lastLines"]) for a in letter["attempts"]]


async def test_the_list_comes_in_pages(morgue: Morgue) -> None:
    for number in range(5):
        await morgue.job(f"job-{number}")
    first = await morgue.list("?limit=2")
    second = await morgue.list(f"?limit=2&after={first['next']}")

    assert ["job-4", "job-3", "job-2", "job-1"] == [
        job["id"] for page in (first, second) for job in page["deadLetters"]
    ]


async def test_what_is_kept_behind_its_time_is_listed_and_redriven(morgue: Morgue) -> None:
    for id in ("a", "b", "c"):
        await morgue.job(id)
    morgue.plane.clock.at += 3600
    store, now = morgue.plane.job_store, morgue.plane.clock.at
    assert 3 == len(await store.put_away(await store.due(now, 9), now))

    assert ["c", "b", "a"] == await morgue.ids()
    assert 1 == (await morgue.redrive(ids=["b"]))["redriven"]
    assert 2 == (await morgue.redrive(all=True))["redriven"]
    assert ["b", "a", "c"] == await morgue.queue()


async def test_what_is_forgotten_is_listed_and_redriven_no_more(morgue: Morgue) -> None:
    await morgue.job("old")
    morgue.plane.clock.at += 3600
    store, now = morgue.plane.job_store, morgue.plane.clock.at
    await store.put_away(await store.due(now, 9), now)
    await store.archive.forget_oldest(now, 1 << 30)

    assert [] == await morgue.ids()
    assert 0 == (await morgue.redrive(all=True))["redriven"]
    [refused] = (await morgue.redrive(ids=["old"]))["refused"]
    assert ("old", "expired") == (refused["id"], refused["code"])


async def test_one_job_or_several_are_redriven_in_the_order_in_which_they_are_named(morgue: Morgue) -> None:
    for id in ("a", "b", "c"):
        await morgue.job(id)

    assert {"redriven": 2, "quarantined": 0, "refused": []} == await morgue.redrive(ids=["c", "a", "c"])
    assert ["b"] == await morgue.ids()
    assert ["c", "a"] == await morgue.queue()


async def test_what_cannot_be_redriven_is_named_and_keeps_nobody_back(morgue: Morgue) -> None:
    await morgue.job("done", JobState.COMPLETED)
    await morgue.job("failed")
    await morgue.killer("killer")
    outcome = await morgue.redrive(ids=["unheard-of", "done", "killer", "failed"])

    assert (1, 1) == (outcome["redriven"], outcome["quarantined"])
    assert [("unheard-of", "not_found"), ("done", "invalid_transition"), ("killer", "quarantined")] == [
        (refusal["id"], refusal["code"]) for refusal in outcome["refused"]
    ]
    assert '"force": true' in outcome["refused"][2]["detail"]
    assert ["failed"] == await morgue.queue()


async def test_a_quarantined_job_is_redriven_when_it_is_named_and_forced(morgue: Morgue) -> None:
    await morgue.killer("killer")

    assert {"redriven": 1, "quarantined": 0, "refused": []} == await morgue.redrive(ids=["killer"], force=True)
    [job] = await morgue.plane.job_store.take(morgue.endpoint_id, WorkerId("fresh"), 1, 0)
    assert (2, False, 3) == (job.run, job.quarantined, len(job.attempts))


async def test_all_are_redriven_oldest_first_but_for_the_quarantined(morgue: Morgue) -> None:
    ids = [f"job-{number}" for number in range(2500)]
    await morgue.killer("killer")
    for id in ids:
        await morgue.job(id)
    await morgue.job("done", JobState.COMPLETED)

    assert {"redriven": 2500, "quarantined": 1, "refused": []} == await morgue.redrive(all=True)
    assert ids == await morgue.queue()
    assert ["killer"] == await morgue.ids()


async def test_the_state_of_a_redriven_job_is_that_of_a_retried_one(morgue: Morgue) -> None:
    failed = await morgue.job("failed")
    await morgue.redrive(ids=["failed"])
    job = await morgue.plane.job_store.get(morgue.endpoint_id, JobId("failed"))

    assert failed.retry(morgue.plane.clock.at) == job


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "ids: name the jobs"),
        ({"ids": ["a"], "all": True}, "ids: name the jobs"),
        ({"all": True, "force": True}, "force: jobs that kill workers are not forced in bulk"),
        ({"ids": []}, "$.ids"),
        ({"ids": ["a"] * 1001}, "$.ids"),
        ({"ids": [""]}, "$.ids"),
        ({"id": "a"}, "additional properties 'id'"),
    ],
)
async def test_a_redrive_that_says_no_such_thing_is_refused(morgue: Morgue, body: Any, problem: str) -> None:
    await morgue.job("a")

    assert problem in (await morgue.redrive(422, **body))["detail"]
    assert ["a"] == await morgue.ids()


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=", "after=x", "after=" + "9" * 17])
async def test_a_page_that_cannot_be_is_refused(morgue: Morgue, query: str) -> None:
    reply = await morgue.plane.client.get(f"{morgue.path}?{query}")

    assert 422 == reply.status_code
    assert query.partition("=")[0] in reply.json()["detail"]


async def test_an_endpoint_that_is_not_there_has_no_dead_letters(morgue: Morgue) -> None:
    for reply in (
        await morgue.plane.client.get("/v2/serverless/nobody/dead-letters"),
        await morgue.plane.client.post("/v2/serverless/nobody/dead-letters/redrive", json={"all": True}),
    ):
        assert 404 == reply.status_code


async def test_strangers_see_and_redrive_nothing(morgue: Morgue) -> None:
    assert 401 == (await morgue.plane.stranger.get(morgue.path)).status_code
    assert 401 == (await morgue.plane.stranger.post(f"{morgue.path}/redrive", json={"all": True})).status_code


async def test_jobs_that_are_redriven_together_keep_their_order_on_disk_too(tmp_path: Path) -> None:
    clock, signals, ids = SetClock(), LocalSignals(), CountingIds()
    store = EmbeddedJobs(tmp_path / "jobs.db")
    inputs = inputs_in(MemoryPayloads(), store, signals, clock)
    jobs = Jobs(store, Dispatch(store, Roster(), inputs, signals, clock), inputs, signals, clock, ids)
    named = [f"job-{number}" for number in range(250)]
    for id in named:
        await store.add(a_job(id, at=clock.at).take(WorkerId("w1"), clock.at).fail("boom", None, clock.at))
    outcome = await DeadLetters(store, jobs, clock).redrive_all(ENDPOINT)
    await store.close()

    store = EmbeddedJobs(tmp_path / "jobs.db")
    assert 250 == outcome.redriven
    assert named == [job.id for job in await store.take(ENDPOINT, WorkerId("fresh"), 1000, clock.at)]
    await store.close()
