"""One hot request and its answer."""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from runyard.domain.errors import MethodNotAllowed, RunyardError, TooLarge
from runyard.edge import eager
from runyard.edge.queries import parameters
from runyard.edge.routes import Match

log = logging.getLogger("runyard.edge")

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class RequestHead(Protocol):
    """What a request's head says."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]: ...

    @property
    def authorization(self) -> bytes | None: ...

    @property
    def idempotency_key(self) -> bytes | None: ...

    @property
    def http10(self) -> bool:
        """The client speaks HTTP/1.0."""
        ...


class _NoEvent:
    def set(self) -> None: ...


_NO_EVENT = _NoEvent()


class Connection(Protocol):
    """What an exchange needs of the connection it came on."""

    loop: AbstractEventLoop
    transport: Any
    flow: Any
    """uvicorn's view of the transport's buffer."""
    proven: object
    """The credentials this client has proven on this connection, so that they are hashed once and not each time."""
    caller: Any
    """Whose they are."""
    on_room: Callable[[], object] | None
    """Called when the client has taken what it was slow to take."""

    def write_answer(self, exchange: Exchange, status: int, body: bytes, headers: bytes) -> None:
        """Write one whole answer and turn to what comes next."""
        ...

    def write_head(self, status: int, headers: bytes) -> None:
        """Write the head of an answer of which the exchange writes the rest itself."""
        ...

    def on_response_complete(self) -> None:
        """Turn to what comes next."""
        ...


class Exchange:
    """A hot request. Answer it once: whole, with `respond`, or in pieces, with `begin`, `send` and `end`; until then it may
    be held open.

    Where uvicorn's protocol looks at its current request-response cycle, it finds this instead; the attributes it reads
    (`response_started`, `response_complete`, `disconnected`, `keep_alive`, `message_event`) are those of a cycle.
    """

    message_event = _NO_EVENT

    __slots__ = (
        "_body",
        "_chunked",
        "_early",
        "_on_end",
        "_then",
        "_timer",
        "active",
        "args",
        "caller",
        "disconnected",
        "head",
        "inflow",
        "keep_alive",
        "method",
        "protocol",
        "query_string",
        "received",
        "refusal",
        "response_complete",
        "response_started",
        "route",
        "started",
    )

    def __init__(
        self, protocol: Connection, match: Match, method: bytes, query_string: bytes, head: RequestHead
    ) -> None:
        self.protocol = protocol
        self.route = match.route
        self.args = match.args
        self.method = method
        self.query_string = query_string
        self.head = head
        self.caller: Any
        """Who was admitted."""
        self.keep_alive = True
        self.active = False
        """It is this request's turn to be answered; before, it waits behind a pipelined one."""
        self.received = False
        """The whole body is here."""
        self.started = False
        self.refusal: Exception | None = None
        self.response_started = False
        """Its answer comes in pieces, and the first are on their way."""
        self.response_complete = False
        self.disconnected = False
        self._body: bytes | bytearray = b""
        self._chunked = False
        self.inflow: Any = None
        """Takes a body that is too large to be held, as it comes."""
        self._early: tuple[int, bytes, bytes] | None = None
        """Its answer, until it is its turn."""
        self._on_end: Callable[[], object] | None = None
        self._timer: TimerHandle | None = None
        self._then: Callable[[], object] | None = None

    # What the handler reads

    @property
    def body(self) -> bytes:
        return self._body if isinstance(self._body, bytes) else bytes(self._body)

    def query(self) -> Mapping[str, str]:
        """Query parameters; of a repeated one the last counts. Raises `BadRequest` when there are too many."""
        return parameters(self.query_string) if self.query_string else {}

    def header(self, name: bytes) -> bytes | None:
        """A header by its lower-case name; of a repeated one the first counts."""
        return next((value for key, value in self.head.headers if key.lower() == name), None)

    def drop_body(self) -> None:
        """It is not needed any more, and the answer may take long."""
        self._body = b""

    # What the protocol does

    def open(self, content_length: int | None) -> None:
        """Refuse what the head alone gives away."""
        if self.method not in self.route.methods:
            allow = tuple(sorted(method.decode() for method in self.route.methods))
            self.refusal = MethodNotAllowed(f"use {' or '.join(allow)} here, not {self.method.decode()}", allow)
            return
        try:
            self.caller = self.route.admit(self)
        except RunyardError as error:
            self.refusal = error
            return
        if content_length is not None and content_length > self.route.body_bytes_max:
            self._refuse_size()

    def receive(self, chunk: bytes) -> None:
        if self.refusal is not None or self.response_complete:
            return
        if self.inflow is not None:
            self.inflow.receive(chunk)
            if self.inflow.size > self.route.body_bytes_max:
                self._refuse_size()
        elif len(self._body) + len(chunk) > self.route.body_bytes_max:
            self._refuse_size()
        elif self.route.inflow is not None and len(self._body) + len(chunk) > self.route.inline_bytes_max:
            self.inflow = self.route.inflow(self)
            self.inflow.receive(bytes(self._body))
            self.inflow.receive(chunk)
            self._body = b""
        elif not self._body:
            self._body = chunk
        else:
            # Grown in place: a list of pieces would cost far more than a body that comes byte by byte.
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._body)
            self._body += chunk

    def proceed(self) -> None:
        """Answer, if it is this request's turn and enough of it is here."""
        if not self.active:
            if not self.route.ahead or not self.received or self.refusal is not None:
                return
        elif self._early is not None:
            early, self._early = self._early, None
            self.respond(*early)
            return
        if self.started or not (self.received or self.refusal):
            return
        self.started = True
        if self.refusal is not None:
            self.fail(self.refusal)
            return
        try:
            answering = self.route.handle(self)
        except Exception as error:  # noqa: BLE001 - `fail` decides what each error means.
            self.fail(error)
        else:
            eager.start(answering, self.fail)

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that answers, at once as far as it goes."""
        eager.start(answering, self.fail)

    def abandon(self) -> None:
        """The connection is gone."""
        self.disconnected = True
        self._end()

    # What the handler does

    @property
    def open_for_answer(self) -> bool:
        """Whether an answer would reach the client, as far as is known."""
        return not (
            self.response_complete
            or self._early is not None
            or self.disconnected
            or self.protocol.transport.is_closing()
        )

    def on_end(self, call: Callable[[], object]) -> None:
        """Call once the request is answered or its connection is gone, whichever comes first; after earlier such calls."""
        if self.disconnected:
            call()
        elif (earlier := self._on_end) is None:
            self._on_end = call
        else:
            self._on_end = lambda: (earlier(), call())

    def hold(
        self,
        seconds: float,
        then: Callable[[], object],
        midway: Callable[[], object] | None = None,
        midway_s: float = 0.0,
    ) -> None:
        """Call `then` after `seconds` unless the request is answered or abandoned before; a later hold replaces it.

        `midway` is called once after `midway_s`, if that is sooner. What hurries the request goes past it to `then`.
        """
        self._end_hold()
        self._then = then
        if midway is None or midway_s >= seconds:
            self._timer = self.protocol.loop.call_later(seconds, then)
        else:  # One timer at a time: most requests end before either, and setting one costs them a microsecond.
            self._timer = self.protocol.loop.call_later(midway_s, self._half_way, midway, seconds - midway_s, then)

    def _half_way(self, midway: Callable[[], object], left_s: float, then: Callable[[], object]) -> None:
        self._timer = self.protocol.loop.call_later(left_s, then)
        midway()

    def respond(self, status: int, body: bytes = b"", headers: bytes = b"") -> bool:
        """Send the answer; False when the client has left. `headers` are whole lines."""
        if not self.open_for_answer:
            return False
        if not self.active:
            self._early = status, body, headers
            return True
        self.response_complete = True
        answers = self.route.answers
        answers[status] = answers.get(status, 0) + 1
        self._end()
        self.protocol.write_answer(self, status, body, headers)
        return True

    def begin(self, status: int, headers: bytes, on_room: Callable[[], object], *, size: int | None = None) -> bool:
        """Begin an answer that comes in pieces, `size` bytes in all if that is known; False when the client has left.
        `on_room` is called when it is no longer `clogged`.
        """
        if not self.open_for_answer:
            return False
        self.response_started = True
        answers = self.route.answers
        answers[status] = answers.get(status, 0) + 1
        self._chunked = size is None and not self.head.http10
        if size is not None:
            headers += b"content-length: %d\r\n" % size
        elif self.head.http10:
            self.keep_alive = False  # It knows no chunks: that the connection ends says that the answer does.
        else:
            headers += b"transfer-encoding: chunked\r\n"
        if not self.keep_alive:
            headers += b"connection: close\r\n"
        self.protocol.on_room = on_room
        self.protocol.write_head(status, headers)
        return True

    def go_on(self, on_room: Callable[[], object]) -> bool:
        """Go on with an answer that has begun: from here on `on_room` is called."""
        self.protocol.on_room = on_room
        return self.open_for_answer

    @property
    def clogged(self) -> bool:
        """The client is slow to take what was sent. More is kept for it in memory, so that nothing should be sent."""
        return self.protocol.flow.write_paused

    def send(self, piece: bytes) -> bool:
        """Send a piece of an answer that has begun; False when the client has left."""
        if not self.open_for_answer:
            return False
        if piece:  # An empty chunk would end the answer.
            self.protocol.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        return True

    def end(self, piece: bytes = b"") -> None:
        """End an answer that has begun, with a last piece."""
        if not self.open_for_answer:
            return
        self.response_complete = True
        self.keep_alive = self.keep_alive and not self.clogged  # Nobody is to wait for the slow client of a cut answer.
        self.protocol.on_room = None
        self._end()
        if self._chunked:
            last = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            self.protocol.transport.write(last + b"0\r\n\r\n")
        elif piece:
            self.protocol.transport.write(piece)
        if self.keep_alive:
            self.protocol.on_response_complete()
        else:
            self.protocol.transport.close()

    def fail(self, error: BaseException) -> None:
        """Answer with an error; what is not ours is a defect and becomes a 500. After an answer it is only logged."""
        if self.response_complete or self._early is not None:
            log.error("a request failed after its answer", exc_info=error)
            return
        if self.response_started:
            log.error("a request failed amid its answer", exc_info=error)
            self.protocol.transport.close()  # Without the last chunk, so that nobody takes it for whole.
            return
        if not isinstance(error, RunyardError):
            log.error("a request failed", exc_info=error)
            error = RunyardError("internal error; the platform's log has the details")
        headers = b""
        if isinstance(error, MethodNotAllowed):
            headers = f"allow: {', '.join(error.allow)}\r\n".encode()
        elif error.retry_after_s is not None:
            headers = b"retry-after: %d\r\n" % error.retry_after_s
        self.respond(error.status, self.route.error_body(error), headers)

    def refuse(self, error: Exception) -> None:
        """Answer with an error though the body is not whole; what else comes of it is thrown away."""
        if self.refusal is None and not self.started:
            self.refusal = error
            self.proceed()

    def cut_short(self) -> None:
        """The server stops: what was to happen at the end of a hold happens now."""
        self.keep_alive = False
        self.hurry()

    def hurry(self) -> None:
        """What was to happen at the end of a hold happens now."""
        if self._timer is not None:
            then, self._then = self._then, None
            self._end_hold()
            if then is not None:
                then()

    def _refuse_size(self) -> None:
        self._body = b""
        self.refusal = refusal = TooLarge(
            f"the body is larger than {self.route.body_bytes_max} bytes, the limit of this operation"
        )
        if self.route.too_large is not None:
            self.route.too_large(self, refusal.message)

    def _end(self) -> None:
        self._body = b""
        self._end_hold()
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()

    def _end_hold(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._then = None
