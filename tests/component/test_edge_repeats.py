"""Requests that begin with the very bytes of the one before: their heads are not parsed again, and nothing else differs."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import ENDPOINT
from tests.edge_kit import Line, Yard

BODIES = [b'{"input":"a"}', b'{"input":"b"}', b'\r\n{"input":3}', b'{"input":4}\r\n', b"\r\n\r\n\r\n[1,2]"]
"""All of one size, so that their heads are equal."""
EXTRAS = [b"", b"X: 1\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"]


def a_request(yard: Yard, body: bytes, *, extra: bytes = b"", key: str | None = None) -> bytes:
    head = f"POST /v2/{ENDPOINT}/run HTTP/1.1\r\nHost: yard.test\r\nAuthorization: {key or yard.key}\r\n".encode()
    return head + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def a_yard() -> Yard:
    yard = Yard()
    await yard.open()
    return yard


async def outcomes(yard: Yard, line: Line, requests: int) -> list[bytes | int]:
    """What became of so many requests: the input that was stored, or the status that refused it; 100 stands by itself."""
    found: list[bytes | int] = []
    while requests:
        reply = await line.reply()
        requests -= reply.status != 100
        if reply.status == 200:
            job = await yard.store.get(ENDPOINT, reply.json()["id"])
            assert job is not None
            found.append(job.input)
        else:
            found.append(reply.status)
    return found


@pytest.mark.looptime
async def test_each_of_many_equal_heads_has_its_own_body() -> None:
    yard = await a_yard()
    line = yard.client.line()
    bodies = [b'{"input":%d}' % number for number in range(10, 20)]
    got: list[bytes | int] = []
    for body in bodies:
        line.send(a_request(yard, body))
        got += await outcomes(yard, line, 1)

    assert [b"%d" % number for number in range(10, 20)] == got
    await yard.close()


@pytest.mark.looptime
async def test_a_key_that_is_revoked_opens_nothing_more_under_a_known_head() -> None:
    yard = await a_yard()
    key, secret = await yard.access.create("short-lived")
    line = yard.client.line()
    statuses: list[int] = []
    for number in range(4):
        if number == 3:
            await yard.access.revoke(key.id)
        line.send(a_request(yard, b'{"input":1}', key=secret))
        statuses.append((await line.reply()).status)

    assert [200, 200, 200, 401] == statuses
    await yard.close()


@pytest.mark.looptime
async def test_a_known_head_inside_a_body_is_body() -> None:
    yard = await a_yard()
    line = yard.client.line()
    known = a_request(yard, b'{"input":1}')
    for _ in range(3):
        line.send(known)
        await outcomes(yard, line, 1)
    outer = a_request(yard, b"[" + known)
    line.send(outer[: -len(known)])
    await asyncio.sleep(0)
    line.send(known)

    assert [400] == await outcomes(yard, line, 1), "it is not JSON"
    assert 3 == (await yard.store.counts(ENDPOINT)).in_queue
    await yard.close()


@pytest.mark.looptime
async def test_the_end_of_another_request_is_no_part_of_a_head() -> None:
    yard = await a_yard()
    line = yard.client.line()
    request = a_request(yard, b'{"input":1}')
    line.send(request)
    await outcomes(yard, line, 1)
    line.send(request[:-5])
    await asyncio.sleep(0)
    line.send(request[-5:] + request)
    assert [b"1", b"1"] == await outcomes(yard, line, 2)
    line.send(request[-5:] + request)

    assert [400] == await outcomes(yard, line, 1)
    await yard.close()


@given(
    bodies=st.lists(st.sampled_from(BODIES), min_size=3, max_size=6),
    extra=st.sampled_from(EXTRAS),
    cuts=st.lists(st.integers(0, 1000), max_size=4),
    junk=st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]),
    waits=st.booleans(),
)
def test_what_becomes_of_requests_does_not_depend_on_how_they_arrive(
    bodies: list[bytes], extra: bytes, cuts: list[int], junk: bytes, waits: bool
) -> None:
    """As each on a connection of its own, so all on one: one by one or pipelined in pieces, with junk between them."""
    if extra.startswith(b"Connection"):
        bodies = bodies[:1]

    async def alone() -> list[bytes | int]:
        yard, found = await a_yard(), []
        for body in bodies:
            line = yard.client.line()
            line.send(a_request(yard, body, extra=extra))
            found += await outcomes(yard, line, 1)
        await yard.close()
        return found

    async def together() -> list[bytes | int]:
        yard, found = await a_yard(), []
        line = yard.client.line()
        sent = [a_request(yard, body, extra=extra) + junk for body in bodies]
        if waits:
            for data in sent:
                line.send(data)
                found += await outcomes(yard, line, 1)
        else:
            data = b"".join(sent)
            ends = sorted({cut for cut in cuts if cut < len(data)})
            for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
                line.send(data[start:end])
                await asyncio.sleep(0)
            found += await outcomes(yard, line, len(bodies))
        await yard.close()
        return found

    def final(found: list[bytes | int]) -> list[bytes | int]:
        """A client that sends its body unasked may do without the 100."""
        return found if waits else [outcome for outcome in found if outcome != 100]

    assert final(asyncio.run(alone())) == final(asyncio.run(together()))
