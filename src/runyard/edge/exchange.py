"""One hot request and its answer."""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

from runyard.domain.errors import BadRequest, MethodNotAllowed, RunyardError, TooLarge
from runyard.edge import eager
from runyard.edge.bodies import error_body

log = logging.getLogger("runyard.edge")

QUERY_FIELDS_MAX = 100

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@lru_cache(256)  # A worker asks with the same parameters each time.
def _parameters(query_string: bytes) -> Mapping[str, str]:
    text = query_string.decode("latin-1")
    try:
        return MappingProxyType(dict(parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)))
    except ValueError as error:
        raise BadRequest(f"the URL has more than {QUERY_FIELDS_MAX} query parameters") from error


class Route:
    """A hot route: its methods, the largest body it takes, what answers it, and how often it was answered.

    Requests of a route that runs `ahead` are handled as they come, while those before them on their connection still wait to
    be answered: results that a worker pipelines share a commit.

    `admit` says who the caller is, for `Exchange.caller`, or raises for one that may not use it. It sees the head alone:
    nobody's body is read but a friend's.
    """

    __slots__ = ("admit", "ahead", "answers", "body_bytes_max", "handle", "methods", "too_large")

    def __init__(
        self,
        handle: Callable[[Exchange], Coroutine[Any, Any, None]],
        methods: frozenset[bytes],
        body_bytes_max: int = 64 * 1024,
        *,
        admit: Callable[[Exchange], object],
        too_large: Callable[[Exchange, str], None] | None = None,
        ahead: bool = False,
    ) -> None:
        self.ahead = ahead
        self.handle = handle
        self.admit = admit
        self.too_large = too_large
        """Told when a friend's body is refused for its size."""
        self.methods = methods
        self.body_bytes_max = body_bytes_max
        self.answers: dict[int, int] = {}
        """By status."""


class Match(NamedTuple):
    """A route and the path segments that fill it, percent-decoded."""

    route: Route
    args: tuple[str, ...]


class _NoEvent:
    def set(self) -> None: ...


_NO_EVENT = _NoEvent()


class Connection(Protocol):
    """What an exchange needs of the connection it came on."""

    loop: AbstractEventLoop
    transport: Any
    proven: object
    """The credentials this client has proven on this connection, so that they are hashed once and not each time."""

    def write_answer(self, exchange: Exchange, status: int, body: bytes, headers: bytes) -> None:
        """Write one whole answer and turn to what comes next."""
        ...


class Exchange:
    """A hot request. Answer it once, with `respond`; until then it may be held open.

    Where uvicorn's protocol looks at its current request-response cycle, it finds this instead; the attributes it reads
    (`response_complete`, `disconnected`, `keep_alive`, `message_event`) are those of a cycle.
    """

    message_event = _NO_EVENT

    __slots__ = (
        "_body",
        "_early",
        "_on_end",
        "_then",
        "_timer",
        "active",
        "args",
        "authorization",
        "caller",
        "disconnected",
        "keep_alive",
        "method",
        "protocol",
        "query_string",
        "received",
        "refusal",
        "response_complete",
        "route",
        "started",
    )

    def __init__(
        self, protocol: Connection, match: Match, method: bytes, query_string: bytes, authorization: bytes | None
    ) -> None:
        self.protocol = protocol
        self.route = match.route
        self.args = match.args
        self.method = method
        self.query_string = query_string
        self.authorization = authorization
        self.caller: Any = None
        self.keep_alive = True
        self.active = False
        """It is this request's turn to be answered; before, it waits behind a pipelined one."""
        self.received = False
        """The whole body is here."""
        self.started = False
        self.refusal: RunyardError | None = None
        self.response_complete = False
        self.disconnected = False
        self._body: bytes | bytearray = b""
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
        return _parameters(self.query_string) if self.query_string else {}

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
        if len(self._body) + len(chunk) > self.route.body_bytes_max:
            self._refuse_size()
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
        """Call once the request is answered or its connection is gone, whichever comes first."""
        if self.disconnected:
            call()
        else:
            self._on_end = call

    def hold(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` after `seconds` unless the request is answered or abandoned before; a later hold replaces it."""
        self._end_hold()
        self._then = then
        self._timer = self.protocol.loop.call_later(seconds, then)

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

    def fail(self, error: BaseException) -> None:
        """Answer with an error; anything that is not ours is a defect and becomes a 500."""
        if self.response_complete or self._early is not None:
            log.error("a request failed after its answer", exc_info=error)
            return
        if not isinstance(error, RunyardError):
            log.error("a request failed", exc_info=error)
            self.respond(500, error_body("internal error; the platform's log has the details"))
            return
        headers = b""
        if isinstance(error, MethodNotAllowed):
            headers = f"allow: {', '.join(error.allow)}\r\n".encode()
        elif error.status == 503:
            headers = b"retry-after: 1\r\n"
        self.respond(error.status, error_body(error.message), headers)

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
        self.refusal = TooLarge(
            f"the body is larger than {self.route.body_bytes_max} bytes, the limit of this operation"
        )
        if self.route.too_large is not None:
            self.route.too_large(self, self.refusal.message)

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
