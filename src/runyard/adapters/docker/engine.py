"""The Engine's API: one request, one stream, and what its errors mean.

Who calls says what the Engine calls it (https://docs.docker.com/reference/api/engine). The version spoken is the newest
that both know: Engines from 20.10 (1.41) on are understood, and newer ones that have given up old versions as well.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from runyard.domain.errors import StartFailed

SOCKET = "/var/run/docker.sock"
OLDEST, NEWEST = (1, 41), (1, 47)
"""What is understood here."""
CONNECT_S = 5.0
ANSWER_S = 120.0
"""For all but streams, which may be silent for ever."""
FRAME_BYTES_MAX = 1 << 20
_STREAM = httpx2.Timeout(CONNECT_S, read=None, write=ANSWER_S, pool=None)
_ANSWER = httpx2.Timeout(ANSWER_S, connect=CONNECT_S, pool=None)


class NoEngine(StartFailed):
    """Nobody answers there, or the answer broke off."""

    code = "no_engine"


class EngineError(StartFailed):
    """The Engine has refused. `status` is HTTP's; 200 for an error that came amid a stream of progress."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """Of the Engine at `address`, as in `unix:///var/run/docker.sock` or `tcp://host:2375`; `DOCKER_HOST` and then the usual
    socket without. To be closed. Its methods raise `NoEngine` and `EngineError`, and nothing else of the transport.
    """

    def __init__(self, address: str | None = None) -> None:
        """Raises `StartFailed` for an address that cannot be used. Connects to nothing yet."""
        self.address = address or os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}"
        self._http = _client(self.address)
        self._version: str | None = None
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        await self._http.aclose()

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Any:
        """The decoded answer; None where there is none. Values of `query` that are no strings are sent as JSON."""
        path = await self._path(path)
        try:
            reply = await self._http.request(
                method, path, json=body, params=_query(query), headers=headers, timeout=_ANSWER
            )
        except httpx2.TransportError as error:
            raise self._none(error) from error
        await _check(reply)
        if not reply.content or "json" not in reply.headers.get("content-type", ""):
            return None
        try:
            return reply.json()
        except ValueError as error:
            raise EngineError(reply.status_code, f"the Engine's answer to {method} {path} is no JSON") from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The answer's body as it comes, for as long as it comes. `content` is sent as it is, in place of a JSON body."""
        path = await self._path(path)
        sent: dict[str, Any] = {"json": body} if content is None else {"content": content}
        try:
            request = self._http.stream(method, path, params=_query(query), headers=headers, timeout=_STREAM, **sent)
            async with request as reply:
                await _check(reply)
                yield reply.aiter_raw()
        except httpx2.TransportError as error:
            raise self._none(error) from error

    @asynccontextmanager
    async def messages(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
        """As `stream`, of JSON objects. One that reports an error ends it with `EngineError`."""
        async with self.stream(method, path, body, **options) as chunks:
            yield _objects(chunks)

    async def api_version(self) -> str:
        """What both speak, as in `1.41`. Asked for once, and again after nobody has answered. Raises `StartFailed` where it
        is no Engine.
        """
        async with self._asking:
            if self._version is None:
                try:
                    reply = await self._http.get("/version", timeout=httpx2.Timeout(CONNECT_S))
                except httpx2.TransportError as error:
                    raise self._none(error) from error
                await _check(reply)
                try:
                    self._version = _common(reply.json())
                except (ValueError, TypeError, AttributeError) as error:
                    raise StartFailed(
                        f"what answers at {self.address} is no Docker Engine: name another with the setting docker_host"
                    ) from error
            return self._version

    async def _path(self, path: str) -> str:
        return f"/v{self._version or await self.api_version()}{path}"

    def _none(self, error: Exception) -> NoEngine:
        self._version = None  # What answers next may be another.
        return NoEngine(
            f"no Docker Engine answers at {self.address} ({error or type(error).__name__}): start it, or name another with "
            "the setting docker_host"
        )


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """What a container writes, piece by piece: 1 for standard output, 2 for standard error, and the bytes."""
    got = bytearray()
    async for chunk in chunks:
        got += chunk
        at = 0
        while len(got) - at >= 8:
            size = int.from_bytes(got[at + 4 : at + 8])
            if size > FRAME_BYTES_MAX:
                raise EngineError(200, f"the Engine sent a frame of {size} bytes")
            if len(got) - at - 8 < size:
                break
            yield got[at], bytes(got[at + 8 : at + 8 + size])
            at += 8 + size
        del got[:at]


def _client(address: str) -> httpx2.AsyncClient:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        transport = httpx2.AsyncHTTPTransport(uds=parts.path, limits=_UNLIMITED)
        return httpx2.AsyncClient(transport=transport, base_url="http://engine")
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        raise StartFailed(
            f"the Docker Engine's address {address!r} cannot be used: name it as unix:///path/to/socket or tcp://host:port"
        )
    tls = bool(os.environ.get("DOCKER_TLS_VERIFY")) or parts.scheme == "https"
    url = f"{'https' if tls else 'http'}://{parts.netloc}"
    transport = httpx2.AsyncHTTPTransport(verify=_certificates() if tls else True, limits=_UNLIMITED)
    return httpx2.AsyncClient(transport=transport, base_url=url)


_UNLIMITED = httpx2.Limits(max_connections=None, max_keepalive_connections=8)
"""Each worker whose log is followed holds a connection."""


def _certificates() -> ssl.SSLContext:
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise StartFailed(f"cannot read the Docker Engine's certificates in {folder}: {error}") from error
    return context


def _common(told: Mapping[str, Any]) -> str:
    newest, oldest = _number(told.get("ApiVersion", "1.24")), _number(told.get("MinAPIVersion", "1.12"))
    if newest < OLDEST or oldest > NEWEST:
        raise StartFailed(
            f"the Docker Engine {told.get('Version', '')} speaks API {_text(oldest)} to {_text(newest)}, and this Runyard "
            f"{_text(OLDEST)} to {_text(NEWEST)}: use Engine 20.10 or newer"
        )
    return _text(min(newest, NEWEST))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _query(query: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}


async def _check(reply: httpx2.Response) -> None:
    if reply.status_code < 400:
        return
    body = await reply.aread()
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:300].decode(errors="replace") or reply.reason_phrase
    raise EngineError(reply.status_code, str(message).strip())


async def _objects(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    decoder, text, characters = json.JSONDecoder(), "", codecs.getincrementaldecoder("utf-8")("replace")
    async for chunk in chunks:
        text = (text + characters.decode(chunk)).lstrip()
        while text:
            if text[0] != "{":
                raise EngineError(200, f"the Engine told {text[:80]!r} in a stream of objects")
            try:
                found, end = decoder.raw_decode(text)
            except ValueError:
                break  # Not whole yet.
            text = text[end:].lstrip()
            if "error" in found:
                raise EngineError(200, str(found["error"]).strip())
            yield found
