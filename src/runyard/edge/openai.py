"""`/v2/{endpoint_id}/openai/...` for OpenAI clients (F178): each request is a job, answered while its client waits.

1. Path and body become the input, as workers such as worker-vllm know it: `{"openai_route", "openai_input"}`.
2. A body with `"stream": true` is answered with the worker's chunks as they come. Text is passed on as it is, wherever it
   was cut; an object becomes an event. `[DONE]` is added if the worker has not sent it.
3. Everything else is answered with the result. Of a generator that is the first thing it yields.
4. Nobody can come back for the answer, so a client that leaves takes its job with it: it is cancelled. The same happens when
   the server is replaced; what has not begun is answered 503 then, which these clients repeat by themselves.
5. Until there is something to send the status is open, so that an error can still have one of its own; but a client that
   streams hears something after `KEEP_ALIVE_S`, lest a proxy on the way gives up on a worker that is starting.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import msgspec
from msgspec import Raw

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import NotFound
from runyard.domain.job import EndpointId, Job, JobId, JobState
from runyard.domain.payload import Spilled
from runyard.domain.stream import Place
from runyard.domain.terms import RETENTION_WAIT_S_MAX
from runyard.edge import bodies, openai_errors
from runyard.edge.events import ANSWER_S_MAX, HEADERS, KEEP_ALIVE, KEEP_ALIVE_S, PAGE_BYTES_MAX, event
from runyard.edge.exchange import Exchange
from runyard.edge.openai_errors import Problem, error_body, problem
from runyard.edge.watch import Watch
from runyard.services.jobs import Jobs, Request
from runyard.services.spill import Spills
from runyard.wire.openai import AskedBody

__all__ = ["OpenAI", "error_body"]

OUTPUT_BYTES_MAX = 32 << 20
"""Of a result, in one answer: it is looked into, and so it is held in memory."""
DONE = b"data: [DONE]\n\n"
_BORDERS = (b"\n\n", b"\r\n\r\n")
_asked = msgspec.json.Decoder(AskedBody)
_text = msgspec.json.Decoder(str)
_items = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])


class OpenAI:
    """Answers OpenAI clients."""

    def __init__(self, jobs: Jobs, spills: Spills) -> None:
        self._jobs = jobs
        self._spills = spills

    async def answer(self, x: Exchange, endpoint: Endpoint) -> None:
        streams, input = _input(x)
        call = _Call(x, self._jobs, self._spills, endpoint.id, self._jobs.new_id(sync=True))
        await self._jobs.submit(endpoint, Request(input=input, sync_wait_s=RETENTION_WAIT_S_MAX), call.job_id)
        del input
        x.drop_body()
        try:
            await (call.stream() if streams else call.whole())
        except NotFound as error:
            call.refuse(problem(504, error.message, "job_expired"))
        finally:
            await call.leave()


class _Call:
    """One request, and the job that it has become."""

    def __init__(self, x: Exchange, jobs: Jobs, spills: Spills, endpoint_id: EndpointId, job_id: JobId) -> None:
        self._x = x
        self._jobs = jobs
        self._spills = spills
        self._endpoint_id = endpoint_id
        self.job_id = job_id
        self._ended = False
        self._place = Place()
        self._relay = Relay()
        self._id = b"x-request-id: %b\r\n" % job_id.encode()
        self._since = x.protocol.loop.time()
        self._watch = Watch(x, partial(jobs.on_change, job_id), ends_after_s=ANSWER_S_MAX)

    async def whole(self) -> None:
        """Answer with the result."""
        while await self._watch.room():
            job = await self._jobs.get(self._endpoint_id, self.job_id)
            if job.terminal:
                self._ended = True
                await self._respond(job)
                return
            await self._watch.news(KEEP_ALIVE_S)
        self.refuse(self._cut_off())

    async def _respond(self, job: Job) -> None:
        if job.state is not JobState.COMPLETED:
            self.refuse(openai_errors.of_job(job))
            return
        output = await self._output(job)
        if self._x.response_complete:
            return
        result = _first(output)
        if result is None:
            page = await self._jobs.read_stream(self._endpoint_id, self.job_id, Place(), 1)
            result = page.chunks[0] if page.chunks else b"null"
        if (told := openai_errors.in_result(result)) is not None:
            self.refuse(told)
        else:
            self._x.respond(200, result, self._id)

    async def stream(self) -> None:
        """Answer with chunks as they come."""
        while await self._watch.room():
            page = await self._jobs.read_stream(self._endpoint_id, self.job_id, self._place, PAGE_BYTES_MAX)
            if page.anew and self._relay.began:
                self.refuse(problem(500, "the worker was lost amid its answer; send the request again", "worker_lost"))
                return
            self._place = page.ends_at
            if page.chunks:
                if not self._pass_on(page.chunks):
                    return
                await asyncio.sleep(0)  # A client that keeps up must not keep all others waiting.
            elif page.job.terminal:
                self._ended = True
                await self._end(page.job)
                return
            elif not await self._watch.news(KEEP_ALIVE_S):
                self._send(KEEP_ALIVE)
        self.refuse(self._cut_off())

    def _pass_on(self, chunks: list[bytes]) -> bool:
        """False when the first of all chunks is an error, and the answer with it."""
        told = None if self._relay.began else openai_errors.in_result(chunks[0])
        if told is not None:
            self.refuse(told)
            return False
        self._send(b"".join(map(self._relay.events, chunks)))
        return True

    async def _output(self, job: Job) -> bytes | None:
        """The output, if it is small enough to be looked into; else the request is refused."""
        output = job.output
        if not isinstance(output, Spilled):
            return output
        if output.size <= OUTPUT_BYTES_MAX:
            return await self._spills.load(output)
        where = f"/v2/{self._endpoint_id}/requests/{self.job_id}"
        self.refuse(problem(500, f"the result has {output.size} bytes, too many here; GET {where}", "result_too_large"))
        return None

    async def _end(self, job: Job) -> None:
        if job.state is not JobState.COMPLETED:
            self.refuse(openai_errors.of_job(job))
            return
        output = None if self._relay.began else await self._output(job)
        if self._x.response_complete:
            return
        if output is None or self._pass_on([output]):
            self._send(self._relay.end())
            self._x.end()

    def _send(self, text: bytes) -> None:
        if not self._x.response_started:
            self._x.begin(200, HEADERS + self._id, self._watch.wake)
        self._x.send(text)

    def refuse(self, told: Problem) -> None:
        """Answer with an error, or end with it what has begun."""
        if self._x.response_started:
            self._x.send(self._relay.border() + event(told.body))
            self._x.end()
        else:
            self._x.respond(told.status, told.body, told.headers + self._id)

    def _cut_off(self) -> Problem:
        """The answer has to end, though the job has not. Nobody hears this when it is the client who has left."""
        if self._x.protocol.loop.time() - self._since < ANSWER_S_MAX:
            return problem(503, "the platform is being restarted or stopped; send the request again", "stopping")
        return problem(504, f"there was no answer within {ANSWER_S_MAX:g} seconds", "timeout")

    async def leave(self) -> None:
        """Nobody waits for the job any more."""
        if not self._ended:
            with suppress(NotFound):
                await self._jobs.cancel(self._endpoint_id, self.job_id)


class Relay:
    """Makes the text of a streamed answer from a worker's chunks."""

    def __init__(self) -> None:
        self.began = False
        self._tail = b""
        """The end of the text so far."""

    def events(self, chunk: bytes) -> bytes:
        """A chunk's text: a string's own, an event for anything else, and those of a list one after the other."""
        text = self._text(chunk)
        self.began = self.began or bool(text)
        self._tail = (self._tail + text[-len(DONE) :])[-len(DONE) :]
        return text

    def _text(self, chunk: bytes) -> bytes:
        if chunk.startswith(b"["):
            return b"".join(_event_or_text(bytes(item)) for item in _items.decode(chunk))
        return _event_or_text(chunk)

    def border(self) -> bytes:
        """What makes the next line begin an event."""
        return b"" if not self._tail or self._tail.endswith(_BORDERS) else b"\n\n"

    def end(self) -> bytes:
        """What the worker has left out."""
        if self._tail.rstrip().endswith(b"[DONE]"):
            return self.border()
        return self.border() + DONE


def _input(x: Exchange) -> tuple[bool, bytes]:
    """Whether a stream is wanted, and the job's input."""
    route = bodies.encode(x.args[1])
    if x.method == b"GET":
        return False, b'{"openai_route":%b}' % route
    asked = bodies.checked(_asked, x.body)
    return asked.stream is True, b'{"openai_route":%b,"openai_input":%b}' % (route, x.body)


def _event_or_text(value: bytes) -> bytes:
    if value.startswith(b'"'):
        return _text.decode(value).encode()
    return b"" if value == b"null" else event(value)


def _first(output: bytes | None) -> bytes | None:
    """The result of a handler, or the first thing that a generator yielded. An object that was made text is one again."""
    if output is not None and output.startswith(b"["):
        items = _items.decode(output)
        output = bytes(items[0]) if items else None
    if output is None or not output.startswith(b'"'):
        return output
    text = _text.decode(output).encode()
    try:
        _object.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return output
    return text
