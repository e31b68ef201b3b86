"""uvicorn's HTTP protocol with the hot routes taken off.

On complete headers a request whose path is a hot route becomes an `Exchange` and never sees ASGI; every other request goes
on to Starlette as usual. Both share one connection, in order, pipelined or not.

This class also guards what uvicorn leaves open: header count and size, missing or repeated Host, slow heads, stalled bodies,
clients that do not read, connections that say nothing. All but the first two are the `reap` loop's, which looks at every
connection once a second instead of arming timers for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runyard.edge.bodies import error_body
from runyard.edge.exchange import STATUS_LINES, Exchange, Match

HEADERS_MAX = 100
HEAD_BYTES_MAX = 64 * 1024
URL_BYTES_MAX = 8 * 1024
HEAD_TIMEOUT_S = 15.0
BODY_STALL_S = 20.0
WRITE_STALL_S = 60.0
IDLE_TIMEOUT_S = 75.0
LINGER_S = 10.0
"""How long the rest of a refused body is read and thrown away, so that the client gets to read the refusal."""
REAP_EVERY_S = 1.0


class Routes(Protocol):
    """Finds the hot route of a path."""

    def match(self, path: bytes) -> Match | None: ...


class Head:
    """What the hot routes need of a request's headers, gathered in one pass."""

    __slots__ = ("authorization", "content_length", "expects_continue", "hosts")

    def __init__(self) -> None:
        self.authorization: bytes | None = None
        self.content_length: int | None = None
        self.expects_continue = False
        self.hosts = 0

    @classmethod
    def of(cls, headers: list[tuple[bytes, bytes]]) -> Head:
        head = cls()
        for name, value in headers:
            match name.lower():
                case b"host":
                    head.hosts += 1
                case b"authorization":
                    head.authorization = value
                case b"content-length":
                    head.content_length = int(value)
                case b"expect":
                    head.expects_continue = value.lower() == b"100-continue"
                case _:
                    pass
        return head


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Subclassed per listener with its `routes` (see `with_routes`)."""

    routes: Routes
    parser: Any  # None once the connection is lost.
    transport: Any  # None until it is made.

    # Phases of reading, for `reap`
    IDLE, HEAD, BODY, DONE, LINGER = range(5)

    # The start of a 200 answer, made anew when uvicorn's clock ticks; one for all connections of a listener.
    ok_head = b""
    ok_head_from: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.proven: object = None
        """The credentials this client has proven on this connection, so that they are hashed once and not each time."""
        self.phase = self.IDLE
        self.progress = 0
        """Counts what the client has sent, so that `reap` sees when it sends nothing."""
        self.seen: tuple[int, int] = (self.IDLE, 0)
        self.seen_at = self.loop.time()
        self.read_bytes = 0
        """Size of what is being read now."""
        self.head_bytes = 0
        """What came of an unfinished head after the read that it began in."""
        self.feeding = False
        self.answers: list[bytes] = []
        """Answers to what is being read now; they leave in one write, which for a pipeline is one for many."""
        self.unsent = 0
        self.unsent_since = self.seen_at

    def connection_lost(self, exc: Exception | None) -> None:
        cycles: list[Any] = [self.cycle, *(cycle for cycle, _ in self.pipeline)]
        super().connection_lost(exc)
        for cycle in cycles:
            if isinstance(cycle, Exchange):
                cycle.abandon()

    def data_received(self, data: bytes) -> None:
        self.progress += 1
        self.read_bytes = len(data)
        in_head = self.phase == self.HEAD
        self.feeding = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.refuse_connection(400, "this is not a valid HTTP/1.1 request")
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        finally:
            self.feeding = False
            if self.answers:
                self._flush()
        if in_head and self.phase == self.HEAD:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES_MAX:
                self.refuse_connection(431, f"the request head is larger than {HEAD_BYTES_MAX} bytes")

    # Parser callbacks. They do not call uvicorn's for hot routes: a scope that nobody reads is half of its cost.

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.phase = self.HEAD
        self.progress += 1
        self.head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.phase = self.BODY
        if self.transport.is_closing():
            return
        head = Head.of(self.headers)
        problem = self._problem(head)
        if problem is not None:
            self.refuse_connection(*problem)
            return
        path, _, query = self.url.partition(b"?")
        match = self.routes.match(path)
        if match is None:
            self._begin_asgi()
        else:
            self._begin(match, query, head)

    def _begin_asgi(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        cycle: Any = self.cycle
        if isinstance(cycle, Exchange):
            cycle.receive(body)
            if cycle.refusal is not None:
                cycle.proceed()
        elif cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        lingering = self.phase == self.LINGER
        self.phase = self.DONE
        cycle: Any = self.cycle
        if isinstance(cycle, Exchange):
            cycle.received = True
            if lingering:
                self.transport.close()
            else:
                cycle.proceed()
        elif cycle is not None:
            super().on_message_complete()

    # Answers

    def write_answer(self, exchange: Exchange, status: int, body: bytes, headers: bytes) -> None:
        """Write one whole answer and turn to what comes next on this connection."""
        keep = exchange.keep_alive and exchange.received
        if status == 200 and keep and not headers:
            if self.ok_head_from is not self.server_state.default_headers:
                self._make_ok_head()
            self.answers.append(b"%b%d\r\n\r\n%b" % (self.ok_head, len(body), body))
        else:
            self.answers.append(self._answer(exchange, status, body, headers, keep))
        if not (self.feeding and keep):
            self._flush()
        if keep:
            self.on_response_complete()
        elif exchange.received:
            self.transport.close()
        else:
            self.phase = self.LINGER

    def _flush(self) -> None:
        if self.answers:
            answers, self.answers = self.answers, []
            self.transport.write(answers[0] if len(answers) == 1 else b"".join(answers))

    def _answer(self, exchange: Exchange, status: int, body: bytes, headers: bytes, keep: bool) -> bytes:
        head = [STATUS_LINES[status], self._default_headers(), headers]
        if status != 204:
            head.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body))
        head.append(b"\r\n" if keep else b"connection: close\r\n\r\n")
        if exchange.method != b"HEAD":
            head.append(body)
        return b"".join(head)

    def _make_ok_head(self) -> None:
        cls = type(self)
        cls.ok_head_from = self.server_state.default_headers
        cls.ok_head = (
            STATUS_LINES[200] + self._default_headers() + b"content-type: application/json\r\ncontent-length: "
        )

    def _default_headers(self) -> bytes:
        return b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)

    def on_response_complete(self) -> None:
        """Start the next pipelined request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            # Not at once: a long pipeline would recurse once for each request.
            self.loop.call_soon(self._start_next)
        elif self.phase == self.DONE:
            self.phase = self.IDLE

    def _start_next(self) -> None:
        if self.pipeline and not self.transport.is_closing():
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Exchange):
            cycle.active = True
            cycle.proceed()
        else:
            super()._start_asgi_task(cycle, app)

    def refuse_connection(self, status: int, message: str) -> None:
        """Answer something that is not a request we can take, and close."""
        if self.transport.is_closing():
            return
        body = error_body(message)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self._flush()
        self.transport.write(STATUS_LINES[status] + head + body)
        self.transport.close()

    def shutdown(self) -> None:
        """The server stops: held requests are answered as they stand."""
        cycle: Any = self.cycle
        if isinstance(cycle, Exchange) and not cycle.response_complete:
            cycle.cut_short()
        else:
            super().shutdown()

    # Heads

    def _begin(self, match: Match, query: bytes, head: Head) -> None:
        parser = self.parser
        exchange = Exchange(self, match, parser.get_method(), query, head.authorization)
        exchange.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        exchange.open(head.content_length)
        previous: Any = self.cycle
        self.cycle = cast(Any, exchange)
        if previous is not None and not previous.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((cast(Any, exchange), cast(Any, None)))
            return
        exchange.active = True
        if exchange.refusal is not None:
            exchange.proceed()
        elif head.expects_continue:
            self._flush()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _problem(self, head: Head) -> tuple[int, str] | None:
        if len(self.url) > URL_BYTES_MAX:
            return 414, f"the URL is longer than {URL_BYTES_MAX} bytes"
        if len(self.headers) > HEADERS_MAX:
            return 431, f"the request has more than {HEADERS_MAX} headers"
        may_be_large = self.head_bytes or self.read_bytes > HEAD_BYTES_MAX
        if may_be_large and sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX:
            return 431, f"the request head is larger than {HEAD_BYTES_MAX} bytes"
        if head.hosts != 1 and (head.hosts or self.parser.get_http_version() != "1.0"):
            return 400, "the request must have exactly one Host header"
        return None

    # Time

    def reap(self, now: float) -> None:
        """Close this connection if the client keeps us waiting too long."""
        if self.transport is None or self.transport.is_closing():
            return
        seen = (self.phase, self.progress)
        if seen != self.seen:
            self.seen, self.seen_at = seen, now
        waited = now - self.seen_at
        if self.phase == self.HEAD and waited > HEAD_TIMEOUT_S:
            self.refuse_connection(408, f"nothing more of the request head arrived for {HEAD_TIMEOUT_S:g} seconds")
        elif self.phase == self.BODY and waited > BODY_STALL_S and not self._reading_is_paused():
            self.refuse_connection(408, f"no byte of the request body arrived for {BODY_STALL_S:g} seconds")
        elif (self.phase == self.LINGER and waited > LINGER_S) or (self.phase == self.IDLE and waited > IDLE_TIMEOUT_S):
            self.transport.close()
        self._reap_unread(now)

    def _reading_is_paused(self) -> bool:
        return bool(self.flow.read_paused)

    def _reap_unread(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self.unsent:
            self.unsent_since = now
        elif now - self.unsent_since > WRITE_STALL_S:
            self.transport.abort()
        self.unsent = unsent


def with_routes(routes: Routes) -> type[EdgeProtocol]:
    """The protocol class of a listener with these hot routes."""
    return type("EdgeProtocol", (EdgeProtocol,), {"routes": routes})


async def reap(connections: Iterable[Any]) -> None:
    """Watch over a listener's connections for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(REAP_EVERY_S)
        for connection in list(connections):
            if isinstance(connection, EdgeProtocol):
                connection.reap(loop.time())
