"""`/stream` as Server-Sent Events: the same chunks as the documented form, but read by place and never drained.

1. An event is a chunk. Its id is the reader's place behind it, which a client sends back to go on from there, as
   `Last-Event-ID` or `?after=`. Any number of clients read the same chunks.
2. `restart` says that the job begins anew, on another worker or in another run, and that the chunks so far are void.
3. `end` is the last event, once the job has ended and all was sent. It has the job without its output. Whoever comes back
   behind it gets 204, upon which an `EventSource` stays away.
4. An answer that ends without `end` was cut: by a restart of the server, or after `ANSWER_S_MAX`. The client comes back.

What a client does not take stays in the store: of a slow one, at most a page and a chunk lie in memory.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import BadRequest, NotFound
from runyard.domain.job import JobId
from runyard.domain.stream import Place
from runyard.edge import bodies
from runyard.edge.exchange import Exchange
from runyard.edge.watch import Watch
from runyard.services.jobs import Jobs, Page

ANSWER_S_MAX = 3600.0
KEEP_ALIVE_S = 15.0
PAGE_BYTES_MAX = 64 * 1024
HEADERS = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
KEEP_ALIVE = b": nothing new\n\n"
_RETRY = b"retry: 1000\n\n"
"""How soon an `EventSource` comes back; their own default is a few seconds."""
_ID = re.compile(r"(?P<run>\d{1,9})/(?P<worker>[^/]{0,191})/(?P<seen>\d{1,15})(?P<end>/end)?")


def event(data: bytes, *, name: bytes = b"", id: bytes = b"") -> bytes:
    """One event. Line breaks in the data, which in JSON can only be white space, are kept as the format has them."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.splitlines())
    head = (b"event: %b\n" % name if name else b"") + (b"id: %b\n" % id if id else b"")
    return b"%bdata: %b\n\n" % (head, data)


def wanted(x: Exchange) -> bool:
    """Whether the client asks for events."""
    accepted = (x.header(b"accept") or b"").lower().split(b",")
    return any(kind.partition(b";")[0].strip() == b"text/event-stream" for kind in accepted)


class StreamEvents:
    """Answers with the events of a job's stream."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def answer(self, x: Exchange, endpoint: Endpoint) -> None:
        job_id = JobId(x.args[1])
        place, behind_the_end = _asked_for(x)
        job = await self._jobs.get(endpoint.id, job_id)
        if behind_the_end and job.terminal and place.in_attempt_of(job) == place:
            x.respond(204)
            return
        watch = Watch(x, partial(self._jobs.on_change, job_id), ends_after_s=ANSWER_S_MAX)
        if not x.begin(200, HEADERS, watch.wake):
            return
        x.send(_RETRY)
        try:
            await self._send(x, watch, endpoint, job_id, place)
        except NotFound as error:
            x.send(event(bodies.encode({"id": job_id, "error": error.message}), name=b"end"))
        x.end()

    async def _send(self, x: Exchange, watch: Watch, endpoint: Endpoint, job_id: JobId, place: Place) -> None:
        while await watch.room():
            page = await self._jobs.read_stream(endpoint.id, job_id, place, PAGE_BYTES_MAX)
            place = page.ends_at
            if page.anew or page.chunks:
                x.send(_events(page))
                await asyncio.sleep(0)  # A client that keeps up must not keep all others waiting.
            elif page.job.terminal:
                x.send(event(bodies.end_body(page.job), name=b"end", id=b"%b/end" % _id(place)))
                return
            elif not await watch.news(KEEP_ALIVE_S):
                x.send(KEEP_ALIVE)


def _events(page: Page) -> bytes:
    at = page.begins_at
    restart = event(bodies.state_body(page.job), name=b"restart", id=_id(at)) if page.anew else b""
    chunks = (event(chunk, id=_id(at.behind(number))) for number, chunk in enumerate(page.chunks, 1))
    return restart + b"".join(chunks)


def _id(place: Place) -> bytes:
    return b"%d/%b/%d" % (place.run, place.worker_id.encode(), place.seen)


def _asked_for(x: Exchange) -> tuple[Place, bool]:
    """The place to go on from, and whether it lies behind the end. The header counts before the parameter: whoever comes
    back has the one, and still the other.
    """
    last_event_id = x.header(b"last-event-id")
    text = last_event_id.decode("latin-1") if last_event_id else x.query().get("after", "")
    if not text:
        return Place(), False
    match = _ID.fullmatch(text)
    if match is None or not text.isascii():
        raise BadRequest(f"Last-Event-ID, or after, must be the id of an event of this stream, not {text[:40]!r}")
    return Place(int(match["run"]), match["worker"], int(match["seen"])), match["end"] is not None
