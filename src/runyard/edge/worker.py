"""The worker plane: job-take, -done, -stream, -stop and ping (protocol A.2, rows F119-F125).

Its listener serves nothing else. Each route carries the worker's id and is opened by that worker's own secret alone.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from msgspec import UNSET

from runyard.domain.account import digest_of
from runyard.domain.errors import BadRequest, TooBusy, TooLarge, Unauthorized
from runyard.domain.job import Job, JobId, WorkerId
from runyard.domain.payload import Payload
from runyard.edge import bodies
from runyard.edge.exchange import Exchange
from runyard.edge.inflow import RESULT_HOLD_S, Inflow, when_there_is_room
from runyard.edge.paths import Paths
from runyard.edge.routes import Route
from runyard.services.dispatch import Dispatch, end_state
from runyard.services.roster import LiveWorker, Roster
from runyard.services.spill import Spills
from runyard.wire.jobs import WorkerBody

BATCH_MAX = 100
"""Most jobs one batch take gets."""
SDK_VERSION_LENGTH_MAX = 64
STREAM_BYTES_MAX = 256 << 20
"""Largest body with a stream chunk; it is held in memory."""
SOON_S = 0.25
"""Pause before an empty answer to a worker that would otherwise poll again at once."""
STRANGER_PAUSE_S = 1.0
"""Pause before a stranger's poll is refused: stock workers repeat a refused poll without any pause (protocol fact 4)."""

Handler = Callable[[Exchange, LiveWorker], Coroutine[Any, Any, None]]
Answering = Callable[[Exchange], Coroutine[Any, Any, None]]


class WorkerRoutes:
    """The hot routes of the worker port."""

    def __init__(
        self,
        dispatch: Dispatch,
        roster: Roster,
        unhealthy: Callable[[LiveWorker, str], None],
        *,
        poll_hold_s: float,
        result_bytes_max: int,
        result_inline_bytes: int,
        spills: Spills,
    ) -> None:
        self._dispatch = dispatch
        self._roster = roster
        self._unhealthy = unhealthy
        self._poll_hold_s = poll_hold_s
        get, post = frozenset({b"GET"}), frozenset({b"POST"})
        plain = {
            "job-take": Route(self._patiently(partial(self._take, batch=False)), get, admit=_anyone),
            "job-take-batch": Route(self._patiently(partial(self._take, batch=True)), get, admit=_anyone),
            "job-stop": Route(self._patiently(self._stop), get, admit=_anyone),
            "ping": Route(self._patiently(self._ping), get, admit=_anyone),
        }
        with_job = {
            "job-done": Route(
                self._of_worker(self._done),
                post,
                result_bytes_max,
                admit=self._worker,
                too_large=self._lost_to_size,
                ahead=True,
                inflow=lambda x: Inflow(x, spills, x.caller, JobId(x.args[2])),
                inline_bytes_max=result_inline_bytes,
            ),
            "job-stream": Route(
                self._of_worker(self._stream), post, min(result_bytes_max, STREAM_BYTES_MAX), admit=self._worker
            ),
        }
        self.paths = Paths(plain, with_job, names=2, reserved=frozenset())

    def _worker(self, x: Exchange) -> LiveWorker:
        """The worker whose routes these are, if this is it. Raises `Unauthorized`."""
        live = self._roster.get(WorkerId(x.args[1]))
        proven = (live, x.head.authorization)
        if live is not None and live.worker.endpoint_id == x.args[0]:
            if x.protocol.proven == proven:
                return live
            if _opens(live, x.head.authorization):
                x.protocol.proven = proven
                return live
        raise Unauthorized("this worker is not known here, or its secret is not right")

    def _of_worker(self, handler: Handler) -> Answering:
        return lambda x: handler(x, x.caller)

    def _patiently(self, handler: Handler) -> Answering:
        """As `_of_worker`, for polls: a stranger is refused after a pause."""

        async def handle(x: Exchange) -> None:
            try:
                live = self._worker(x)
            except Unauthorized as error:
                refusal = error
                x.hold(STRANGER_PAUSE_S, lambda: x.fail(refusal))
            else:
                await handler(x, live)

        return handle

    async def _take(self, x: Exchange, live: LiveWorker, *, batch: bool) -> None:
        idle = b"job_in_progress=0" in x.query_string
        poll = TakePoll(x, _batch_size(x) if batch else 1, idle=idle, batch=batch)
        await self._dispatch.poll(live, poll)
        if x.response_complete or poll.ending:
            return

        def over() -> None:
            if self._dispatch.leave(live, poll):
                poll.end()

        x.on_end(lambda: self._dispatch.leave(live, poll))
        x.hold(self._poll_hold_s, over)

    async def _done(self, x: Exchange, live: LiveWorker) -> None:
        job_id, inflow = JobId(x.args[2]), x.inflow
        try:
            sent, output = _inline(x) if inflow is None else await inflow.result()
            if sent.status == "IN_PROGRESS":
                if output is not None:
                    await self._dispatch.progress(live, job_id, output)
            else:
                end = end_state(output, bodies.error_of(sent))
                try:
                    await self._dispatch.report(live, job_id, end)
                except TooBusy:
                    await _kept_in_time(x, lambda: self._dispatch.report(live, job_id, end))
                if sent.stopPod:
                    self._dispatch.replace_worker(live, "its handler asked for a fresh worker (refresh_worker)")
        finally:
            if inflow is not None:
                await inflow.close()
        x.respond(200, b"{}")

    def _lost_to_size(self, x: Exchange, message: str) -> None:
        """A stock worker drops a result that is refused; the job must not wait for it, nor be run again in vain."""
        error = f"the result is too large: {message}; store large results elsewhere, or raise result_bytes_max"
        x.run(self._dispatch.report(x.caller, JobId(x.args[2]), end_state(None, error)))

    async def _stream(self, x: Exchange, live: LiveWorker) -> None:
        sent = bodies.parse_worker_body(x.body)
        if sent.output is UNSET:
            raise BadRequest('a stream chunk is {"output": ...}')
        chunks = bodies.split_chunk(bytes(sent.output))
        if chunks is None:
            message = f"a stream chunk of {len(x.body)} bytes was dropped: over 1 MB only strings are split; yield less"
            await self._dispatch.stream(live, JobId(x.args[2]), [bodies.error_body(message)])
            raise TooLarge(message)
        try:
            await self._dispatch.stream(live, JobId(x.args[2]), chunks)
        except TooBusy:
            await _kept_in_time(x, lambda: self._dispatch.stream(live, JobId(x.args[2]), chunks))
        x.respond(200, b"{}")

    async def _stop(self, x: Exchange, live: LiveWorker) -> None:
        poll = StopPoll(x)

        def over() -> None:
            self._dispatch.stop_poll_left(live, poll)
            poll.end()

        x.on_end(lambda: self._dispatch.stop_poll_left(live, poll))
        x.hold(self._poll_hold_s, over)
        self._dispatch.stop_poll(live, poll)

    async def _ping(self, x: Exchange, live: LiveWorker) -> None:
        query = x.query()
        if query.get("status") == "unhealthy":
            self._unhealthy(live, f"{query.get('check', 'a fitness check')}: {query.get('reason', 'no reason given')}")
        else:
            self._dispatch.pinged(live, frozenset(query.get("job_id", "").split(",")))
        if version := query.get("runpod_version"):
            live.worker = live.worker.runs_sdk(version[:SDK_VERSION_LENGTH_MAX])
        x.respond(200, b"{}")


class TakePoll:
    """A worker's open poll for jobs."""

    __slots__ = ("_batch", "_x", "ending", "idle", "limit")

    def __init__(self, x: Exchange, limit: int, *, idle: bool, batch: bool) -> None:
        self._x = x
        self._batch = batch
        self.limit = limit
        self.idle = idle
        self.ending = False
        """It will be answered with nothing in a moment."""

    def give(self, jobs: Sequence[Job]) -> bool:
        return self._x.respond(200, bodies.jobs_for_worker(jobs, as_list=self._batch))

    def end(self, *, soon: bool = False) -> None:
        if soon:
            self.ending = True
            self._x.hold(SOON_S, self.end)
        else:
            self._x.respond(204)


class StopPoll:
    """A worker's open poll of its stop channel."""

    __slots__ = ("_x",)

    def __init__(self, x: Exchange) -> None:
        self._x = x

    def give(self, job_ids: Sequence[JobId]) -> bool:
        return self._x.respond(200, bodies.stop_body(job_ids))

    def end(self) -> None:
        self._x.respond(204)


def _inline(x: Exchange) -> tuple[WorkerBody, Payload | None]:
    """What a body that is held says, and its output."""
    sent = bodies.parse_worker_body(x.body)
    return sent, None if sent.output is UNSET else bytes(sent.output)


async def _kept_in_time(x: Exchange, work: Callable[[], Awaitable[None]]) -> None:
    """Keep a result or chunks, which could not be, as soon as the store can write.

    A stock worker drops a result after three answers of 503 within 5 s (protocol A.2), but waits 300 s for an answer: so
    it waits, unless the server is replaced, and only then is told to come again. If it leaves meanwhile, what it brought
    is kept all the same.
    """
    over = asyncio.Event()
    x.hold(RESULT_HOLD_S, over.set)
    await when_there_is_room(work, x.protocol.loop, over.is_set)


def _anyone(x: Exchange) -> None:
    """Polls have no body to be kept from; who a stranger is, is found when it is its turn to be answered."""


def _opens(live: LiveWorker, authorization: bytes | None) -> bool:
    if authorization is None:
        return False
    secret = authorization.removeprefix(b"Bearer ").decode("latin-1")
    return hmac.compare_digest(digest_of(secret), live.worker.secret_digest)


def _batch_size(x: Exchange) -> int:
    """What the worker asks for, within 1 and 100; a worker that asks for nonsense gets one job."""
    value = x.query().get("batch_size", "")
    return min(max(int(value[:6]), 1), BATCH_MAX) if value.isascii() and value.isdigit() else 1
