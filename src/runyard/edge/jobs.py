"""The data plane: `/v2/{endpoint_id}/{operation}` of queue endpoints (contract A.5)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

from runyard.domain.account import ApiKey
from runyard.domain.endpoint import RESERVED_IDS, Endpoint
from runyard.domain.errors import BadRequest, NotFound, RunyardError, TooBusy
from runyard.domain.fleet import QueueReason
from runyard.domain.idempotency import check_key, job_id_of
from runyard.domain.job import EndpointId, Job, JobId, JobState, WorkerId
from runyard.domain.payload import Spilled
from runyard.domain.worker import WorkerState
from runyard.edge import bodies, events, openai, outflow
from runyard.edge.exchange import Exchange
from runyard.edge.paths import Paths
from runyard.edge.routes import Route
from runyard.ports.stores import JobQuery
from runyard.services.jobs import Jobs, Request
from runyard.services.limits import RateLimits
from runyard.services.spill import Spills
from runyard.wire.jobs import HealthBody, HealthJobs, HealthWorkers

WAIT_DEFAULT_S = 90.0
WAIT_MIN_S = 1.0
WAIT_MAX_S = 300.0
STREAM_HOLD_S = 8.0
"""How long `/stream` waits for a chunk: the official client gives up after 10 s."""
STATUS_SYNC_HOLD_S = 90.0
EARLY_HEAD_S = 1.0
"""When the head of a `/runsync` answer goes out ahead of the answer, with the job's id."""
TTL_MIN_S = 1.0
LIST_LIMIT_MAX = 1000


class EndpointBook(Protocol):
    """Finds endpoints by id. `get` raises `NotFound`."""

    def get(self, endpoint_id: EndpointId) -> Endpoint: ...


class FleetFacts(Protocol):
    """What the data plane shows of the fleet."""

    def queue_reason(self, endpoint_id: EndpointId) -> QueueReason | None: ...

    def worker_states(self, endpoint_id: EndpointId) -> Mapping[WorkerState, int]:
        """How many workers are in each state."""
        ...


class Keys(Protocol):
    """Knows API keys. `authenticate` raises `Unauthorized`."""

    @property
    def version(self) -> int:
        """Changes whenever a key ends."""
        ...

    def authenticate(self, header: bytes | None) -> ApiKey: ...


Handler = Callable[[Exchange, Endpoint], Coroutine[Any, Any, None]]
Answer = Callable[[Exchange, JobId, bool], Coroutine[Any, Any, None]]
"""Answers if it can; its last argument says that there is no more time to wait."""
Begin = Callable[[Exchange, JobId], Coroutine[Any, Any, None]]
"""Sends the head of an answer that is to follow."""
_EARLY_HEADERS = b"content-type: application/json\r\nx-runyard-job-id: %b\r\n"


class JobRoutes:
    """The hot routes of the user port."""

    def __init__(
        self,
        jobs: Jobs,
        endpoints: EndpointBook,
        fleet: FleetFacts,
        keys: Keys,
        *,
        limits: RateLimits,
        run_bytes_max: int,
        runsync_bytes_max: int,
        spills: Spills,
    ) -> None:
        self._jobs = jobs
        self._endpoints = endpoints
        self._fleet = fleet
        self._keys = keys
        self._limits = limits
        self._spills = spills
        self._events = events.StreamEvents(jobs)
        self._begun: dict[Exchange, Job] = {}
        """Answers of which the head is out and no more, with the job as it was then."""
        of_openai = self._of_endpoint(openai.OpenAI(jobs, spills).answer)
        get, post = frozenset({b"GET"}), frozenset({b"POST"})

        def route(
            handler: Handler, methods: frozenset[bytes], limit: str = "", body_bytes_max: int = 64 * 1024
        ) -> Route:
            """`limit` names the operation whose limit counts."""
            # Without limits nothing of them is on a request's way.
            admit = self._admit_within(limit) if limits.covers(limit) else self._admit
            return Route(self._of_endpoint(handler), methods, body_bytes_max, admit=admit)

        plain = {
            "run": route(self._run, post, "run", run_bytes_max),
            "runsync": route(self._runsync, post, "runsync", runsync_bytes_max),
            "purge-queue": route(self._purge, post, "purge-queue"),
            "health": route(self._health, get),
            "requests": route(self._list, get),
        }
        with_job = {
            "status": route(self._status, get | post, "status"),
            "status-sync": route(self._status_sync, get | post, "status"),
            "stream": route(self._stream, get | post, "stream"),
            "cancel": route(self._cancel, post, "cancel"),
            "retry": route(self._retry, post),
            "requests": route(self._request, get),
        }
        with_path = {
            "openai": Route(
                of_openai,
                get | post,
                runsync_bytes_max,
                admit=self._admit_within("openai") if limits.covers("openai") else self._admit,
                error_body=openai.error_body,
            ),
        }
        self.paths = Paths(plain, with_job, names=1, reserved=RESERVED_IDS, with_path=with_path)

    def _admit(self, x: Exchange) -> ApiKey:
        protocol = x.protocol
        proven = (self._keys.version, x.head.authorization)
        if protocol.proven != proven:
            protocol.caller = self._keys.authenticate(x.head.authorization)
            protocol.proven = proven
        return protocol.caller

    def _admit_within(self, limit: str) -> Callable[[Exchange], ApiKey]:
        """As `_admit`, for as many requests as the caller may send, and have open, to this endpoint."""

        def admit(x: Exchange) -> ApiKey:
            key = self._admit(x)
            # Endpoints that do not exist must not fill the counters.
            endpoint = self._endpoints.get(EndpointId(x.args[0]))
            x.on_end(self._limits.enter(key.id, endpoint.id, limit, x.protocol.loop.time()))
            return key

        return admit

    def _of_endpoint(self, handler: Handler) -> Callable[[Exchange], Coroutine[Any, Any, None]]:
        return lambda x: handler(x, self._endpoints.get(EndpointId(x.args[0])))

    async def _run(self, x: Exchange, endpoint: Endpoint) -> None:
        request = bodies.parse_request(x.body, None)
        named = _name(x, request)
        if named is None:
            job, known = await self._jobs.submit(endpoint, request, self._jobs.new_id(sync=False)), False
        else:
            job, known = await self._jobs.submit_once(endpoint, request, named)
        x.respond(200, bodies.state_body(job) if known else bodies.accepted_body(job))

    async def _runsync(self, x: Exchange, endpoint: Endpoint) -> None:
        wait_s = _wait(x, WAIT_DEFAULT_S)
        request = bodies.parse_request(x.body, wait_s)
        named = _name(x, request)
        job_id = self._jobs.new_id(sync=True) if named is None else named
        if named is None and not self._jobs.takes_a_moment(request):
            # Held before it is submitted: it cannot end unnoticed in between.
            self._hold(x, job_id, wait_s, self._answer_when_ended, self._begin_answer)
            await self._jobs.submit(endpoint, request, job_id, x.fail)
            return
        # Held after that, and looked at once: until then it is not there, or the job of this name may be another client's.
        if named is None:
            await self._jobs.submit(endpoint, request, job_id)
        else:
            await self._jobs.submit_once(endpoint, request, named)
        x.drop_body()
        self._hold(x, job_id, wait_s, self._answer_when_ended, self._begin_answer)()

    async def _status(self, x: Exchange, endpoint: Endpoint) -> None:
        ttl = x.query().get("ttl")
        if ttl is not None:
            ttl_s = max(TTL_MIN_S, bodies.milliseconds(ttl, "ttl"))
            job = await self._jobs.expire_in(endpoint.id, JobId(x.args[1]), ttl_s)
        else:
            job = await self._jobs.get(endpoint.id, JobId(x.args[1]))
        await self._show(x, job, bodies.job_body(job, self._reason(job), echo_input=True))

    async def _status_sync(self, x: Exchange, endpoint: Endpoint) -> None:
        job = await self._jobs.get(endpoint.id, JobId(x.args[1]))
        self._hold(x, job.id, _wait(x, STATUS_SYNC_HOLD_S), self._answer_when_ended)()

    async def _stream(self, x: Exchange, endpoint: Endpoint) -> None:
        if events.wanted(x):
            await self._events.answer(x, endpoint)
            return
        job = await self._jobs.get(endpoint.id, JobId(x.args[1]))
        self._hold(x, job.id, _wait(x, STREAM_HOLD_S), self._answer_with_chunks)()

    async def _cancel(self, x: Exchange, endpoint: Endpoint) -> None:
        x.respond(200, bodies.state_body(await self._jobs.cancel(endpoint.id, JobId(x.args[1]))))

    async def _retry(self, x: Exchange, endpoint: Endpoint) -> None:
        job = await self._jobs.retry(endpoint.id, JobId(x.args[1]))
        x.respond(200, bodies.accepted_body(job))

    async def _purge(self, x: Exchange, endpoint: Endpoint) -> None:
        removed = await self._jobs.purge(endpoint.id)
        x.respond(200, b'{"removed":%d,"status":"completed"}' % removed)

    async def _health(self, x: Exchange, endpoint: Endpoint) -> None:
        counts = await self._jobs.counts(endpoint.id)
        jobs = HealthJobs(
            completed=counts.completed,
            failed=counts.failed + counts.timed_out,
            inProgress=counts.in_progress,
            inQueue=counts.in_queue,
            retried=counts.retried,
        )
        x.respond(
            200, bodies.encode(HealthBody(jobs=jobs, workers=_health_workers(self._fleet.worker_states(endpoint.id))))
        )

    async def _list(self, x: Exchange, endpoint: Endpoint) -> None:
        page = await self._jobs.list(endpoint.id, _query(x.query()))
        x.respond(200, bodies.list_body(page.jobs, page.next))

    async def _request(self, x: Exchange, endpoint: Endpoint) -> None:
        job = await self._with_input(await self._jobs.get_kept(endpoint.id, JobId(x.args[1])))
        await self._show(x, job, bodies.detail_body(job, self._reason(job)))

    async def _with_input(self, job: Job) -> Job:
        """In memory. Where it is lost the rest is shown, which may say so."""
        if isinstance(job.input, Spilled):
            with suppress(NotFound):
                return job._replace(input=await self._spills.load(job.input))
        return job

    # Held answers

    def _hold(
        self, x: Exchange, job_id: JobId, seconds: float, answer: Answer, begin: Begin | None = None
    ) -> Callable[[], None]:
        """Call `answer` whenever the job changes, and a last time after `seconds`; `begin` before, when that takes long.
        Returns what calls `answer` now.
        """

        def check() -> None:
            if not x.response_complete and (not x.response_started or x in self._begun):
                x.run(answer(x, job_id, False))

        def over() -> None:
            if not x.response_started or x in self._begun:
                x.run(answer(x, job_id, True))

        x.on_end(self._jobs.on_change(job_id, check))
        midway = None if begin is None else lambda: x.run(begin(x, job_id))
        x.hold(seconds, over, midway, EARLY_HEAD_S)
        return check

    async def _begin_answer(self, x: Exchange, job_id: JobId) -> None:
        """Send the head, so that a client whose wait breaks can find its job. It is kept by then, as `get` sees to.

        Not to HTTP/1.0 clients: without chunks they could not tell an answer that breaks off from a whole one.
        """
        try:
            job = await self._jobs.get(EndpointId(x.args[0]), job_id)
        except NotFound:
            return  # It could not be kept, or is gone: that is being said elsewhere.
        if x.head.http10 or x.response_started or not x.open_for_answer:
            return
        x.on_end(lambda: self._begun.pop(x, None))
        self._begun[x] = job
        x.begin(200, _EARLY_HEADERS % job.id.encode(), lambda: None)

    async def _answer_when_ended(self, x: Exchange, job_id: JobId, last: bool) -> None:
        if x.response_started:
            await self._end_answer(x, job_id, last)
            return
        job = await self._jobs.get(EndpointId(x.args[0]), job_id)
        if job.terminal or self._stops() or last:
            body = bodies.job_body(job, self._reason(job))
            if isinstance(job.output, Spilled):
                await outflow.respond(x, self._spills, job.output, body)
            else:
                x.respond(200, body)

    async def _end_answer(self, x: Exchange, job_id: JobId, last: bool) -> None:
        """As `_answer_when_ended`, where the head is out already and an error can only be told in the body."""
        try:
            job = await self._jobs.get(EndpointId(x.args[0]), job_id)
            if not (job.terminal or self._stops() or last):
                return
        except RunyardError as error:
            self._end_with(x, self._begun.pop(x, None), error)
            return
        begun = self._begun.pop(x, None)
        if begun is None:
            return  # It is being answered.
        body = bodies.job_body(job, self._reason(job))
        if not isinstance(job.output, Spilled):
            x.end(body)
            return
        try:
            reading = await self._spills.open(job.output)
        except RunyardError as error:
            self._end_with(x, begun, error)
            return
        await outflow.end(x, reading, body)

    def _end_with(self, x: Exchange, begun: Job | None, error: RunyardError) -> None:
        """The job as it was last seen, and what has happened to it since."""
        if begun is not None:
            x.end(bodies.job_body(begun._replace(error=error.message)))

    def _stops(self) -> bool:
        """Whether who waits is answered now, since the platform stops. Raises `TooBusy` when the job ends with it."""
        if self._jobs.closing and not self._jobs.outlive_process:
            raise TooBusy("the platform is stopping and the job ends with it; send it again when the platform is back")
        return self._jobs.closing

    async def _show(self, x: Exchange, job: Job, body: bytes) -> None:
        if isinstance(job.output, Spilled):
            await outflow.respond(x, self._spills, job.output, body)
        else:
            x.respond(200, body)

    async def _answer_with_chunks(self, x: Exchange, job_id: JobId, last: bool) -> None:
        if not x.open_for_answer:
            return  # Whoever asks next gets the chunks.
        job, chunks = await self._jobs.stream(EndpointId(x.args[0]), job_id)
        if chunks or job.terminal or last:
            x.respond(200, bodies.stream_body(job, chunks, self._reason(job)))

    def _reason(self, job: Job) -> QueueReason | None:
        return self._fleet.queue_reason(job.endpoint_id) if job.state is JobState.IN_QUEUE else None


def _name(x: Exchange, request: Request) -> JobId | None:
    """The id of a job that its client has named. Raises `BadRequest`."""
    key = x.head.idempotency_key
    if key is None:
        return request.chosen_id
    if request.chosen_id is not None:
        raise BadRequest("send either the header Idempotency-Key or runyard.id, not both: each names the job")
    return job_id_of(EndpointId(x.args[0]), check_key(key))


def _health_workers(states: Mapping[WorkerState, int]) -> HealthWorkers:
    idle, running = states.get(WorkerState.IDLE, 0), states.get(WorkerState.RUNNING, 0)
    return HealthWorkers(
        idle=idle,
        initializing=states.get(WorkerState.INITIALIZING, 0),
        ready=idle + running,
        running=running,
        throttled=states.get(WorkerState.THROTTLED, 0),
        unhealthy=states.get(WorkerState.UNHEALTHY, 0),
    )


def _wait(x: Exchange, default_s: float) -> float:
    """`wait` in seconds, clamped to 1-300 (K45)."""
    if not x.query_string or (value := x.query().get("wait")) is None:
        return default_s
    return min(max(bodies.milliseconds(value, "wait"), WAIT_MIN_S), WAIT_MAX_S)


def _query(params: Mapping[str, str]) -> JobQuery:
    """`states` (comma-separated), `workerId`, `limit` (1-1000) and `after` (a page's `next`)."""
    if unknown := params.keys() - {"states", "workerId", "limit", "after"}:
        raise BadRequest(
            f"unknown query parameters: {', '.join(sorted(unknown))}; there are states, workerId, limit, after"
        )
    try:
        states = frozenset(JobState(name) for name in params.get("states", "").split(",") if name)
    except ValueError as error:
        raise BadRequest(f"states must be of {', '.join(JobState)}: {error}") from error
    limit, after = params.get("limit", "50"), params.get("after")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= LIST_LIMIT_MAX):
        raise BadRequest(f"limit must be 1 to {LIST_LIMIT_MAX}, not {limit[:40]!r}")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 16):
        raise BadRequest("after must be the `next` of an earlier page")
    worker_id = params.get("workerId")
    return JobQuery(
        states=states, worker_id=None if worker_id is None else WorkerId(worker_id), limit=int(limit), after=after
    )
