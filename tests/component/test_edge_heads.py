"""Heads and framing that HTTP forbids or hardly allows, byte for byte over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.component.edge_site import HEALTH, HOST, RUN, Site, a_site, told, unharmed

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Site]:
    async with a_site() as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared: Site, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    async with unharmed(shared, caplog):
        yield shared


def on(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


HOSTED = HOST.strip()
CHUNKED = b"Transfer-Encoding: chunked"
BAD_HEADS = {
    "no host": (400, on(b"GET /x HTTP/1.1")),
    "two hosts": (400, on(b"GET /x HTTP/1.1", HOSTED, b"host: other")),
    "two keys": (400, on(b"GET %b HTTP/1.1" % HEALTH, HOSTED, b"Authorization: a", b"authorization: b")),
    "two lengths": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Content-Length: 5", b"Content-Length: 6") + b"hello"),
    "the same length twice": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, *[b"Content-Length: 5"] * 2) + b"hello"),
    "length and chunked": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Content-Length: 5", CHUNKED) + b"0\r\n\r\n"),
    "chunked and length": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, CHUNKED, b"Content-Length: 5") + b"0\r\n\r\n"),
    "chunked is not last": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Transfer-Encoding: chunked, gzip")),
    "a coding before chunked": (501, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Transfer-Encoding: gzip, chunked")),
    "negative length": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Content-Length: -1")),
    "signed length": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Content-Length: +5")),
    "length in hex": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Content-Length: 0x5")),
    "length of 40 digits": (400, on(b"POST %b HTTP/1.1" % RUN, HOSTED, b"Content-Length: " + b"9" * 40)),
    "space before colon": (400, on(b"GET /x HTTP/1.1", b"Host : a")),
    "space before the first header": (400, on(b"GET /x HTTP/1.1", b" Host: a")),
    "nul in a value": (400, on(b"GET /x HTTP/1.1", HOSTED, b"A: b\x00c")),
    "nul in the target": (400, on(b"GET /x\x00y HTTP/1.1", HOSTED)),
    "bare carriage return": (400, on(b"GET /x HTTP/1.1", HOSTED, b"A: b\rB: c")),
    "unknown method": (400, on(b"BREW /x HTTP/1.1", HOSTED)),
    "small letters": (400, on(b"get /x HTTP/1.1", HOSTED)),
    "a tunnel": (400, on(b"CONNECT a.test:443 HTTP/1.1", HOSTED)),
    "http/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "http/3": (400, on(b"GET /x HTTP/3.0", HOSTED)),
    "http/0.9": (400, b"GET /x\r\n\r\n"),
    "tls": (400, bytes.fromhex("16030100a5010000a10303") + b"\x00" * 64),
    "noise": (400, b"\x00\x01\x02\x03\r\n\r\n"),
    "101 headers": (431, on(b"GET /x HTTP/1.1", HOSTED, *[b"A: b"] * 100)),
    "10,000 headers": (431, on(b"GET /x HTTP/1.1", HOSTED, *[b"A: b"] * 10_000)),
    "a head of 90 kB": (431, on(b"GET /x HTTP/1.1", HOSTED, *[b"A: " + b"b" * 1000] * 90)),
    "an endless header": (431, b"GET /x HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 700_000),
    "an endless name": (431, b"GET /x HTTP/1.1\r\n" + HOST + b"b" * 700_000),
    "an endless target": (431, b"GET /" + b"b" * 700_000),
    "a long target": (414, on(b"GET /%b HTTP/1.1" % (b"b" * 8192), HOSTED)),
    "a long query": (414, on(b"GET %b?a=%b HTTP/1.1" % (HEALTH, b"b" * 8192), HOSTED)),
}


@pytest.mark.parametrize("name", BAD_HEADS)
async def test_a_head_that_http_forbids_is_refused_and_the_connection_closed(site: Site, name: str) -> None:
    status, data = BAD_HEADS[name]
    async with site.wire() as wire:
        wire.send(data)
        told(await wire.reply(), status)
        assert b"" == await wire.rest()


BAD_BODIES = {
    "a chunk without a size": b"\r\n\r\n",
    "a chunk size that is no number": b"zz\r\n",
    "a negative chunk": b"-1\r\n",
    "a chunk size of 20 digits": b"f" * 20 + b"\r\n",
    "a chunk longer than it said": b"1\r\nabc\r\n0\r\n\r\n",
    "endless chunk extensions": b"1;" + b"a" * 700_000,
    "endless trailers": b"1\r\n1\r\n0\r\n" + b"A: b\r\n" * 120_000,
    "one endless trailer": b"1\r\n1\r\n0\r\nA: " + b"b" * 700_000,
}


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("path", [RUN, b"/elsewhere"])
async def test_framing_that_http_forbids_ends_the_connection(site: Site, name: str, path: bytes) -> None:
    async with site.wire() as wire:
        wire.send(b"POST %b HTTP/1.1\r\n%b%b%b\r\n\r\n" % (path, HOST, site.key, CHUNKED) + BAD_BODIES[name])
        reply = await wire.reply()
        assert reply is None or reply.status in (400, 431)
        assert b"" == await wire.rest()


async def test_trailers_do_not_become_headers(site: Site) -> None:
    async with site.wire() as wire:
        chunks = b"1\r\na\r\n0\r\nX-Forged: yes\r\n\r\n"
        wire.send(b"POST /elsewhere HTTP/1.1\r\n%b%b\r\n\r\n%b" % (HOST, CHUNKED, chunks))

        assert ["/elsewhere", "a", ["host", "transfer-encoding"]] == (await wire.reply()).json()


@pytest.mark.parametrize("cut", [1, 7, 64])
async def test_a_request_may_come_in_pieces(site: Site, cut: int) -> None:
    async with site.wire() as wire:
        wire.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = site.post()
        for at in range(0, len(request), cut):
            wire.send(request[at : at + cut])
            await asyncio.sleep(0)

        assert 200 == (await wire.reply()).status


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"nonsense"])
@pytest.mark.parametrize("path", [RUN, b"/elsewhere"])
async def test_a_wish_for_another_protocol_is_passed_over(site: Site, upgrade: bytes, path: bytes) -> None:
    async with site.wire() as wire:
        wire.send(site.post(path, more=b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade))

        assert 200 == (await wire.reply()).status
