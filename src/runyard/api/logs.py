"""Logs as Server-Sent Events: of one worker, as documented (contract E.4, F128, F129), and, our own, of an endpoint.

A stream begins after the `Last-Event-ID`, else at `since`, else `tail` lines back, and then goes on until the client
leaves; `follow=false` ends it at the newest line. A comment is sent while nothing else is, so that proxies keep the
connection and a client that has left is noticed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from runyard.api.replies import encode
from runyard.api.routing import resource
from runyard.api.services import Services
from runyard.domain.errors import NotFound, Unprocessable
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.ports.logs import Cursor, LogLine, LogQuery
from runyard.ports.runtime import LogSource
from runyard.services.logs import SEQ_MAX, TAIL_DEFAULT
from runyard.wire.control import LogEvent
from runyard.wire.times import rfc3339

HEARTBEAT_S = 15.0
TAIL_MAX = 5_000
_HEARTBEAT = b": nothing new\n\n"
_EVENT_ID = re.compile(r"(?P<ts>[^/]+)(/(?P<seq>\d{1,12}))?")
_HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a stream begins: the first of these that is given."""

    after: Cursor | None
    since: float | None
    tail: int


class LogStreams:
    """The routes over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        return [
            resource("/v2/serverless/{id}/logs", GET=self.of_endpoint),
            resource("/v2/serverless/{id}/workers/{worker_id}/logs", GET=self.of_worker),
        ]

    async def of_worker(self, request: Request) -> Response:
        endpoint = self._services.endpoints.get(request.path_params["id"])
        worker_id = WorkerId(request.path_params["worker_id"])
        if not await self._knows(endpoint.id, worker_id):
            raise NotFound(f"endpoint {endpoint.id} has no worker {worker_id!r}, or its log is gone")
        return self._stream(request, LogQuery(endpoint_id=endpoint.id, worker_id=worker_id, source=_source(request)))

    async def of_endpoint(self, request: Request) -> Response:
        """`workerId` and `jobId` narrow it down; an unknown one has no lines."""
        endpoint = self._services.endpoints.get(request.path_params["id"])
        worker_id, job_id = request.query_params.get("workerId"), request.query_params.get("jobId")
        query = LogQuery(
            endpoint_id=endpoint.id,
            worker_id=WorkerId(worker_id) if worker_id else None,
            job_id=JobId(job_id) if job_id else None,
            source=_source(request),
        )
        return self._stream(request, query)

    async def _knows(self, endpoint_id: EndpointId, worker_id: WorkerId) -> bool:
        """A worker that has said nothing yet can be followed; one that has gone can be read."""
        fleet = self._services.fleet
        known = (*fleet.workers(endpoint_id), *fleet.stopped_workers(endpoint_id))
        return any(report.worker.id == worker_id for report in known) or await self._services.logs.knows(
            endpoint_id, worker_id
        )

    def _stream(self, request: Request, query: LogQuery) -> Response:
        events = self._events(query, _start(request), follow=_flag(request, "follow", default=True))
        return StreamingResponse(events, headers=_HEADERS, media_type="text/event-stream")

    async def _events(self, query: LogQuery, start: Start, *, follow: bool) -> AsyncIterator[bytes]:
        logs = self._services.logs
        with logs.follow(query, after=start.after, since=start.since, tail=start.tail) as follower:
            while True:
                while lines := await follower.read():
                    yield b"".join(map(_event, lines))
                if follower.ended or not follow:
                    return
                if not await follower.wait(HEARTBEAT_S):
                    yield _HEARTBEAT


def _event(line: LogLine) -> bytes:
    ts = rfc3339(line.ts)
    data = LogEvent(ts, line.source.value, line.line, line.worker_id, line.job_id or UNSET)
    return b"id: %b/%012d\ndata: %b\n\n" % (ts.encode(), line.seq, encode(data))


def _start(request: Request) -> Start:
    """Raises `Unprocessable` for a value that cannot be read, also one that another would overrule."""
    last_event_id = request.headers.get("last-event-id")
    since = request.query_params.get("since")
    return Start(
        after=_cursor(last_event_id) if last_event_id else None,
        since=_unix_time(since, "since") if since else None,
        tail=_tail(request.query_params.get("tail", str(TAIL_DEFAULT))),
    )


def _cursor(event_id: str) -> Cursor:
    """`<time>/<number>`, or a time alone: then all lines of that millisecond count as seen."""
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        raise _unreadable("Last-Event-ID", "the id of a log event")
    seq = SEQ_MAX if match["seq"] is None else int(match["seq"])
    return Cursor(round(_unix_time(match["ts"], "Last-Event-ID") * 1000), seq)


def _unix_time(text: str, name: str) -> float:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
        return at.timestamp()
    except (ValueError, OverflowError):
        raise _unreadable(name, "an RFC 3339 time such as 2026-06-01T12:00:00Z") from None


def _tail(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(TAIL_MAX)) or int(text) > TAIL_MAX:
        raise _unreadable("tail", f"a whole number from 0 to {TAIL_MAX}")
    return int(text)


def _source(request: Request) -> LogSource | None:
    text = request.query_params.get("source")
    if text is None:
        return None
    try:
        return LogSource(text)
    except ValueError:
        raise _unreadable("source", "container or system") from None


def _flag(request: Request, name: str, *, default: bool) -> bool:
    text = request.query_params.get(name, str(default).lower())
    if text not in ("true", "false"):
        raise _unreadable(name, "true or false")
    return text == "true"


def _unreadable(name: str, expected: str) -> Unprocessable:
    return Unprocessable(f"{name} must be {expected}", (f"{name}: must be {expected}",))
