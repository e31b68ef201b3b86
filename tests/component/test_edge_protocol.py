"""Connections over real sockets: kept, pipelined, left by their clients, or kept waiting by them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.builders import ENDPOINT, SECRET, WORKER
from tests.component.edge_site import BODY, HEALTH, HOST, RUN, RUNSYNC, Site, a_site, told, unharmed, until
from tests.edge_kit import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Site]:
    async with a_site() as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared: Site, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    async with unharmed(shared, caplog):
        yield shared


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_connection_is_kept_unless_the_client_wants_it_closed(site: Site, version: bytes, more: bytes) -> None:
    async with site.wire() as wire:
        wire.send(site.get(version=version, more=more))
        assert 200 == (await wire.reply()).status
        wire.send(site.get())
        again = await wire.reply()

    assert (version == b"1.1" and not more) == (again is not None)


async def test_http_1_0_needs_no_host(site: Site) -> None:
    async with site.wire() as wire:
        wire.send(b"GET %b HTTP/1.0\r\n%b\r\n" % (HEALTH, site.key))

        assert 200 == (await wire.reply()).status


async def test_an_answer_to_head_has_no_body(site: Site) -> None:
    async with site.wire() as wire:
        wire.send(b"HEAD %b HTTP/1.1\r\n%b%b\r\n" % (HEALTH, HOST, site.key))
        refusal = await wire.reply(bodiless=True)

        assert (405, "GET") == (refusal.status, refusal.headers["allow"])
        assert b"" == await wire.rest()


@pytest.mark.parametrize("path", [RUN, b"/elsewhere"])
async def test_a_client_that_asks_first_is_told_to_go_on(site: Site, path: bytes) -> None:
    async with site.wire() as wire:
        wire.send(site.post(path, more=b"Expect: 100-continue\r\n").removesuffix(BODY))
        assert 100 == (await wire.reply()).status
        wire.send(BODY)
        assert 200 == (await wire.reply()).status


async def test_pipelined_requests_are_answered_in_their_order(site: Site) -> None:
    async with site.wire() as wire:
        wire.send(b"".join(site.get(b"/%d" % n) + site.get(HEALTH + b"?%d" % n) + site.post() for n in range(50)))
        for n in range(50):
            assert f"/{n}" == (await wire.reply()).json()[0]
            assert "jobs" in (await wire.reply()).json()
            assert "IN_QUEUE" == (await wire.reply()).json()["status"]


async def test_a_result_counts_though_what_was_asked_before_it_waits() -> None:
    plane = b"/v2/%b/%%b/%b" % (ENDPOINT.encode(), WORKER.encode())
    head = b" HTTP/1.1\r\n%bAuthorization: %b\r\n" % (HOST, SECRET.encode())
    take = b"GET " + plane % b"job-take" + b"?job_in_progress=1" + head + b"\r\n"
    done = b"POST " + plane % b"job-done" + b"/%b" + head + b'Content-Length: 12\r\n\r\n{"output":1}'
    async with (
        a_site() as site,
        site.wire() as client,
        site.wire() as other,
        site.wire(worker=True) as worker,
    ):
        client.send(site.post(RUNSYNC))
        worker.send(take)
        job_id = (await worker.reply()).json()["id"]
        worker.send(take + done % job_id.encode() + done % b"of-nobody")

        assert "COMPLETED" == (await client.reply()).json()["status"]
        other.send(site.post())
        accepted = (await other.reply()).json()["id"]
        assert [accepted, None, None] == [(await worker.reply()).json().get("id") for _ in range(3)]


@pytest.mark.parametrize("first", [HEALTH, b"/elsewhere"])
async def test_a_long_pipeline_is_no_deep_stack(site: Site, first: bytes) -> None:
    async with site.wire() as wire:
        wire.send(site.get(first) + site.get() * 1000)

        assert [200] * 1001 == [(await wire.reply()).status for _ in range(1001)]


async def test_what_is_wrong_in_a_pipeline_is_no_answer_to_what_came_before(site: Site) -> None:
    for between in (b"", site.get()):
        async with site.wire() as wire:
            wire.send(site.post(RUNSYNC) + between + b"GET /x HTTP/1.1\r\n\r\n")
            assert b"" == await wire.rest()
    async with site.wire() as wire:
        wire.send(site.get(b"/endless"))
        assert await wire.reader.readuntil(b"begun")
        wire.send(b"nonsense\r\n\r\n")
        assert b"" == await wire.rest()


def half_close(wire: Wire) -> None:
    wire.writer.write_eof()


def abort(wire: Wire) -> None:
    wire.writer.transport.abort()


@pytest.mark.parametrize("leave", [half_close, abort])
async def test_nothing_is_left_of_a_client_that_leaves_while_it_waits(
    site: Site, leave: Callable[[Wire], None]
) -> None:
    async with site.wire() as wire:
        wire.send(site.post(RUNSYNC))
        await until(lambda: site.waits() == 1)
        leave(wire)

        await until(lambda: site.waits() == 0)


@pytest.mark.parametrize("leave", [half_close, abort])
@pytest.mark.parametrize("behind", [HEALTH, b"/elsewhere"])
async def test_a_client_with_a_pipeline_is_missed_when_it_is_answered(
    site: Site, leave: Callable[[Wire], None], behind: bytes
) -> None:
    """Until then nothing is read from it, not even that it has left."""
    async with site.wire() as wire:
        wire.send(site.post(RUNSYNC) + site.get(behind) * 3)
        await until(lambda: site.waits() == 1)
        leave(wire)
        await site.yard.jobs.purge(ENDPOINT)

        await until(lambda: site.waits() == 0)


async def test_a_streamed_answer_ends_when_its_client_leaves(site: Site) -> None:
    async with site.wire() as wire:
        wire.send(site.get(b"/endless"))
        await wire.reader.readuntil(b"begun")
        connection = await site.last()
        assert connection.tasks
        abort(wire)

        await until(lambda: not connection.tasks)


@pytest.mark.parametrize(
    ("sent", "patience_s", "status"),
    [
        (b"", 75, None),
        (b"GET", 15, 408),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nA: b", 15, 408),
        (b"POST %b HTTP/1.1\r\n%b%bContent-Length: 9\r\n\r\n{", 20, 408),
        (b"POST %b HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n", 20, 408),
        (b"POST %b-not HTTP/1.1\r\n%b%bContent-Length: 9\r\n\r\n{", 20, 408),
    ],
)
@pytest.mark.parametrize("before", [False, True])
async def test_patience_with_a_silent_client_ends(
    site: Site, sent: bytes, patience_s: float, status: int | None, before: bool
) -> None:
    async with site.wire() as wire:
        if before:
            wire.send(site.get())
            assert 200 == (await wire.reply()).status
        connection = await site.last()
        wire.send(sent % (RUN, HOST, site.key) if b"%b" in sent else sent)
        reads = connection.reads
        await until(lambda: not sent or connection.reads > reads)
        now = connection.loop.time()
        for seconds in (0, patience_s - 1):
            connection.patience.look(connection, now + seconds)
        assert not connection.transport.is_closing()
        connection.patience.look(connection, now + patience_s + 1)

        reply = await wire.reply()
        assert (status is None) == (reply is None)
        if status is not None:
            told(reply, status)
        assert b"" == await wire.rest()


async def test_a_client_that_waits_for_its_job_is_not_idle(site: Site) -> None:
    async with site.wire() as wire:
        wire.send(site.post(RUNSYNC))
        await until(lambda: site.waits() == 1)
        connection = await site.last()
        for seconds in (0, 100, 290):
            connection.patience.look(connection, connection.loop.time() + seconds)

        assert not connection.transport.is_closing()


async def test_the_rest_of_a_refused_body_is_not_read_for_ever(site: Site) -> None:
    async with site.wire() as wire:
        wire.send(b"POST %b HTTP/1.1\r\n%bContent-Length: 1000000\r\n\r\n" % (RUN, HOST))
        told(await wire.reply(), 401)
        connection = await site.last()
        now = connection.loop.time()
        for seconds in (0, 9, 11):
            wire.send(b" ")
            await asyncio.sleep(0.001)
            connection.patience.look(connection, now + seconds)

        assert b"" == await wire.rest()


async def test_a_client_that_does_not_read_is_cut_off(site: Site) -> None:
    job = site.post(body=b'{"input": "%b"}' % (b"x" * 60_000))
    async with site.wire() as wire:
        wire.send(job)
        job_id = (await wire.reply()).json()["id"].encode()
        wire.writer.transport.pause_reading()
        wire.send(site.get(f"/v2/{ENDPOINT}/status/".encode() + job_id) * 500)
        connection = await site.last()
        await until(lambda: connection.transport.get_write_buffer_size() > 0)
        await asyncio.sleep(0.05)
        now = connection.loop.time()
        for seconds in (0, 59):
            connection.patience.look(connection, now + seconds)
        assert not connection.transport.is_closing()
        connection.patience.look(connection, now + 61)

        assert connection.transport.is_closing()


async def test_a_stop_answers_those_who_wait() -> None:
    poll = b"GET /v2/%b/job-stop/%b HTTP/1.1\r\n%bAuthorization: %b\r\n\r\n"
    async with AsyncExitStack() as wires:
        async with a_site() as site:
            client, pipelining = [await wires.enter_async_context(site.wire()) for _ in range(2)]
            worker = await wires.enter_async_context(site.wire(worker=True))
            client.send(site.post(RUNSYNC))
            pipelining.send(site.post(RUNSYNC) + site.get())
            worker.send(poll % (ENDPOINT.encode(), WORKER.encode(), HOST, SECRET.encode()))
            await until(lambda: site.waits() == 2)
            await until(lambda: site.yard.roster.of_endpoint(ENDPOINT)[0].stop_poll is not None)
        replies = [await wire.reply() for wire in (client, pipelining, worker)]

    assert [200, 200, 204] == [reply and reply.status for reply in replies]
    assert ["IN_QUEUE"] * 2 == [reply.json()["status"] for reply in replies[:2]]
    assert 0 == site.waits()
