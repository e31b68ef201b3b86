"""The life of a job.

A job is one request to a queue endpoint. It waits, is leased to a worker, and ends once:

              submit
                v        cancel, purge
            IN_QUEUE ------------------> CANCELLED
             |    ^  ^                       ^
       take  |    |  `--- retry ---.         | cancel
             v    | worker lost    |         |
          IN_PROGRESS -------------|---------'
           |    |    |             |
           |    |    `- time out -> TIMED_OUT
           |    `------ error ----> FAILED <---- input lost ---- IN_QUEUE
           `----------- output ---> COMPLETED

The first terminal state wins: whatever arrives later changes nothing (decision 12). A `Lease` is the right to report:
only the worker that holds it can finish the job. A job never returns to a worker that has already lost it (it is
*fenced* from that worker), so a late report can be told from a fresh one without tokens on the wire. `retry` opens a new
run, with its own attempts.

Payloads are opaque bytes of JSON, exactly as they came (decision 10). Every time is Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, NewType

from runyard.domain.attempt import (
    DEFAULT_LIMITS,
    EXCUSED,
    EXCUSED_MAX,
    NO_EVIDENCE,
    Attempt,
    AttemptLimits,
    Cause,
    Evidence,
    WorkerId,
    deaths,
    remembered,
)
from runyard.domain.errors import BadRequest, InvalidTransition, Quarantined
from runyard.domain.payload import Payload
from runyard.domain.terms import ALL, QUEUE, RETENTION_S, TTL_S, TTL_S_MAX, TTL_S_MIN, TtlScope

EndpointId = NewType("EndpointId", str)
JobId = NewType("JobId", str)

EXECUTION_TIMEOUT_DEFAULT = timedelta(minutes=10)
EXECUTION_TIMEOUT_MIN = timedelta(seconds=5)
POLICY_MAX = timedelta(days=7)


class JobState(StrEnum):
    """The states a client can see (contract A.6)."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    # An enum's own hash is a Python function, called for each look-up in the tables below.
    __hash__ = str.__hash__


# An enum's attribute costs 0.1 us on Python 3.11, and every job's way passes a dozen of them.
IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, TIMED_OUT = JobState

TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED, TIMED_OUT})
RETRYABLE = frozenset({FAILED, TIMED_OUT})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    IN_QUEUE: frozenset({IN_PROGRESS, CANCELLED, FAILED}),
    IN_PROGRESS: frozenset({*TERMINAL, IN_QUEUE}),
    COMPLETED: frozenset(),
    FAILED: frozenset({IN_QUEUE}),
    CANCELLED: frozenset(),
    TIMED_OUT: frozenset({IN_QUEUE}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPolicy:
    """Limits of one job, as its client has sent them (contract A.3): time while running, total life, and whether it may
    cause a worker to start. None: what holds for its endpoint.
    """

    execution_timeout: timedelta | None = None
    ttl: timedelta | None = None
    low_priority: bool = False

    def __post_init__(self) -> None:
        if self.execution_timeout is not None:
            check_execution_timeout(self.execution_timeout, "policy.executionTimeout")
        if self.ttl is not None and not TTL_S_MIN <= self.ttl.total_seconds() <= TTL_S_MAX:
            raise BadRequest(f"policy.ttl must be 10000 to 604800000 milliseconds, not {_ms(self.ttl)}")


DEFAULT_POLICY = ExecutionPolicy()
NOT_FENCED: frozenset[WorkerId] = frozenset()
"""One for all: an empty set takes 216 bytes."""


def check_execution_timeout(value: timedelta, field: str) -> None:
    """Between 5 seconds and 7 days (contract A.3, C.1)."""
    if not EXECUTION_TIMEOUT_MIN <= value <= POLICY_MAX:
        raise BadRequest(f"{field} must be 5000 to 604800000 milliseconds, not {_ms(value)}")


class Lease(NamedTuple):
    """The right of one worker to report on a job, from `taken_at` on."""

    worker_id: WorkerId
    taken_at: float


class Job(NamedTuple):
    """One request and what became of it. Every change returns a new `Job` or raises `InvalidTransition`.

    A named tuple, where other values are frozen dataclasses: as immutable, and made and changed in a quarter of the time.
    Every job is made once and changed twice on its way.
    """

    id: JobId
    endpoint_id: EndpointId
    input: Payload
    created_at: float
    queued_at: float
    execution_timeout_s: float
    expires_at: float
    """When the job and all about it is deleted, see `has_expired`: submission + ttl, and once ended at most end + retention.
    """
    policy: ExecutionPolicy = DEFAULT_POLICY
    webhook: str | None = None
    s3_config: bytes | None = None
    retention_s: float = RETENTION_S
    """Seconds after its end that it expires."""
    ttl_s: float = TTL_S
    """Seconds that it may live from its submission, or `retry`, on."""
    ttl_scope: TtlScope = ALL
    fingerprint: bytes | None = None
    """Of what was asked, for a job that its client has named (see `domain/idempotency.py`)."""

    run: int = 1
    fenced_from: frozenset[WorkerId] = NOT_FENCED
    """Workers that may still send a late report of an earlier attempt, and so never get this job again."""
    attempts_lost: int = 0
    """How often it lost its worker, in this run (F034)."""
    attempts_excused: int = 0
    """How many of these were not its own doing, and so do not count."""
    attempts: tuple[Attempt, ...] = ()
    """Those that gave no result, oldest first, of earlier runs too."""
    quarantined: bool = False
    """It is FAILED, and has killed so many workers that it runs again only if somebody insists."""

    # From here on: what every step changes (see `_move`).
    state: JobState = IN_QUEUE
    lease: Lease | None = None
    """Who has, or in a terminal state last had, the job."""
    finished_at: float | None = None
    output: Payload | None = None
    """JSON: the result, or while running the latest progress update."""
    error: str | None = None

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def delay_s(self) -> float | None:
        """Seconds between the last time it was queued and its pick-up; None while it waits (F031, K47)."""
        return None if self.lease is None else max(0.0, self.lease.taken_at - self.queued_at)

    @property
    def execution_s(self) -> float | None:
        """Seconds between pick-up and end; None until it has ended, or when it never ran (F031)."""
        if self.lease is None or self.finished_at is None:
            return None
        return max(0.0, self.finished_at - self.lease.taken_at)

    @property
    def due_at(self) -> float:
        """When the clock next forces a change: the execution timeout while running, else expiry."""
        if self.state is IN_PROGRESS and self.lease is not None:
            timeout_at = self.lease.taken_at + self.execution_timeout_s
            return timeout_at if self.ttl_scope is QUEUE else min(self.expires_at, timeout_at)
        return self.expires_at

    def has_expired(self, now: float) -> bool:
        """Whether its time is over: it is deleted, and nobody is shown it any more."""
        return self.expires_at <= now and (self.state is not IN_PROGRESS or self.ttl_scope is not QUEUE)

    def held_by(self, worker_id: WorkerId) -> bool:
        """Whether a report of this worker still counts."""
        return self.state is IN_PROGRESS and self.lease is not None and self.lease.worker_id == worker_id

    def take(self, worker_id: WorkerId, now: float) -> Job:
        """The job leased to this worker."""
        self._must_allow(IN_PROGRESS)
        return self._move(IN_PROGRESS, Lease(worker_id, now))

    def give_back(self) -> Job:
        """Undo a take whose answer never reached the worker: as if it had not happened."""
        self._must_run()
        return self._replace(state=IN_QUEUE, lease=None)

    def lose_worker(
        self, now: float, reason: str, evidence: Evidence = NO_EVIDENCE, limits: AttemptLimits = DEFAULT_LIMITS
    ) -> Job:
        """Its worker is gone: back to the queue, or FAILED with `reason` when every attempt is used up.

        What was not the job's doing uses up no attempt. A job that has killed several workers is quarantined.
        """
        self._must_run()
        counted = evidence.cause not in EXCUSED or self.attempts_excused >= EXCUSED_MAX
        lost = self._replace(
            attempts_lost=self.attempts_lost + 1,
            attempts_excused=self.attempts_excused + (not counted),
            attempts=self._tried(now, reason, evidence, counted=counted),
            fenced_from=self._fence(),
        )
        used, killed = lost.attempts_lost - lost.attempts_excused, deaths(lost.attempts, lost.run)
        last, dangerous = used >= limits.attempts_max, limits.quarantines(killed)
        if counted and (last or dangerous):
            error = f"{reason} (attempt {used} of {limits.attempts_max}{'; no attempt is left' if last else ''})"
            if dangerous:
                error += f"; quarantined: {killed} workers died with this job in hand"
            return lost._replace(quarantined=dangerous)._end(FAILED, now, error=error)
        return lost._replace(state=IN_QUEUE, lease=None, queued_at=now, output=None)

    def progress(self, value: Payload) -> Job:
        """The latest progress update, readable as `output` while the job runs (F035)."""
        self._must_run()
        return self._replace(output=value)

    def complete(self, output: Payload | None, now: float) -> Job:
        """Ended well; `output` is None when the worker sent none (an empty dict does that)."""
        return self._end(COMPLETED, now, output)

    def fail(self, error: str, output: Payload | None, now: float) -> Job:
        """Ended with an error of the handler, or of the platform on its behalf; waiting, because its input is lost."""
        return self._end(FAILED, now, output, error)

    def time_out(self, now: float, last_lines: tuple[str, ...] = ()) -> Job:
        """Ran longer than its execution timeout (K4). `last_lines` is what its worker said last."""
        self._must_allow(TIMED_OUT)
        error = f"execution timeout: the job ran longer than {self.execution_timeout_s:g} seconds"
        attempts = self._tried(now, error, Evidence(Cause.TIMED_OUT, last_lines=last_lines), counted=True)
        return self._replace(fenced_from=self._fence(), attempts=attempts)._end(TIMED_OUT, now, error=error)

    def cancel(self, now: float) -> Job:
        """Stopped by the user, waiting or running (F009)."""
        return self._end(CANCELLED, now)

    def retry(self, now: float, *, force: bool = False) -> Job:
        """Queued again under the same id, in a new run, without its old result (F010). It remembers its attempts.

        A worker that has reported the failure itself may have the job again; else a lone worker could not retry. Raises
        `Quarantined`, unless `force`.
        """
        if self.state not in RETRYABLE:
            raise InvalidTransition(f"job {self.id} is {self.state}; only FAILED or TIMED_OUT jobs can be retried")
        if self.quarantined and not force:
            raise Quarantined(
                f"job {self.id} is quarantined: {deaths(self.attempts, self.run)} workers died with it in hand; "
                f"/v2/{self.endpoint_id}/requests/{self.id} shows how. To queue it all the same: runyard retry "
                f"{self.endpoint_id} {self.id} --force, or POST /v2/serverless/{self.endpoint_id}/dead-letters/redrive with "
                f'{{"ids": ["{self.id}"], "force": true}}'
            )
        return self._replace(
            state=IN_QUEUE,
            run=self.run + 1,
            lease=None,
            attempts_lost=0,
            attempts_excused=0,
            quarantined=False,
            queued_at=now,
            finished_at=None,
            output=None,
            error=None,
            expires_at=now + self.ttl_s,
        )

    def expire_in(self, ttl_s: float, now: float) -> Job:
        """Delete it `ttl_s` from now, as `?ttl=` on status asks (F006, K14), in whatever state it will be."""
        return self._replace(expires_at=now + ttl_s, ttl_scope=ALL)

    def _end(self, state: JobState, now: float, output: Payload | None = None, error: str | None = None) -> Job:
        self._must_allow(state)
        expires_at = now + self.retention_s
        if self.ttl_scope is ALL:
            expires_at = min(self.expires_at, expires_at)
        return self._move(state, self.lease, now, output, error, expires_at=expires_at)

    def _move(
        self,
        state: JobState,
        lease: Lease | None,
        finished_at: float | None = None,
        output: Payload | None = None,
        error: str | None = None,
        *,
        expires_at: float | None = None,
    ) -> Job:
        """The same run, elsewhere. `_replace` goes by name over all fields, which takes twice as long."""
        head = self if expires_at is None else (*self[:_EXPIRES_AT], expires_at, *self[_EXPIRES_AT + 1 :])
        return Job._make((*head[:_STATE], state, lease, finished_at, output, error))

    def _tried(self, now: float, reason: str, evidence: Evidence, *, counted: bool) -> tuple[Attempt, ...]:
        """The history with the attempt that ends now."""
        if self.lease is None:
            return self.attempts
        worker_id, taken_at = self.lease
        return remembered(self.attempts, Attempt(self.run, worker_id, taken_at, now, reason, counted, evidence))

    def _fence(self) -> frozenset[WorkerId]:
        return self.fenced_from if self.lease is None else self.fenced_from | {self.lease.worker_id}

    def _must_run(self) -> None:
        if self.state is not IN_PROGRESS:
            raise InvalidTransition(f"job {self.id} is {self.state} and not running")

    def _must_allow(self, state: JobState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransition(f"job {self.id} is {self.state} and cannot become {state}")


_EXPIRES_AT, _STATE = Job._fields.index("expires_at"), Job._fields.index("state")


def _ms(value: timedelta) -> int:
    return round(value.total_seconds() * 1000)
