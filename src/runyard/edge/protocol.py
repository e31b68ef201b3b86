"""uvicorn's HTTP protocol with the hot routes taken off.

On complete headers a request whose path is a hot route becomes an `Exchange` and never sees ASGI; every other request goes
on to Starlette as usual. Both share one connection, in order, pipelined or not.

This class also guards what uvicorn leaves open: the number and size of headers and of all else that is not body, missing
or repeated headers, upgrades to what we do not speak. Clients that keep us waiting are `patience.py`'s.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runyard.edge.bodies import error_body
from runyard.edge.exchange import STATUS_LINES, Exchange
from runyard.edge.heads import HEAD_BYTES_MAX, Head, Known, head_bytes, head_without_wishes
from runyard.edge.patience import Patience, Phase
from runyard.edge.routes import Match, Routes
from runyard.edge.vigil import Vigil


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Subclassed per listener with its `routes` (see `with_routes`)."""

    routes: Routes
    vigil = Vigil(0)
    parser: Any  # None once the connection is lost.
    cycle: Any  # An `Exchange`, or uvicorn's cycle.
    pipeline: Any
    transport: Any  # None until it is made.

    # The start of a 200 answer, made anew when uvicorn's clock ticks; one for all connections of a listener.
    ok_head = b""
    ok_head_from: object = None
    on_room: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.proven: object = None
        """The credentials this client has proven on this connection, so that they are hashed once and not each time."""
        self.caller: Any = None
        """Whose they are."""
        self.head = Head([])
        """Of the last request. A client mostly sends the same headers again, and then they need not be looked at."""
        self.url = b""
        self.repeats = False
        """This request's head is that of the one before."""
        self.known: Known | None = None
        self.phase = Phase.IDLE
        self.messages = self.reads = self.body_bytes = 0
        self.patience = Patience(self.loop.time())
        self.read_bytes = 0
        """Size of what is being read now."""
        self.idle_bytes = 0
        """What came of a head after the read that it began in, or of a body since its last piece: framing and trailers."""
        self.downgrading = False
        """The request asks for a protocol we do not speak; it is read again without that wish."""
        self.feeding = False
        """Answers are not written yet: more of them may leave in the same write."""
        self.starting = False
        """It is about to go on with its pipeline."""
        self.leaving = False
        """It goes to another process after the request that is under way."""
        self.turn: Any = None
        """The request whose turn it is to be answered, or was last; `cycle` is the last that came, pipelined or not."""
        self.answers: list[bytes] = []
        """Answers to what is being read now; they leave in one write, which for a pipeline is one for many."""

    def connection_lost(self, exc: Exception | None) -> None:
        cycles: list[Any] = [self.turn, *(cycle for cycle, _ in self.pipeline)]
        super().connection_lost(exc)
        for cycle in cycles:
            if isinstance(cycle, Exchange):
                cycle.abandon()
            elif cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self.vigil.news()
        self.reads += 1
        known, idle, messages = self.known, self.phase == Phase.IDLE, self.messages
        if known is not None and idle and len(data) == known.size and data.startswith(known.raw):
            self._repeat(known, data)
        else:
            self._read(data)
            if self.repeats and idle and self.messages == messages + 1:
                self._remember(data)
        self.vigil.rest()

    def _read(self, data: bytes) -> None:
        self.read_bytes = len(data)
        if self.phase in (Phase.HEAD, Phase.BODY, Phase.LINGER):
            self.idle_bytes += len(data)
        self.feeding = True
        try:
            self._feed(data)
        finally:
            self.feeding = False
            if self.answers:
                self._flush()
        if self.idle_bytes > HEAD_BYTES_MAX and self.phase == Phase.LINGER:
            self.transport.close()  # It has been answered.
        elif self.idle_bytes > HEAD_BYTES_MAX and self.phase in (Phase.HEAD, Phase.BODY):
            self.refuse_connection(431, f"the request has more than {HEAD_BYTES_MAX} bytes that are not its body")

    def _repeat(self, known: Known, data: bytes) -> None:
        """A whole request with a known head: there is nothing to parse."""
        self.messages += 1
        self.phase = Phase.DONE
        self.cycle = self.turn = exchange = Exchange(self, known.match, known.method, known.query, known.head)
        exchange.open(known.head.content_length)
        exchange.receive(data[len(known.raw) :])
        exchange.active = exchange.received = True
        exchange.proceed()

    def _remember(self, data: bytes) -> None:
        """Know this head the next time, if the data was one whole hot request with nothing special about it."""
        exchange, head, size = self.cycle, self.head, len(data) - self.body_bytes
        if not isinstance(exchange, Exchange) or not (exchange.received and exchange.keep_alive):
            return
        if head.transfer_encoding is None and not head.expects_continue and size == head_bytes(data):
            match = Match(exchange.route, exchange.args)
            self.known = Known(data[:size], len(data), match, exchange.method, exchange.query_string, head)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self.downgrading:
                    if not self.transport.is_closing():
                        self.handle_websocket_upgrade()
                    return
                data = self._without_wishes() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.refuse_connection(400, "this is not a valid HTTP/1.1 request")
                return

    def _without_wishes(self) -> bytes:
        """To read again: a request that asks for an unknown protocol, as if it did not, which is what HTTP wants of us."""
        self.downgrading = False
        head = head_without_wishes(self.parser.get_method(), self.url, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        return head

    # Parser callbacks. They do not call uvicorn's for hot routes: a scope that nobody reads is half of its cost.

    def on_message_begin(self) -> None:
        self.last_url, self.url = self.url, b""
        self.headers = []
        self.phase = Phase.HEAD
        self.messages += 1
        self.idle_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase == Phase.HEAD:  # Else it is a trailer, which nobody here needs.
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():
            return
        head = self.head
        http10 = self.parser.get_http_version() == "1.0"
        same_headers = head.headers == self.headers and head.http10 == http10
        if not same_headers:
            head = self.head = Head(self.headers, http10=http10)
        self.repeats = same_headers and self.url == self.last_url
        upgrade = self.parser.should_upgrade()
        problem = head.problem(self.url, may_be_large=self.idle_bytes > 0 or self.read_bytes > HEAD_BYTES_MAX)
        if upgrade and self.parser.get_method() == b"CONNECT":
            problem = 400, "this is no proxy: CONNECT is not served here"
        if problem is not None:
            self.refuse_connection(*problem)
            return
        self.phase = Phase.BODY
        self.body_bytes = self.idle_bytes = 0
        if upgrade:
            self._upgrade()
            return
        path, _, query = self.url.partition(b"?")
        match = self.routes.match(path)
        if match is None:
            self._begin_asgi()
        else:
            self._begin(match, query, head)

    def _upgrade(self) -> None:
        self.headers = [(name.lower(), value) for name, value in self.headers]
        if self._should_upgrade():
            self._begin_asgi()
        else:
            self.downgrading = True

    def _begin_asgi(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        self.idle_bytes = 0
        cycle = self.cycle
        if isinstance(cycle, Exchange):
            cycle.receive(body)
            if cycle.refusal is not None:
                cycle.proceed()
        elif cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.transport.is_closing() or self.downgrading:
            return
        lingering = self.phase == Phase.LINGER
        self.phase = Phase.DONE
        cycle = self.cycle
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
            self.phase = Phase.LINGER

    def write_head(self, status: int, headers: bytes) -> None:
        """Write the head of an answer that the exchange writes in pieces."""
        self._flush()
        self.transport.write(STATUS_LINES[status] + self._default_headers() + headers + b"\r\n")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()

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
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            if not self.starting:  # Not at once: a long pipeline would recurse once for each request.
                self.starting = True
                self.loop.call_soon(self._start_next)
        elif self.phase == Phase.DONE:
            self.phase = Phase.IDLE
            if self.leaving:
                self.transport.pause_reading()  # A worker polls again at once; that is for the other process to read.

    def _start_next(self) -> None:
        """Give pipelined requests their turn, as far as each is answered at once: results that shared a commit are."""
        self.feeding = True
        try:
            while self.pipeline and self.turn.response_complete and not self.transport.is_closing():
                self._start_asgi_task(*self.pipeline.pop())
        finally:
            self.feeding = self.starting = False
            self._flush()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.turn = cycle
        if isinstance(cycle, Exchange):
            cycle.active = True
            cycle.proceed()
        else:
            super()._start_asgi_task(cycle, app)

    def refuse_connection(self, status: int, message: str) -> None:
        """Answer something that is not a request we can take, and close.

        Where the client would take that for the answer to an earlier request, or for a part of it, it only closes.
        """
        if self.transport.is_closing():
            return
        if not self._may_refuse():
            self._flush()
            self.transport.close()
            return
        body = error_body(message)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self._flush()
        self.transport.write(STATUS_LINES[status] + head + body)
        self.transport.close()

    def _may_refuse(self) -> bool:
        turn = self.turn
        if self.phase == Phase.BODY:
            return turn is self.cycle and not (turn.response_complete or getattr(turn, "response_started", False))
        return self.phase != Phase.LINGER and (turn is None or turn.response_complete) and not self.pipeline

    def shutdown(self) -> None:
        """The server stops: held requests are answered as they stand."""
        turn = self.turn
        if isinstance(turn, Exchange) and not turn.response_complete:
            turn.cut_short()
        else:
            if turn is not None:
                turn.keep_alive = False
            super().shutdown()

    def hurry(self) -> None:
        """The connection is to go to another process: what is held is answered now, as it stands."""
        self.leaving = True
        turn = self.turn
        if isinstance(turn, Exchange) and not turn.response_complete:
            turn.hurry()

    def between_requests(self) -> bool:
        """Nothing is being read, answered or written: whoever reads on from here misses nothing."""
        turn = self.turn
        return (
            self.phase == Phase.IDLE
            and not self.pipeline
            and (turn is None or turn.response_complete)
            and not self.transport.get_write_buffer_size()
        )

    # Heads

    def _begin(self, match: Match, query: bytes, head: Head) -> None:
        parser = self.parser
        exchange = Exchange(self, match, parser.get_method(), query, head)
        exchange.keep_alive = parser.should_keep_alive()
        exchange.open(head.content_length)
        previous = self.cycle
        self.cycle = exchange
        if previous is not None and not previous.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, None))
            return
        exchange.active = True
        self.turn = exchange
        if exchange.refusal is not None:
            exchange.proceed()
        elif head.expects_continue:
            self._flush()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def paused(self) -> bool:
        return bool(self.flow.read_paused)


def with_routes(routes: Routes, vigil: Vigil = EdgeProtocol.vigil) -> type[EdgeProtocol]:
    """The protocol class of a listener with these hot routes."""
    return type("EdgeProtocol", (EdgeProtocol,), {"routes": routes, "vigil": vigil})
