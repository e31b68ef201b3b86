"""A port changes hands: what is under way is answered, what is not goes on with the other process, and nobody is cut off."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from runyard.domain.job import JobId
from runyard.edge import listener
from runyard.edge.listener import Listener, listening
from tests.builders import ENDPOINT, SECRET, WORKER
from tests.component.sse import Answer
from tests.edge_kit import Wire, Yard, bind, nothing_else

HEALTH = f"/v2/{ENDPOINT}/health"


class Pair:
    """An old and a new process, each a yard, on the same listening sockets: the two, and a further one for workers."""

    def __init__(self) -> None:
        self.yards = Yard(), Yard()
        self.ports = bind("127.0.0.1", 0), bind("127.0.0.1", 0), bind("127.0.0.2", 0)
        self.passed: list[tuple[int, socket.socket]] = []
        self._stack = AsyncExitStack()
        self.full = False

    async def open(self) -> None:
        for yard in self.yards:
            await yard.open()
            yard.worker()
        self.yards[1].access = self.yards[0].access
        self.yards[1].job_routes._keys = self.yards[0].access
        self.old = await self._listen(self.yards[0])

    async def _listen(self, yard: Yard) -> tuple[Listener, Listener]:
        user, worker, further = (port.dup() for port in self.ports)
        listeners = (
            await self._stack.enter_async_context(listening(user, yard.job_routes.paths, nothing_else)),
            await self._stack.enter_async_context(listening(worker, yard.worker_routes.paths, nothing_else)),
        )
        await listeners[1].add(further)
        return listeners

    def _pass_on(self, number: int, descriptors: list[int]) -> bool:
        if not self.full:
            self.passed += [(number, socket.socket(fileno=os.dup(fd))) for fd in descriptors]
        return not self.full

    async def hand_over(self) -> None:
        await asyncio.gather(
            *(one.hand_over(lambda fds, n=n: self._pass_on(n, list(fds))) for n, one in enumerate(self.old))
        )
        new = await self._listen(self.yards[1])
        for number, sock in self.passed:
            await new[number].adopt(sock)

    async def close(self) -> None:
        await self._stack.aclose()
        for yard in self.yards:
            await yard.close()
        for port in self.ports:
            port.close()

    def wire(self, number: int) -> AsyncIterator[Wire]:
        return Wire.to(*reversed(self.ports[number].getsockname()))  # type: ignore[return-value]

    def get(self, path: str, key: str | None = None) -> bytes:
        key = key or f"Bearer {self.yards[0].key}"
        return f"GET {path} HTTP/1.1\r\nHost: yard\r\nAuthorization: {key}\r\n\r\n".encode()

    def poll(self) -> bytes:
        return self.get(f"/v2/{ENDPOINT}/job-take/{WORKER}?gpu=none&job_in_progress=0", SECRET)

    def post(self, path: str, body: bytes, size: int | None = None) -> bytes:
        head = self.get(path).replace(b"GET", b"POST", 1).removesuffix(b"\r\n")
        return head + b"Content-Length: %d\r\n\r\n" % (len(body) if size is None else size) + body


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.open()
    yield pair
    await pair.close()


async def test_a_connection_between_two_requests_goes_on(pair: Pair) -> None:
    async with pair.wire(0) as wire:
        for path in (HEALTH, "/other"):
            wire.send(pair.get(path))
            before = await wire.reply()
            assert before is not None
        await pair.hand_over()
        for path, status in ((HEALTH, 200), ("/other", 404)):
            wire.send(pair.get(path))
            after = await wire.reply()
            assert after is not None
            assert (status, None) == (after.status, after.headers.get("connection"))

    assert 1 == len(pair.passed)


@pytest.mark.parametrize("number", [1, 2])
async def test_a_held_poll_is_answered_with_nothing_and_its_repetition_is_for_the_new_process(
    pair: Pair, number: int
) -> None:
    async with pair.wire(number) as wire:
        wire.send(pair.poll())
        await asyncio.sleep(0.05)
        handing_over = asyncio.create_task(pair.hand_over())
        first = await wire.reply()
        wire.send(pair.poll())
        await handing_over
        pair.yards[1].client.key = pair.yards[0].client.key
        await pair.yards[1].client.run(7)
        second = await wire.reply()

    assert (204, None) == (first.status, first.headers.get("connection"))
    assert (200, 7) == (second.status, second.json()["input"])


async def test_who_waits_for_a_job_gets_it_as_it_stands(pair: Pair) -> None:
    async with pair.wire(0) as wire:
        wire.send(pair.post(f"/v2/{ENDPOINT}/runsync", b'{"input": 1}'))
        await asyncio.sleep(0.05)
        await pair.hand_over()
        reply = await wire.reply()

    assert (200, "IN_QUEUE") == (reply.status, reply.json()["status"])


async def test_a_stream_of_events_is_ended_and_gone_on_with_by_the_new_process(pair: Pair) -> None:
    job_id = await pair.yards[0].client.run()
    asking = pair.get(f"/v2/{ENDPOINT}/stream/{job_id}").replace(b"Host", b"Accept: text/event-stream\r\nHost")
    async with pair.wire(0) as wire:
        wire.send(asking)
        answer = await Answer.on(wire)
        await pair.hand_over()
        assert [] == await answer.rest()
        wire.send(asking)
        reply = await wire.reply()

    assert answer.whole
    assert (1, 404) == (len(pair.passed), reply.status)  # The new yard's store has no such job.


async def test_a_slow_reader_of_events_holds_nobody_up(pair: Pair) -> None:
    yard = pair.yards[0]
    job_id = JobId(await yard.client.run())
    await yard.worker().take()
    for _ in range(32):
        await yard.dispatch.stream(yard.worker().live, job_id, [b'"%b"' % (b"x" * (1 << 20))])
    async with pair.wire(0) as wire:
        wire.send(pair.get(f"/v2/{ENDPOINT}/stream/{job_id}").replace(b"Host", b"Accept: text/event-stream\r\nHost"))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(2):
            await pair.hand_over()
        answer = await Answer.on(wire)
        assert 0 < len(await answer.rest()) < 32

    assert answer.whole


async def test_a_request_that_is_coming_in_is_finished_by_the_old_process(pair: Pair) -> None:
    async with pair.wire(0) as wire:
        wire.send(pair.post(f"/v2/{ENDPOINT}/run", b'{"inp', 12))
        await asyncio.sleep(0.05)
        handing_over = asyncio.create_task(pair.hand_over())
        await asyncio.sleep(0.05)
        assert not handing_over.done()
        wire.send(b'ut": 1}')
        reply = await wire.reply()
        await handing_over
        wire.send(pair.get(HEALTH))
        again = await wire.reply()

    counts = await pair.yards[0].store.counts(ENDPOINT)
    assert (200, 1, 200) == (reply.status, counts.in_queue, again.status)


async def test_a_request_that_never_comes_whole_holds_nobody_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HAND_OVER_S_MAX", 0.1)
    async with pair.wire(0) as wire:
        wire.send(b"GET /v2/")
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await pair.hand_over()
            await pair.close()
            assert b"" == await wire.rest()


@pytest.mark.parametrize("number", [0, 2])
async def test_who_connects_meanwhile_waits_for_the_new_process(pair: Pair, number: int) -> None:
    for one in pair.old:
        await one.hand_over(lambda _: False)
    async with pair.wire(number) as wire:
        wire.send(pair.get(HEALTH))
        await asyncio.sleep(0.05)
        await pair.hand_over()
        reply = await wire.reply()

    assert (200 if number == 0 else 404) == reply.status


async def test_connections_that_cannot_be_passed_on_are_closed(pair: Pair) -> None:
    pair.full = True
    async with pair.wire(0) as wire:
        wire.send(pair.get(HEALTH))
        assert await wire.reply() is not None
        await pair.hand_over()

        assert await wire.reply() is None
