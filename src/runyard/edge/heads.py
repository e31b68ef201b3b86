"""What the head of a request says to the hot routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from runyard.edge.routes import Match

HEADERS_MAX = 100
HEAD_BYTES_MAX = 64 * 1024
URL_BYTES_MAX = 8 * 1024
_WISHES = (b"upgrade", b"connection", b"http2-settings")

Problem = tuple[int, str]
"""An HTTP status and a message."""


class Head:
    """What the hot routes need of a request's headers, gathered in one pass."""

    __slots__ = (
        "authorization",
        "authorizations",
        "content_length",
        "expects_continue",
        "headers",
        "hosts",
        "http10",
        "idempotency_key",
        "transfer_encoding",
    )

    def __init__(self, headers: list[tuple[bytes, bytes]], *, http10: bool = False) -> None:
        self.headers = headers
        self.http10 = http10
        self.authorization: bytes | None = None
        self.content_length: int | None = None
        self.transfer_encoding: bytes | None = None
        self.expects_continue = False
        self.idempotency_key: bytes | None = None
        """As it came; a repeated one is no key any more."""
        self.hosts = 0
        self.authorizations = 0
        for name, value in headers:
            match name.lower():
                case b"host":
                    self.hosts += 1
                case b"authorization":
                    self.authorization = value
                    self.authorizations += 1
                case b"content-length":
                    self.content_length = int(value)
                case b"transfer-encoding":
                    self.transfer_encoding = value.strip().lower()
                case b"idempotency-key":
                    before = self.idempotency_key
                    self.idempotency_key = value if before is None else b"%b, %b" % (before, value)
                case b"expect":
                    self.expects_continue = value.lower() == b"100-continue"
                case _:
                    pass

    def problem(self, url: bytes, *, may_be_large: bool) -> Problem | None:
        """Why it cannot be served, whatever its route."""
        if len(url) > URL_BYTES_MAX:
            return 414, f"the URL is longer than {URL_BYTES_MAX} bytes"
        if may_be_large and self.size > HEAD_BYTES_MAX:
            return 431, f"the request head is larger than {HEAD_BYTES_MAX} bytes"
        if len(self.headers) > HEADERS_MAX:
            return 431, f"the request has more than {HEADERS_MAX} headers"
        if self.hosts != 1 and (self.hosts or not self.http10):
            return 400, "the request must have exactly one Host header"
        if self.authorizations > 1:
            return 400, "the request must have at most one Authorization header"
        if self.transfer_encoding not in (None, b"chunked"):
            return 501, "of transfer encodings only chunked is known here"
        return None

    @property
    def size(self) -> int:
        """Size of names and values."""
        return sum(len(name) + len(value) for name, value in self.headers)


class Known(NamedTuple):
    """A request that has come twice in a row with the same head: these bytes will mean the same the next time."""

    raw: bytes
    size: int
    """Of the whole request."""
    match: Match
    method: bytes
    query: bytes
    head: Head


def head_bytes(data: bytes) -> int:
    """Where the body begins in the data of a request."""
    return data.find(b"\r\n\r\n") + 4


def head_without_wishes(method: bytes, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request that asks for another protocol, as if it did not."""
    lines = [b"%b %b HTTP/1.1" % (method, url)]
    lines += [b"%b: %b" % (name, value) for name, value in headers if name.lower() not in _WISHES]
    return b"\r\n".join([*lines, b"", b""])
