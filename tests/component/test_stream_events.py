"""`/stream` as Server-Sent Events: re-attachable, for any number of readers, beside the documented form."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from runyard.domain.job import JobId
from runyard.services.dispatch import end_state
from tests.builders import ENDPOINT, WORKER
from tests.component.sse import Answer, Event, UserPort, asked

pytestmark = pytest.mark.looptime

MIB = 1 << 20
OTHER = "worker-2"


class Streams(UserPort):
    """Streams of jobs, to be read as events."""

    async def running(self, *chunks: Any, worker: str = WORKER) -> str:
        """A job that the worker has and streams to."""
        job_id = await self.yard.client.run()
        await self.yard.worker(worker).take()
        await self.post(job_id, *chunks, worker=worker)
        return job_id

    async def lose(self, job_id: str) -> None:
        """The first worker dies; the second one takes the job."""
        await self.yard.dispatch.worker_gone(self.yard.worker().live, "it died")
        await self.yard.worker(OTHER).take()

    def request(
        self, job_id: str, *headers: str, query: str = "", method: str = "GET", version: str = "1.1", accept: str = ""
    ) -> bytes:
        lines = [
            f"{method} /v2/{ENDPOINT}/stream/{job_id}{query} HTTP/{version}",
            "Host: yard.test",
            f"Authorization: Bearer {self.yard.key}",
            f"Accept: {accept or 'text/event-stream'}",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def read(self, job_id: str, *headers: str, **more: Any) -> AbstractAsyncContextManager[Answer]:
        return asked(self.port, self.request(job_id, *headers, **more))


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    async with Streams.opened() as streams:
        yield streams


def chunk(number: int, data: Any, *, worker: str = WORKER, run: int = 1) -> Event:
    return Event("", f"{run}/{worker}/{number}", data)


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


@pytest.mark.row("F007")
async def test_each_chunk_is_an_event_as_it_comes_and_the_last_event_has_the_job(streams: Streams) -> None:
    chunks: list[Any] = ["one", {"two": 2}, None, [3], 4.5, "", "ä\n😀"]
    job_id = await streams.running("one")
    async with streams.read(job_id) as answer:
        assert (200, "text/event-stream; charset=utf-8") == (answer.status, answer.headers["content-type"])
        assert ("no-cache", "no") == (answer.headers["cache-control"], answer.headers["x-accel-buffering"])
        assert chunk(1, "one") == await answer.event()
        for number, data in enumerate(chunks[1:], 2):
            await streams.post(job_id, data)
            assert chunk(number, data) == await answer.event()
        await streams.yard.worker().done(job_id, {"output": chunks})
        end = await answer.event()

        assert end is not None
        assert ("end", f"1/{WORKER}/7/end") == (end.name, end.id)
        assert {"id": job_id, "status": "COMPLETED", "workerId": WORKER} == {
            name: value for name, value in end.data.items() if not name.endswith("Time")
        }
        assert await answer.event() is None
        assert answer.whole


@pytest.mark.row("F007")
async def test_the_connection_serves_the_next_request_after_a_stream(streams: Streams) -> None:
    job_id = await streams.running("one")
    await streams.yard.worker().done(job_id, {"output": []})
    async with streams.wire() as wire:
        for _ in range(3):
            wire.send(streams.request(job_id) * 2)  # Pipelined.
            for _ in range(2):
                assert ["", "end"] == names(await (await Answer.on(wire)).rest())
        wire.send(streams.request(job_id, accept="application/json"))
        reply = await wire.reply()
        assert reply is not None
        assert [{"output": "one"}] == reply.json()["stream"]


@pytest.mark.row("F007")
@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/event-streams", "text/html, */*;q=0.8"])
async def test_who_asks_for_no_events_gets_the_documented_form(streams: Streams, accept: str) -> None:
    job_id = await streams.running("one")
    async with streams.wire() as wire:
        wire.send(streams.request(job_id, accept=accept))
        reply = await wire.reply()

    assert reply is not None
    assert {"id": job_id, "status": "IN_PROGRESS", "stream": [{"output": "one"}]} == reply.json()


@pytest.mark.parametrize("accept", ["application/json, Text/Event-Stream;q=0.5", "text/event-stream ; charset=utf-8"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_events_are_asked_for_by_any_accept_that_names_them(streams: Streams, accept: str, method: str) -> None:
    job_id = await streams.running("one")
    async with streams.read(job_id, accept=accept, method=method) as answer:
        assert chunk(1, "one") == await answer.event()


async def test_readers_take_nothing_from_each_other_nor_from_the_documented_form(streams: Streams) -> None:
    job_id = await streams.running("one", "two")
    async with streams.read(job_id) as first, streams.read(job_id) as second:
        assert await first.events(2) == await second.events(2)
        body = (await streams.yard.client.get(f"/stream/{job_id}")).json()
        assert [{"output": "one"}, {"output": "two"}] == body["stream"]
        async with streams.read(job_id) as third:
            assert [chunk(1, "one"), chunk(2, "two")] == await third.events(2)
            await streams.post(job_id, "three")
            assert [chunk(3, "three")] * 3 == [await answer.event() for answer in (first, second, third)]


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_a_reader_goes_on_behind_the_event_it_names(streams: Streams, way: str) -> None:
    job_id = await streams.running("one", "two", "three")
    id = f"1/{WORKER}/2"
    header, query = f"Last-Event-ID: {id}", f"?after={id}"
    asking = {
        "header": streams.read(job_id, header),
        "query": streams.read(job_id, query=query),
        "both": streams.read(job_id, header, query=f"?after=1/{WORKER}/0"),
    }[way]
    async with asking as answer:
        assert chunk(3, "three") == await answer.event()
        await streams.post(job_id, "four")
        assert chunk(4, "four") == await answer.event()


async def test_a_reader_comes_back_to_a_job_that_has_ended(streams: Streams) -> None:
    job_id = await streams.running("one", "two")
    await streams.yard.worker().done(job_id, {"error": "boom"})
    async with streams.read(job_id, f"Last-Event-ID: 1/{WORKER}/1") as answer:
        found, end = await answer.rest()

    assert (chunk(2, "two"), "end", "FAILED", "boom") == (found, end.name, end.data["status"], end.data["error"])


async def test_who_comes_back_behind_the_end_is_sent_away(streams: Streams) -> None:
    job_id = await streams.running("one")
    await streams.yard.worker().done(job_id, {"error": "boom"})
    async with streams.read(job_id) as answer:
        *_, end = await answer.rest()
    async with streams.read(job_id, f"Last-Event-ID: {end.id}") as answer:
        assert 204 == answer.status
    await streams.yard.client.post(f"/retry/{job_id}")
    async with streams.read(job_id, f"Last-Event-ID: {end.id}") as answer:
        restart = await answer.event()

    assert Event("restart", "2//0", {"id": job_id, "status": "IN_QUEUE"}) == restart


async def test_a_job_that_begins_anew_says_so_and_its_chunks_are_counted_anew(streams: Streams) -> None:
    job_id = await streams.running("old", "older")
    async with streams.read(job_id) as answer:
        assert [chunk(1, "old"), chunk(2, "older")] == await answer.events(2)
        await streams.lose(job_id)
        restart = await answer.event()
        assert restart is not None
        assert "restart" == restart.name
        await streams.post(job_id, "new", worker=OTHER)
        assert chunk(1, "new", worker=OTHER) == await answer.event()


async def test_who_comes_back_after_the_job_began_anew_does_not_go_on_in_the_middle(streams: Streams) -> None:
    job_id = await streams.running("old", "older")
    await streams.lose(job_id)
    await streams.post(job_id, "new", "newer", "newest", worker=OTHER)
    async with streams.read(job_id, f"Last-Event-ID: 1/{WORKER}/2") as answer:
        restart, *found = await answer.events(4)

    assert ("restart", f"1/{OTHER}/0") == (restart.name, restart.id)
    assert [chunk(n, data, worker=OTHER) for n, data in enumerate(["new", "newer", "newest"], 1)] == found


async def test_a_reader_of_a_job_that_never_streamed_gets_its_end(streams: Streams, looptime: object) -> None:
    job_id = await streams.yard.client.run()
    async with streams.read(job_id) as answer:
        await asyncio.sleep(5)
        await streams.yard.client.post(f"/cancel/{job_id}")
        assert [Event("end", "1//0/end", {"id": job_id, "status": "CANCELLED"})] == await answer.rest()
    assert looptime == 5


async def test_a_job_that_expires_meanwhile_ends_its_stream(streams: Streams) -> None:
    job_id = await streams.running("one")
    async with streams.read(job_id) as answer:
        await streams.yard.client.get(f"/status/{job_id}?ttl=1000")
        _, end = await answer.rest()

    assert ("end", {"id", "error"}) == (end.name, end.data.keys())
    assert "has expired" in end.data["error"]


async def test_a_quiet_stream_is_kept_alive_with_comments(streams: Streams, looptime: object) -> None:
    job_id = await streams.running()
    async with streams.read(job_id) as answer:
        assert "retry: 1000" == await answer.block()
        assert [": nothing new"] * 3 == [await answer.block() for _ in range(3)]
        assert looptime == 45
        await streams.post(job_id, "one")
        assert chunk(1, "one") == await answer.event()


async def test_a_stream_is_ended_after_an_hour_and_can_be_gone_on_with(streams: Streams, looptime: object) -> None:
    job_id = await streams.yard.client.run()
    async with streams.read(job_id) as answer:
        assert [] == await answer.rest()
        assert answer.whole
    assert looptime == 3600
    await streams.close()


@pytest.mark.parametrize(
    "id", ["1", "1/w", "1/w/x", "x/w/1", "1/w/1/2", "-1/w/1", "1/w/1/", "9" * 20 + "/w/1", "é/w/1"]
)
async def test_an_id_that_is_none_is_refused(streams: Streams, id: str) -> None:
    job_id = await streams.running()
    async with streams.wire() as wire:
        wire.send(streams.request(job_id, f"Last-Event-ID: {id}"))
        reply = await wire.reply()

    assert reply is not None
    assert 400 == reply.status
    assert "Last-Event-ID" in reply.json()["error"]


@pytest.mark.parametrize(("method", "status"), [("GET", 404), ("DELETE", 405), ("HEAD", 405)])
async def test_there_are_no_events_of_a_job_that_is_not_there(streams: Streams, method: str, status: int) -> None:
    async with streams.wire() as wire:
        wire.send(streams.request("none", method=method))
        reply = await wire.reply(bodiless=method == "HEAD")

    assert reply is not None
    assert status == reply.status
    assert method == "HEAD" or ["error"] == list(reply.json())


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_by_the_close(streams: Streams, connection: str) -> None:
    job_id = await streams.running("one")
    await streams.yard.worker().done(job_id, {"output": []})
    async with streams.read(job_id, f"Connection: {connection}", version="1.0") as answer:
        assert ("close", None) == (answer.headers["connection"], answer.headers.get("transfer-encoding"))
        assert ["", "end"] == names(await answer.rest())


async def test_versions_are_not_mixed_up_on_one_connection(streams: Streams) -> None:
    job_id = await streams.running("one")
    await streams.yard.worker().done(job_id, {"output": []})
    async with streams.wire() as wire:
        wire.send(streams.request(job_id) + streams.request(job_id, version="1.0"))
        first = await Answer.on(wire)
        assert ["", "end"] == names(await first.rest())
        second = await Answer.on(wire)
        assert ("transfer-encoding" in first.headers, "transfer-encoding" in second.headers) == (True, False)
        assert ["", "end"] == names(await second.rest())


async def test_a_reader_that_has_left_is_waited_for_no_more(streams: Streams) -> None:
    job_id = await streams.running("one")
    before = streams.waits()
    async with streams.read(job_id) as answer:
        await answer.event()
        assert before + 1 == streams.waits()
    await asyncio.sleep(0.1)

    assert before == streams.waits()
    await streams.post(job_id, "two")


async def test_a_slow_reader_makes_the_platform_hold_little(streams: Streams) -> None:
    job_id = await streams.running()
    live = streams.yard.worker().live
    count, data = 64, b'"%b"' % (b"Z" * (MIB - 2))
    for _ in range(count):
        await streams.yard.dispatch.stream(live, JobId(job_id), [data])
    await streams.yard.dispatch.report(live, JobId(job_id), end_state(b"[]", None))
    async with streams.read(job_id) as answer:
        [connection] = streams.connections()
        await asyncio.sleep(1)
        held = connection.transport.get_write_buffer_size()
        assert 0 < held < 2 * MIB + (1 << 16)
        total = 0
        while (piece := await answer.piece()) is not None:
            total += piece.count(b"Z")
            assert connection.transport is None or connection.transport.get_write_buffer_size() < 2 * MIB + (1 << 16)

    assert total == count * (MIB - 2)
    assert answer.whole


async def test_a_stopping_server_ends_streams_so_that_they_can_be_gone_on_with(streams: Streams) -> None:
    job_id = await streams.running("one")
    async with streams.read(job_id) as answer:
        await answer.event()
        for connection in streams.connections():
            connection.shutdown()
        assert [] == await answer.rest()
        assert answer.whole
        assert b"" == await answer.wire.reader.read()
