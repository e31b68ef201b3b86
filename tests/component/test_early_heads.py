"""A `/runsync` that waits tells its job's id ahead of its answer, byte for byte over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.system import LoopClock
from runyard.domain.job import JobId, JobState
from runyard.edge import jobs as edge_jobs
from runyard.edge.listener import listening
from tests.builders import ENDPOINT, WORKER
from tests.component.test_hand_over import Pair
from tests.component.wire import GET, MIB, POST, Ports, Wire, echo, open_ports
from tests.edge_kit import Yard

BODY = '{"input":1}'


async def head_of(wire: Wire) -> tuple[str, dict[str, str]]:
    """The status line and the headers, as soon as they are there."""
    first, *lines = (await wire.reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines)


async def body_of(wire: Wire) -> Any:
    return json.loads(await wire._chunks())  # pyright: ignore[reportPrivateUsage]


async def ended(ports: Ports, output: bytes = b"7") -> None:
    """The only job, taken and done."""
    worker = ports.platform.roster.get(WORKER)
    assert worker is not None
    [job] = await ports.platform.stores[0].take(ENDPOINT, WORKER, 1, LoopClock().now())
    await ports.platform.dispatch.report(worker, job.id, lambda job, now: job.complete(output, now))


@asynccontextmanager
async def waiting(*headers: str, path: str = "/runsync") -> AsyncIterator[tuple[Ports, Wire]]:
    """A client that has sent a synchronous request."""
    async with open_ports() as ports:
        wire = await ports.connect()
        wire.send(ports.request(POST, path, BODY, *headers))
        yield ports, wire


@pytest.mark.looptime
async def test_the_head_comes_after_a_second_with_the_id_and_the_body_at_the_end(looptime: object) -> None:
    async with waiting() as (ports, wire):
        first, headers = await head_of(wire)
        assert looptime == 1
        job_id = headers["x-runyard-job-id"]
        status = (await (await ports.connect()).ask(ports.request(GET, f"/status/{job_id}"))).json()["status"]
        await asyncio.sleep(4)
        await ended(ports)
        body = await body_of(wire)

        assert ("HTTP/1.1 200 OK", "application/json", "chunked") == (
            first,
            headers["content-type"],
            headers["transfer-encoding"],
        )
        assert "content-length" not in headers
        assert "IN_QUEUE" == status
        assert (job_id, "COMPLETED", 7, looptime) == (body["id"], body["status"], body["output"], 5)
        # The connection goes on.
        assert 200 == (await wire.ask(ports.request(GET, "/health"))).status


@pytest.mark.looptime
@pytest.mark.parametrize("more", ["", "?wait=2500"])
async def test_at_the_end_of_the_wait_comes_the_job_as_it_stands(looptime: object, more: str) -> None:
    async with waiting(path=f"/runsync{more}") as (_, wire):
        _, headers = await head_of(wire)
        body = await body_of(wire)

        assert (headers["x-runyard-job-id"], "IN_QUEUE") == (body["id"], body["status"])
        assert looptime == (2.5 if more else 90)


@pytest.mark.looptime
async def test_a_quick_answer_comes_whole() -> None:
    async with waiting() as (ports, wire):
        await asyncio.sleep(0.9)
        await ended(ports)
        _, headers = await head_of(wire)

        assert "content-length" in headers
        assert not {"transfer-encoding", "x-runyard-job-id"} & headers.keys()


@pytest.mark.looptime
async def test_a_wait_of_a_second_has_no_early_head() -> None:
    async with waiting(path="/runsync?wait=1000") as (_, wire):
        assert "content-length" in (await head_of(wire))[1]


@pytest.mark.looptime
async def test_a_repeated_request_is_told_the_id_too() -> None:
    async with waiting("Idempotency-Key: k") as (ports, wire):
        again = await ports.connect()
        again.send(ports.request(POST, "/runsync", BODY, "Idempotency-Key: k"))
        ids = {(await head_of(one))[1]["x-runyard-job-id"] for one in (wire, again)}
        await ended(ports)

        assert 1 == len(ids)
        assert [7, 7] == [(await body_of(one))["output"] for one in (wire, again)]


@pytest.mark.looptime
async def test_a_large_result_comes_whole_and_what_is_pipelined_behind_it_too() -> None:
    async with waiting() as (ports, wire):
        wire.send(ports.request(GET, "/health"))
        await head_of(wire)
        await ended(ports, b'"%b"' % (b"x" * (3 * MIB)))

        assert 3 * MIB == len((await body_of(wire))["output"])
        assert {"jobs", "workers"} == (await wire.reply()).json().keys()


@pytest.mark.looptime
async def test_who_does_not_speak_http_1_1_gets_the_whole_answer_at_once() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        wire.send(ports.request(POST, "/runsync?wait=3000", BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
        _, headers = await head_of(wire)
        body = json.loads(await wire.rest())

        assert ("close", "IN_QUEUE") == (headers["connection"], body["status"])
        assert int(headers["content-length"]) > 0
        assert "transfer-encoding" not in headers


@pytest.mark.looptime
async def test_who_wants_the_connection_closed_has_it_closed_behind_the_body() -> None:
    async with waiting("Connection: close") as (ports, wire):
        _, headers = await head_of(wire)
        await ended(ports)

        assert "close" == headers["connection"]
        assert 7 == (await body_of(wire))["output"]
        assert await wire.is_closed()


@pytest.mark.looptime
async def test_a_client_that_leaves_behind_the_head_leaves_nothing_behind() -> None:
    async with waiting() as (ports, wire):
        await head_of(wire)
        wire.leave()
        await asyncio.sleep(1)
        assert {} == ports.platform.job_routes._begun  # pyright: ignore[reportPrivateUsage]
        await ended(ports)

        assert await ports.lives()


@pytest.mark.looptime
@pytest.mark.parametrize("how", ["expires", "deleted"])
async def test_a_job_that_goes_while_its_client_waits_is_told_of_in_the_body(how: str) -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        body = '{"input":1,"policy":{"ttl":10000}}'
        wire.send(ports.request(POST, "/runsync", body))
        _, headers = await head_of(wire)
        if how == "deleted":
            await ports.platform.jobs.remove_endpoint(ENDPOINT)
        told = await body_of(wire)

        assert headers["x-runyard-job-id"] == told["id"]
        if how == "deleted":
            assert "CANCELLED" == told["status"]
        else:
            assert ("IN_QUEUE", True) == (told["status"], "has expired" in told["error"])
        assert 200 == (await wire.ask(ports.request(GET, "/health"))).status


@pytest.mark.looptime
async def test_a_cancelled_job_is_told_of_in_the_body() -> None:
    async with waiting() as (ports, wire):
        _, headers = await head_of(wire)
        await ports.platform.jobs.cancel(ENDPOINT, JobId(headers["x-runyard-job-id"]))

        assert "CANCELLED" == (await body_of(wire))["status"]


@pytest.mark.looptime
async def test_a_platform_that_stops_with_its_jobs_says_so_in_the_body() -> None:
    async with open_ports() as ports:
        extra = socket.create_server(("127.0.0.1", 0))
        async with listening(extra, ports.platform.job_routes.paths, echo):
            wire = Wire(*await asyncio.open_connection(sock=socket.create_connection(extra.getsockname())))
            wire.send(ports.request(POST, "/runsync", BODY))
            _, headers = await head_of(wire)
            ports.platform.jobs.closing = True
        told = await body_of(wire)

        assert (headers["x-runyard-job-id"], "IN_QUEUE") == (told["id"], told["status"])
        assert "the platform is stopping" in told["error"]
        assert await wire.is_closed()
        wire.leave()


async def test_who_waits_behind_an_early_head_gets_the_job_as_it_stands_when_the_port_changes_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge_jobs, "EARLY_HEAD_S", 0.0)
    pair = Pair()
    await pair.open()
    async with pair.wire(0) as wire:
        wire.send(pair.post(f"/v2/{ENDPOINT}/runsync", b'{"input": 1}'))
        wire.received += await wire.reader.readuntil(b"\r\n\r\n")
        await pair.hand_over()
        reply = await wire.reply()
        wire.send(pair.get(f"/v2/{ENDPOINT}/health"))
        after = await wire.reply()

    assert reply is not None
    assert (200, "chunked") == (reply.status, reply.headers["transfer-encoding"])
    assert {"id": reply.headers["x-runyard-job-id"], "status": "IN_QUEUE"} == reply.json()
    assert (1, 200) == (len(pair.passed), after and after.status)
    await pair.close()


# An orderly end, with jobs that outlive it


def stop(yard: Yard) -> None:
    """As the end of the server does."""
    yard.jobs.closing = True
    for connection in list(yard.server_state.connections):
        connection.shutdown()


@pytest.mark.parametrize("taken", [False, True])
async def test_a_synchronous_call_is_answered_as_its_job_stands_when_that_outlives_the_server(
    tmp_path: Path, taken: bool
) -> None:
    yard = Yard(store=EmbeddedJobs(tmp_path / "jobs.db"))
    await yard.open()
    call = yard.client.post("/runsync", {"input": 1}, headers={"Idempotency-Key": "k"})
    job_id = (await yard.client.post("/run", {"input": 1}, headers={"Idempotency-Key": "k"})).json()["id"]
    if taken:
        assert job_id == (await yard.worker().take()).json()["id"]
    stop(yard)
    reply = await call

    state = JobState.IN_PROGRESS if taken else JobState.IN_QUEUE
    assert (200, job_id, state) == (reply.status, reply.json()["id"], reply.json()["status"])
    assert "error" not in reply.json()
    assert "close" == reply.headers["connection"]
    await yard.close()


async def test_a_job_back_in_the_queue_of_a_server_that_stops_is_told_of_at_once(tmp_path: Path) -> None:
    yard = Yard(store=EmbeddedJobs(tmp_path / "jobs.db"))
    await yard.open()
    call = yard.client.post("/runsync", {"input": 1})
    worker = yard.worker()
    job_id = (await worker.take()).json()["id"]
    yard.jobs.closing = True
    await yard.dispatch.worker_gone(worker.live, "it was stopped")

    assert (job_id, "IN_QUEUE") == ((reply := (await call).json())["id"], reply["status"])
    await yard.close()


async def test_jobs_that_end_with_the_server_are_to_be_sent_again() -> None:
    yard = Yard()
    await yard.open()
    call = yard.client.post("/runsync", {"input": 1})
    await yard.worker().take()
    stop(yard)
    reply = await call

    assert 503 == reply.status
    assert "send it again" in reply.json()["error"]
    await yard.close()


async def test_no_head_goes_out_before_its_job_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_jobs, "EARLY_HEAD_S", 0.0)
    store = EmbeddedJobs(tmp_path / "jobs.db")
    yard = Yard(store=store)
    await yard.open()
    database = store._journal._database  # pyright: ignore[reportPrivateUsage]
    database.execute("create trigger no_room before insert on journal begin select raise(fail, 'disk is full'); end")
    reply = await yard.client.post("/runsync", {"input": 1})

    assert (503, False) == (reply.status, "x-runyard-job-id" in reply.headers)
    database.execute("drop trigger no_room")
    await yard.close()
