"""One request, however often it comes: named by a key or by an id, it is one job."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.domain.idempotency import job_id_of
from runyard.domain.job import EndpointId, JobId
from runyard.ports.stores import JobQuery
from runyard.services.jobs import Request
from tests.builders import ENDPOINT, an_endpoint
from tests.edge_kit import Call, Reply, Yard
from tests.slow_store import SlowJobs

NAMED = "order-17"
KEYED = job_id_of(ENDPOINT, NAMED.encode())


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


def ask(yard: Yard, path: str = "/run", *, key: str = NAMED, input: Any = 1, client: Any = None, **fields: Any) -> Call:
    """Submit under this key."""
    return (client or yard.client).post(path, {"input": input, **fields}, headers={"Idempotency-Key": key})


async def jobs_of(yard: Yard, endpoint_id: str = ENDPOINT) -> list[str]:
    return [job.id for job in (await yard.store.list(EndpointId(endpoint_id), JobQuery())).jobs]


def told(reply: Reply) -> tuple[int, Any]:
    return reply.status, reply.json()


# The same request


@pytest.mark.parametrize("first", ["/run", "/runsync?wait=1000"])
@pytest.mark.looptime
async def test_a_key_names_one_job_for_both_ways_to_submit(yard: Yard, first: str) -> None:
    await ask(yard, first)
    replies = [await ask(yard), await ask(yard, "/runsync?wait=1000"), await ask(yard)]

    assert [(200, {"id": KEYED, "status": "IN_QUEUE"})] * 3 == [told(reply) for reply in replies]
    assert [KEYED] == await jobs_of(yard)


async def test_a_repetition_is_told_how_the_job_stands(yard: Yard) -> None:
    worker = yard.worker()
    await ask(yard)
    assert KEYED == (await worker.take()).json()["id"]
    assert (200, {"id": KEYED, "status": "IN_PROGRESS"}) == told(await ask(yard))
    await worker.done(KEYED, {"output": {"n": 1}})

    assert (200, {"id": KEYED, "status": "COMPLETED"}) == told(await ask(yard))
    waited = (await ask(yard, "/runsync")).json()
    assert ("COMPLETED", {"n": 1}) == (waited["status"], waited["output"])
    assert [KEYED] == await jobs_of(yard)


@pytest.mark.looptime
async def test_a_synchronous_repetition_waits_for_the_end_of_the_job(yard: Yard, looptime: object) -> None:
    worker = yard.worker()
    await ask(yard)
    await worker.take()
    waiting = [ask(yard, "/runsync") for _ in range(3)]
    await asyncio.sleep(5)
    assert not any(call.answered for call in waiting)
    await worker.done(KEYED, {"output": 7})

    assert [("COMPLETED", 7)] * 3 == [
        (reply.json()["status"], reply.json()["output"]) for reply in [await call for call in waiting]
    ]
    assert looptime == 5


@pytest.mark.looptime
async def test_a_synchronous_call_with_a_key_is_answered_at_the_end_of_its_job(yard: Yard, looptime: object) -> None:
    """Also when that end comes while it is being submitted."""
    worker = yard.worker()
    taking = worker.take()
    await asyncio.sleep(1)
    waiting = ask(yard, "/runsync")
    await worker.done((await taking).json()["id"], {"output": 7})

    assert 7 == (await waiting).json()["output"]
    assert looptime == 1


@pytest.mark.looptime
async def test_the_result_of_a_named_job_is_kept_as_long_as_that_of_a_run(yard: Yard) -> None:
    worker = yard.worker()
    waiting = ask(yard, "/runsync")
    await worker.take()
    await worker.done(KEYED, {"output": 7})
    await waiting
    await asyncio.sleep(29 * 60)

    assert "COMPLETED" == (await ask(yard)).json()["status"]


async def test_a_key_is_its_endpoints_and_another_key_another_job(yard: Yard) -> None:
    other = yard.client_of("endpoint-2")
    ids = [(await call).json()["id"] for call in (ask(yard), ask(yard, client=other), ask(yard, key="order-18"))]

    assert 3 == len(set(ids))


async def test_a_cancelled_and_a_retried_job_keep_their_key(yard: Yard) -> None:
    worker = yard.worker()
    await ask(yard)
    await worker.take()
    await worker.done(KEYED, {"error": "boom"})
    assert "FAILED" == (await ask(yard)).json()["status"]
    await yard.client.post(f"/retry/{KEYED}")
    assert "IN_QUEUE" == (await ask(yard)).json()["status"]
    await yard.client.post("/purge-queue")

    assert (200, {"id": KEYED, "status": "CANCELLED"}) == told(await ask(yard))
    assert [KEYED] == await jobs_of(yard)


async def test_a_deleted_endpoint_forgets_its_keys(yard: Yard) -> None:
    await ask(yard)
    await yard.jobs.remove_endpoint(ENDPOINT)
    assert (200, {"id": KEYED, "status": "IN_QUEUE"}) == told(await ask(yard, input=2))


@pytest.mark.looptime
async def test_a_job_that_has_expired_does_not_run_again_while_it_is_being_deleted(yard: Yard) -> None:
    await ask(yard, policy={"ttl": 10_000})
    await asyncio.sleep(9)
    assert yard._sweeping is not None  # pyright: ignore[reportPrivateUsage]
    yard._sweeping.cancel()  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(1)
    reply = await ask(yard, policy={"ttl": 10_000})

    assert 404 == reply.status
    assert "expired" in reply.json()["error"]


@pytest.mark.looptime
async def test_a_job_that_is_gone_does_not_run_again_until_its_name_is_forgotten(yard: Yard) -> None:
    worker = yard.worker()
    await ask(yard)
    await worker.take()
    await worker.done(KEYED, {"output": 1})
    await asyncio.sleep(30 * 60 + 1)

    kept = await ask(yard)
    assert (404, f"/v2/{ENDPOINT}/requests/{KEYED}") == (kept.status, kept.json()["runyard"]["path"])
    assert 409 == (await ask(yard, input=2)).status
    now = yard.clock.now()
    assert 0 < await yard.store.archive.forget_oldest(now, 1 << 30)
    gone = await ask(yard)
    assert (404, "COMPLETED", None) == (
        gone.status,
        gone.json()["runyard"]["status"],
        gone.json()["runyard"].get("path"),
    )
    assert 409 == (await ask(yard, input=2)).status
    assert [] == await jobs_of(yard)
    assert 1 == await yard.store.archive.bury(now, now)
    assert (200, {"id": KEYED, "status": "IN_QUEUE"}) == told(await ask(yard, input=2))


async def test_a_platform_that_stops_still_tells_of_the_jobs_it_has(yard: Yard) -> None:
    await ask(yard)
    yard.jobs.closing = True

    assert [200, 503] == [(await ask(yard)).status, (await ask(yard, key="new")).status]


# Another request


@pytest.mark.parametrize(
    "fields",
    [
        {"input": 2},
        {"input": {"n": 1}},
        {"webhook": "http://elsewhere.test"},
        {"policy": {"ttl": 10_000}},
        {"policy": {"lowPriority": True}},
        {"s3Config": {"bucketName": "b"}},
    ],
)
@pytest.mark.parametrize("path", ["/run", "/runsync"])
async def test_another_body_under_the_key_is_a_conflict(yard: Yard, path: str, fields: dict[str, Any]) -> None:
    await ask(yard)
    reply = await ask(yard, path, **fields)

    assert 409 == reply.status
    assert KEYED in reply.json()["error"]
    assert "another body" in reply.json()["error"]
    assert [KEYED] == await jobs_of(yard)


async def test_a_synchronous_call_with_another_body_never_gets_the_other_ones_result(yard: Yard) -> None:
    """Though the job ends at the very moment."""
    worker = yard.worker()
    await ask(yard)
    await worker.take()
    waiting = ask(yard, "/runsync", input=2)
    await worker.done(KEYED, {"output": "not yours"})

    assert 409 == (await waiting).status


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "a\tb", "é"])
@pytest.mark.parametrize("path", ["/run", "/runsync"])
async def test_what_is_no_key_is_refused(yard: Yard, path: str, key: str) -> None:
    reply = await ask(yard, path, key=key)

    assert 400 == reply.status
    assert "1 to 255 visible ASCII" in reply.json()["error"]
    assert [] == await jobs_of(yard)


async def test_two_keys_are_none(yard: Yard) -> None:
    headers = {"Idempotency-Key": "a", "idempotency-key": "a"}
    assert 400 == (await yard.client.post("/run", {"input": 1}, headers=headers)).status


async def test_other_operations_take_no_notice_of_a_key(yard: Yard) -> None:
    assert 200 == (await yard.client.get("/health", headers={"Idempotency-Key": "not one"})).status


# One connection


async def test_keys_that_change_on_a_connection_are_each_seen(yard: Yard) -> None:
    """Heads that recur are not looked at again; this one must be."""
    line = yard.client.line()
    keys = ["a", "b", "b", "b", "c", None, None, None, "b"]
    ids: list[str] = []
    for key in keys:
        named = "" if key is None else f"Idempotency-Key: {key}\r\n"
        head = (
            f"POST /v2/{ENDPOINT}/run HTTP/1.1\r\nHost: a\r\nAuthorization: {yard.key}\r\n{named}Content-Length: 11\r\n"
        )
        line.send(f'{head}\r\n{{"input":1}}'.encode())
        ids.append((await line.reply()).json()["id"])
    line.close()

    expected = [job_id_of(ENDPOINT, key.encode()) for key in keys if key is not None]
    assert expected == [id for id, key in zip(ids, keys, strict=True) if key is not None]
    assert 6 == len(set(ids)), "three named, three not"


# At the same time


@pytest.mark.parametrize("kind", ["memory", "slow", "embedded"])
async def test_of_many_at_once_one_is_the_first_and_all_get_its_job(kind: str, tmp_path: Path) -> None:
    stores: dict[str, Any] = {"slow": lambda: SlowJobs(random.Random(1), pause_s_max=0)}
    stores["embedded"] = lambda: EmbeddedJobs(tmp_path / "jobs.db")
    yard = Yard(store=stores.get(kind, lambda: None)())
    await yard.open()
    request = Request(input=b"1")
    found = await asyncio.gather(*(yard.jobs.submit_once(an_endpoint(), request, JobId("j")) for _ in range(20)))

    assert [False] + [True] * 19 == sorted(known for _, known in found)
    assert {"j"} == {job.id for job, _ in found}
    assert ["j"] == await jobs_of(yard)
    await yard.close()


async def test_one_that_could_not_be_kept_never_was_and_the_next_is_the_first(tmp_path: Path) -> None:
    store = EmbeddedJobs(tmp_path / "jobs.db")
    yard = Yard(store=store)
    await yard.open()
    database = store._journal._database  # pyright: ignore[reportPrivateUsage]
    database.execute("create trigger no_room before insert on journal begin select raise(fail, 'disk is full'); end")
    refused = await asyncio.gather(ask(yard), ask(yard))
    database.execute("drop trigger no_room")

    assert [503, 503] == [reply.status for reply in refused]
    assert (200, {"id": KEYED, "status": "IN_QUEUE"}) == told(await ask(yard))
    await yard.close()


# Ids that clients choose


async def test_a_client_may_choose_the_id(yard: Yard) -> None:
    body = {"input": 1, "runyard": {"id": NAMED}}
    replies = [await yard.client.post("/run", body) for _ in range(2)]
    waiting = yard.client.post("/runsync", body)
    worker = yard.worker()
    taken = (await worker.take()).json()
    await worker.done(NAMED, {"output": 2})

    assert [(200, {"id": NAMED, "status": "IN_QUEUE"})] * 2 == [told(reply) for reply in replies]
    assert {"id": NAMED, "input": 1} == taken
    waited = (await waiting).json()
    assert (NAMED, 2) == (waited["id"], waited["output"])
    assert "COMPLETED" == (await yard.client.status(NAMED))["status"]
    assert 409 == (await yard.client.post("/run", body | {"input": 2})).status


async def test_an_id_at_the_top_of_the_body_means_nothing(yard: Yard) -> None:
    """Stored test inputs of the hosted service's users have one."""
    ids = [(await yard.client.post("/run", {"id": "test", "input": n})).json()["id"] for n in range(2)]

    assert 2 == len({*ids, "test"}) - 1


async def test_an_id_is_the_platforms(yard: Yard) -> None:
    body = {"input": 1, "runyard": {"id": NAMED}}
    await yard.client.post("/run", body)
    reply = await yard.client_of("endpoint-2").post("/run", body)

    assert 409 == reply.status
    assert "another endpoint" in reply.json()["error"]


async def test_an_id_that_the_platform_gave_names_no_request(yard: Yard) -> None:
    job_id = await yard.client.run(1)
    assert 409 == (await yard.client.post("/run", {"input": 1, "runyard": {"id": job_id}})).status


@pytest.mark.parametrize("added", [{"id": ".."}, {"id": ""}, {"id": 1}, {"ID": "a"}, {"id": "a", "x": 1}, "a"])
async def test_an_addition_that_is_none_is_refused(yard: Yard, added: Any) -> None:
    assert 400 == (await yard.client.post("/run", {"input": 1, "runyard": added})).status
    assert [] == await jobs_of(yard)


async def test_a_request_has_one_name(yard: Yard) -> None:
    reply = await ask(yard, runyard={"id": "a"})

    assert 400 == reply.status
    assert "not both" in reply.json()["error"]


async def test_an_empty_addition_names_nothing(yard: Yard) -> None:
    ids = {(await yard.client.post("/run", {"input": 1, "runyard": {}})).json()["id"] for _ in range(2)}
    assert 2 == len(ids)
