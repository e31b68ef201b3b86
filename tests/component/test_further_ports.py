"""A listener with further sockets: the worker plane at the addresses of networks, where the user port is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from runyard.edge.crowd import Crowd
from runyard.edge.listener import Listener, listening
from tests.builders import ENDPOINT, SECRET, WORKER
from tests.edge_kit import Wire, Yard, bind, nothing_else

GATEWAYS = ("127.0.0.2", "127.0.0.3")


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


@pytest.fixture
async def listener(yard: Yard) -> AsyncIterator[Listener]:
    async with listening(bind("127.0.0.1", 0), yard.worker_routes.paths, nothing_else) as listener:
        yield listener


def wire_to(sock: socket.socket, host: str | None = None) -> AbstractAsyncContextManager[Wire]:
    at, number = sock.getsockname()[:2]
    return Wire.to(number, host or at)


def poll(worker: str = WORKER, secret: str = SECRET) -> bytes:
    path = f"/v2/{ENDPOINT}/job-take/{worker}?gpu=none&job_in_progress=0"
    return f"GET {path} HTTP/1.1\r\nHost: yard\r\nAuthorization: {secret}\r\n\r\n".encode()


async def test_a_worker_gets_its_jobs_at_a_further_port_too(yard: Yard, listener: Listener) -> None:
    yard.worker()
    port = bind(GATEWAYS[0], 0)
    await listener.add(port)
    async with wire_to(port) as wire:
        await yard.client.run(7)
        wire.send(poll())
        reply = await wire.reply()

    assert reply is not None
    assert (200, 7) == (reply.status, reply.json()["input"])


@pytest.mark.parametrize(("worker", "secret"), [("forged", SECRET), (WORKER, "forged")])
async def test_a_further_port_knows_strangers(yard: Yard, listener: Listener, worker: str, secret: str) -> None:
    yard.worker()
    port = bind(GATEWAYS[0], 0)
    await listener.add(port)
    async with wire_to(port) as wire:
        wire.send(poll(worker, secret))
        reply = await wire.reply()

    assert reply is not None
    assert 401 == reply.status


async def test_an_ended_port_answers_what_is_held_and_closes_its_connections_alone(
    yard: Yard, listener: Listener
) -> None:
    yard.worker("one")
    yard.worker("two")
    ports = [bind(host, 0) for host in GATEWAYS]
    ends = [await listener.add(port) for port in ports]
    at = ports[0].getsockname()
    async with wire_to(ports[0]) as idle, wire_to(ports[0]) as one, wire_to(ports[1]) as two:
        for wire, name in ((one, "one"), (two, "two")):
            wire.send(poll(name))
        await asyncio.sleep(0.05)
        ends[0]()
        held = await one.reply()
        async with asyncio.timeout(5):
            assert (b"", b"") == (await one.rest(), await idle.rest())
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*at)
        await yard.client.run(7)
        reply = await two.reply()

    assert held is not None
    assert reply is not None
    assert (204, 200) == (held.status, reply.status)


async def test_while_it_hands_over_a_further_port_is_left_to_the_next(listener: Listener) -> None:
    port = bind(GATEWAYS[0], 0)
    port.listen()
    await listener.hand_over(lambda _: False)
    end = await listener.add(port)
    async with wire_to(port) as wire:
        wire.send(poll())
        end()
        accepted, _ = await asyncio.to_thread(port.accept)
        received = accepted.recv(5)
        accepted.close()
    port.close()

    assert b"GET /" == received


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
async def test_who_comes_to_the_user_port_at_a_gateway_is_turned_away(yard: Yard, everywhere: str) -> None:
    gateways: set[str] = set()
    user_port = bind(everywhere, 0)
    async with listening(user_port, yard.job_routes.paths, nothing_else, shut_at=gateways):
        for shut in (GATEWAYS[:1], GATEWAYS, ()):
            gateways.clear()
            gateways.update(shut)
            for host in ("127.0.0.1", *GATEWAYS):
                async with wire_to(user_port, host) as wire:
                    wire.send(b"GET / HTTP/1.1\r\nHost: yard\r\nConnection: close\r\n\r\n")
                    answer = await wire.rest()

                assert (b"" if host in shut else b"HTTP/1.1 404") == answer[:12], host


async def test_a_user_port_at_one_address_is_where_it_was_told_to_be(yard: Yard) -> None:
    user_port = bind(GATEWAYS[0], 0)
    async with listening(user_port, yard.job_routes.paths, nothing_else, shut_at=GATEWAYS), wire_to(user_port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: yard\r\n\r\n")

        assert await wire.reply() is not None


async def test_who_opens_too_many_connections_is_refused_until_some_are_closed(yard: Yard) -> None:
    yard.worker()
    async with listening(
        port := bind("127.0.0.1", 0), yard.worker_routes.paths, nothing_else, crowd=Crowd(of_each=99, of_all=2)
    ):
        async with wire_to(port) as first, wire_to(port) as second:
            assert [200, 200] == [await answer_to(wire) for wire in (first, second)]
            async with wire_to(port) as third:
                assert await answer_to(third) is None
            assert 200 == await answer_to(first)
        async with asyncio.timeout(10):
            while await answer_once(port) != 200:  # noqa: ASYNC110 - Until the listener has seen that two have left.
                await asyncio.sleep(0)


async def answer_once(port: socket.socket) -> int | None:
    async with wire_to(port) as wire:
        return await answer_to(wire)


async def answer_to(wire: Wire) -> int | None:
    """The status of the answer to a ping; None when the connection is closed."""
    path = f"/v2/{ENDPOINT}/ping/{WORKER}?gpu=none"
    wire.send(f"GET {path} HTTP/1.1\r\nHost: yard\r\nAuthorization: {SECRET}\r\n\r\n".encode())
    reply = await wire.reply()
    return None if reply is None else reply.status
