"""Inputs that lie outside the store while their jobs wait: over the real edge, in and out again."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.memory import MemoryJobs
from runyard.config import Settings
from runyard.domain.job import Job, JobId
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobStore
from runyard.services import hand
from runyard.services.dispatch import Dispatch
from runyard.services.parking import TakePoll
from runyard.services.roster import LiveWorker
from tests.builders import ENDPOINT
from tests.edge_kit import Worker, Yard
from tests.full_store import FullJobs

MIB = 1 << 20
SETTINGS = Settings(input_inline_bytes=MIB // 4, result_inline_bytes=MIB // 4)
INPUT = {"é": [1.0, 1e3, "x" * MIB], "b": None}
SENT = json.dumps(INPUT, ensure_ascii=False, indent=1).encode()
BODY = b'{"input": %b}' % SENT
SMALL = b'{"input": {"n": 1}}'


TIMED = pytest.mark.looptime
ON_DISK_TOO = pytest.mark.parametrize("store", ["memory", "embedded"], indirect=True)
"""Not on the loop's clock, which would run on while a disk is waited for."""


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JobStore:
    on_disk = getattr(request, "param", "memory") == "embedded"
    return EmbeddedJobs(tmp_path / "jobs.db") if on_disk else MemoryJobs()


@pytest.fixture
async def yard(store: JobStore) -> AsyncIterator[Yard]:
    yard = Yard(store=store, settings=SETTINGS)
    await yard.open()
    yield yard
    assert 0 == yard.payloads.drafts
    await yard.close()


@pytest.fixture
def worker(yard: Yard) -> Worker:
    return yard.worker()


async def submitted(yard: Yard, body: bytes = BODY, path: str = "/run", **headers: str) -> str:
    reply = await yard.client.post(path, body, headers=headers)
    assert 200 == reply.status, reply.body
    return reply.json()["id"]


async def stored(yard: Yard, job_id: str) -> Job:
    job = await yard.store.get(ENDPOINT, JobId(job_id))
    assert job is not None
    return job


async def detail(yard: Yard, job_id: str) -> Any:
    reply = await yard.client.get(f"/requests/{job_id}")
    assert 200 == reply.status
    return reply.json()


async def held(yard: Yard) -> list[str]:
    """The jobs whose payloads are kept, when what nobody names is away."""
    await yard.spills.sweep()
    return [kept.job_id for kept, _ in yard.payloads.held.values()]


@ON_DISK_TOO
async def test_a_large_input_is_kept_outside_and_a_worker_gets_it_byte_for_byte(yard: Yard, worker: Worker) -> None:
    job_id = await submitted(yard)
    input = (await stored(yard, job_id)).input
    assert isinstance(input, Spilled)
    assert SENT == yard.payloads.load(input)

    assert b'{"id":"%b","input":%b}' % (job_id.encode(), SENT) == (await worker.take()).body
    await worker.done(job_id, {"output": 5})
    assert 5 == (await yard.client.status(job_id))["output"]


async def test_a_small_input_stays_where_it_was(yard: Yard) -> None:
    job_id = await submitted(yard, SMALL)

    assert b'{"n": 1}' == (await stored(yard, job_id)).input
    assert {} == yard.payloads.held


@TIMED
async def test_a_worker_that_waits_gets_it_too_alone_or_in_a_batch(yard: Yard, worker: Worker) -> None:
    alone, batch = worker.take(), yard.worker("worker-2").take_batch(3)
    await asyncio.sleep(1)
    first, second = [await submitted(yard, body) for body in (BODY, BODY)]

    assert (second, INPUT) == ((got := (await alone).json())["id"], got["input"])
    assert [(first, INPUT)] == [(job["id"], job["input"]) for job in (await batch).json()]


@ON_DISK_TOO
async def test_a_status_does_not_echo_it_and_the_detail_has_it_in_every_state(yard: Yard, worker: Worker) -> None:
    job_id = await submitted(yard)
    assert "input" not in await yard.client.status(job_id)
    assert INPUT == (await detail(yard, job_id))["input"]
    await worker.take()
    assert INPUT == (await detail(yard, job_id))["input"]
    await worker.done(job_id, {"error": "no", "output": ["y" * MIB]})
    job = await detail(yard, job_id)

    assert ("FAILED", INPUT, ["y" * MIB]) == (job["status"], job["input"], job["output"]), "beside a large output"
    assert isinstance((await stored(yard, job_id)).output, Spilled)


@TIMED
async def test_a_retry_keeps_it_and_a_job_that_is_gone_does_not(yard: Yard, worker: Worker) -> None:
    job_id = await submitted(yard)
    await worker.take()
    await worker.done(job_id, {"error": "no"})
    assert [job_id] == await held(yard)
    assert 200 == (await yard.client.post(f"/retry/{job_id}")).status
    assert INPUT == (await worker.take()).json()["input"]
    await worker.done(job_id, {"output": 1})
    assert [job_id] == await held(yard), "as long as it can be read at its detail"
    await yard.client.get(f"/status/{job_id}?ttl=1000")
    await asyncio.sleep(5)
    assert INPUT == (await detail(yard, job_id))["input"]
    await yard.store.archive.forget_oldest(yard.clock.now(), 1)

    assert [] == await held(yard)


# While it is read


@TIMED
async def test_a_submit_is_answered_before_its_input_is_read_again_and_its_time_runs_when_a_worker_has_it(
    yard: Yard, worker: Worker
) -> None:
    poll = worker.take()
    await asyncio.sleep(1)
    yard.payloads.opens.clear()
    began = yard.clock.now()
    job_id = await submitted(yard)
    assert yard.clock.now() - began < 0.1
    await asyncio.sleep(5)
    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]
    yard.payloads.opens.set()
    assert INPUT == (await poll).json()["input"]
    await worker.done(job_id, {"output": 1})
    job = await yard.client.status(job_id)

    assert ("COMPLETED", True, True) == (job["status"], job["delayTime"] >= 5000, job["executionTime"] < 100)


@ON_DISK_TOO
async def test_two_workers_get_large_jobs_in_their_order(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "ANSWER_BYTES_MAX", 3 * MIB)
    given: list[str] = []
    real = Dispatch._hand_over

    def hand_over(dispatch: Dispatch, live: LiveWorker, poll: TakePoll, jobs: Sequence[Job]) -> bool:
        given.extend(job.id for job in jobs)
        return real(dispatch, live, poll, jobs)

    monkeypatch.setattr(Dispatch, "_hand_over", hand_over)
    job_ids = [await submitted(yard) for _ in range(20)]

    async def work(worker: Worker) -> None:
        while len(given) < 20:
            for job in (await worker.take_batch(20)).json():
                assert INPUT == job["input"]
                await worker.done(job["id"], {"output": 1})

    workers = [asyncio.create_task(work(yard.worker(id))) for id in ("worker-1", "worker-2")]
    await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
    for task in workers:
        task.cancel()
    await asyncio.wait(workers)

    assert job_ids == given


async def test_a_cancel_that_cannot_be_written_meanwhile_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(data: bytes, batch: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store = EmbeddedJobs(tmp_path / "jobs.db")
    yard = Yard(store=store, settings=SETTINGS)
    await yard.open()
    poll = yard.worker().take()
    yard.payloads.opens.clear()
    job_id = await submitted(yard)
    with monkeypatch.context() as patch:
        patch.setattr(store._journal, "_commit", full)  # pyright: ignore[reportPrivateUsage]
        assert 503 == (await yard.client.post(f"/cancel/{job_id}")).status
    yard.payloads.opens.set()

    assert INPUT == (await poll).json()["input"]
    assert [job_id] == list(yard.worker().live.held)
    await yard.close()


# Who waits for the result


@TIMED
async def test_a_runsync_is_answered_as_ever(yard: Yard, worker: Worker) -> None:
    call = yard.client.post("/runsync", BODY)
    job_id = (await worker.take()).json()["id"]
    await asyncio.sleep(3)
    await worker.done(job_id, {"output": 7})
    reply = await call

    assert (200, job_id, 7) == (reply.status, reply.json()["id"], reply.json()["output"])
    assert job_id == reply.headers["x-runyard-job-id"], "its head was out before"


@TIMED
async def test_a_runsync_whose_job_has_ended_as_it_begins_to_wait_is_answered_at_once(
    yard: Yard, worker: Worker
) -> None:
    poll = worker.take()
    await asyncio.sleep(1)
    yard.payloads.opens.clear()
    call = yard.client.post("/runsync", BODY)
    await asyncio.sleep(1)
    yard.payloads.held.clear()
    yard.payloads.opens.set()
    began = yard.clock.now()
    job = (await call).json()

    assert ("FAILED", True) == (job["status"], job["error"].startswith("the job's input is lost"))
    assert yard.clock.now() - began < 1
    poll.leave()


@TIMED
async def test_a_wait_begins_when_the_input_is_kept(yard: Yard) -> None:
    """Before, there is no job to be found: that is no reason to say that there is none."""
    yard.payloads.moves.clear()
    call = yard.client.post("/runsync?wait=2000", BODY)
    await asyncio.sleep(10)
    assert not call.answered
    yard.payloads.moves.set()
    reply = await call

    assert (200, "IN_QUEUE") == (reply.status, reply.json()["status"])


async def test_an_openai_client_may_send_much(yard: Yard, worker: Worker) -> None:
    asked = {"model": "m", "messages": ["x" * MIB]}
    call = yard.client.post("/openai/v1/chat/completions", asked)
    job = (await worker.take()).json()
    assert {"openai_route": "/v1/chat/completions", "openai_input": asked} == job["input"]
    assert isinstance((await stored(yard, job["id"])).input, Spilled)
    await worker.done(job["id"], {"output": {"choices": []}})

    assert {"choices": []} == (await call).json()


@pytest.mark.parametrize("path", ["/runsync", "/openai/v1/x"])
@TIMED
async def test_who_waits_long_does_not_hold_its_input_meanwhile(yard: Yard, path: str) -> None:
    call = yard.client.post(path, BODY if path == "/runsync" else b'{"much": %b}' % SENT)
    await asyncio.sleep(5)
    (connection,) = [c for c in yard.server_state.connections if c.cycle is not None]  # type: ignore[union-attr]

    assert b"" == connection.cycle.body  # type: ignore[union-attr]
    call.leave()


@TIMED
async def test_a_client_that_leaves_before_its_input_is_kept_has_submitted_it_all_the_same(yard: Yard) -> None:
    yard.payloads.moves.clear()
    call = yard.client.post("/runsync", BODY)
    await asyncio.sleep(1)
    call.leave()
    yard.payloads.moves.set()
    await asyncio.sleep(1)

    assert 1 == (await yard.store.counts(ENDPOINT)).in_queue
    assert 1 == len(await held(yard))


@pytest.mark.parametrize("path", ["/run", "/runsync", "/openai/v1/x"])
@TIMED
async def test_an_endpoint_that_is_deleted_before_an_input_is_kept_gets_no_job(yard: Yard, path: str) -> None:
    yard.payloads.moves.clear()
    call = yard.client.post(path, BODY)
    await asyncio.sleep(1)
    yard.book.delete(ENDPOINT)
    await yard.jobs.remove_endpoint(ENDPOINT)
    yard.payloads.moves.set()
    reply = await call

    assert 404 == reply.status
    assert ENDPOINT in reply.body.decode()
    assert 0 == (await yard.store.counts(ENDPOINT)).in_queue
    assert {} == yard.payloads.held


@TIMED
async def test_a_platform_that_stops_before_an_input_is_kept_takes_no_job(yard: Yard) -> None:
    yard.payloads.moves.clear()
    call = yard.client.post("/run", BODY)
    await asyncio.sleep(1)
    yard.jobs.closing = True
    yard.payloads.moves.set()

    assert 503 == (await call).status
    assert 0 == (await yard.store.counts(ENDPOINT)).in_queue
    assert {} == yard.payloads.held


# Names


@ON_DISK_TOO
async def test_a_request_that_is_sent_again_finds_its_job_and_leaves_no_second_input(yard: Yard) -> None:
    first = await submitted(yard, **{"Idempotency-Key": "k"})
    assert first == await submitted(yard, **{"Idempotency-Key": "k"})
    other = await yard.client.post("/run", BODY.replace(b"1.0", b"1.5"), headers={"Idempotency-Key": "k"})

    assert 409 == other.status
    assert 1 == len(yard.payloads.held)


@TIMED
async def test_requests_of_one_name_that_come_together_become_one_job_and_one_input(yard: Yard) -> None:
    yard.payloads.moves.clear()
    calls = [yard.client.post("/run", BODY, headers={"Idempotency-Key": "k"}) for _ in range(5)]
    await asyncio.sleep(1)
    yard.payloads.moves.set()
    replies = [await call for call in calls]

    assert {200} == {reply.status for reply in replies}
    assert 1 == len({reply.json()["id"] for reply in replies})
    assert 1 == len(yard.payloads.held)


@pytest.mark.parametrize("buried", [False, True])
@pytest.mark.parametrize("path", ["/run", "/runsync"])
@TIMED
async def test_a_request_whose_twin_has_come_and_gone_before_its_input_is_kept_does_not_run_again(
    yard: Yard, worker: Worker, path: str, *, buried: bool
) -> None:
    key = {"Idempotency-Key": "k"}
    yard.payloads.moves.clear()
    late = yard.client.post(path, BODY, headers=key)
    await asyncio.sleep(1)
    moves, yard.payloads.moves = yard.payloads.moves, asyncio.Event()
    yard.payloads.moves.set()
    job_id = await submitted(yard, **key)
    await worker.take()
    await worker.done(job_id, {"output": 1})
    await yard.client.get(f"/status/{job_id}?ttl=1000")
    await asyncio.sleep(5)
    if buried:
        assert 0 < await yard.store.archive.forget_oldest(yard.clock.now(), 1 << 30)
    moves.set()
    reply = await late

    assert 404 == reply.status
    assert f"job {job_id} has expired: it ended COMPLETED" in reply.json()["error"]
    assert 0 == (await yard.store.counts(ENDPOINT)).in_queue
    assert ([] if buried else [job_id]) == await held(yard)


@ON_DISK_TOO
async def test_it_is_the_same_request_wherever_its_input_lies(yard: Yard, store: JobStore) -> None:
    first = await submitted(yard, **{"Idempotency-Key": "k"})
    later = Yard(store=store, settings=Settings(input_inline_bytes=10 * MIB))
    await later.open()

    assert first == await submitted(later, **{"Idempotency-Key": "k"})
    assert {} == later.payloads.held


# What cannot be


@pytest.mark.parametrize("path", ["/run", "/runsync"])
@pytest.mark.parametrize("why", ["full", "away"])
async def test_where_an_input_cannot_be_kept_its_job_is_refused(yard: Yard, path: str, why: str) -> None:
    if why == "full":
        yard.payloads.room = 10
    else:
        yard.payloads.away = True
    reply = await yard.client.post(path, BODY)
    assert (503, "1") == (reply.status, reply.headers["retry-after"])
    assert 0 == yard.payloads.drafts
    assert 200 == (await yard.client.post("/run", SMALL)).status
    yard.payloads.room, yard.payloads.away = 1 << 40, False

    await submitted(yard)


@pytest.mark.parametrize("path", ["/run", "/runsync", "/openai/v1/x"])
async def test_where_a_job_cannot_be_kept_its_input_is_not(path: str) -> None:
    store = FullJobs()
    yard = Yard(store=store, settings=SETTINGS)
    await yard.open()
    store.full = True
    assert 503 == (await yard.client.post(path, BODY)).status

    assert {} == yard.payloads.held
    store.full = False
    await yard.close()


@TIMED
async def test_what_an_input_leaves_when_it_is_lost(yard: Yard, worker: Worker) -> None:
    job_id = await submitted(yard)
    kept, data = yard.payloads.held.popitem()[1]
    poll = worker.take()
    await asyncio.sleep(1)
    job = await detail(yard, job_id)
    assert ("FAILED", True, False) == (job["status"], kept.ref in job["error"], "input" in job)
    yard.payloads.held[kept.ref] = kept, data
    await yard.client.post(f"/retry/{job_id}")

    assert INPUT == (await poll).json()["input"]


@TIMED
async def test_while_inputs_cannot_be_read_their_jobs_wait_and_workers_poll_no_faster(
    yard: Yard, worker: Worker
) -> None:
    job_id = await submitted(yard)
    yard.payloads.away = True
    began = yard.clock.now()
    assert 204 == (await worker.take()).status
    assert SETTINGS.poll_hold_s == pytest.approx(yard.clock.now() - began, abs=0.1)
    assert 503 == (await yard.client.get(f"/requests/{job_id}")).status
    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]
    yard.payloads.away = False

    assert INPUT == (await worker.take()).json()["input"]
    assert [] == (await detail(yard, job_id)).get("attempts", [])


async def test_the_room_of_the_store_is_not_taken_by_large_inputs() -> None:
    yard = Yard(settings=Settings(input_inline_bytes=MIB // 4, store_bytes_max=MIB // 2))
    await yard.open()
    for _ in range(20):
        await submitted(yard)

    assert 200 == (await yard.client.post("/run", b'{"input": "%b"}' % (b"x" * (MIB // 8)))).status
    await yard.close()
