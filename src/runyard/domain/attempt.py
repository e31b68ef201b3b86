"""How attempts at a job end without a result, what of that is remembered, and when it has been tried often enough.

Every loss of a worker puts the job back at the head of the queue. What differs is whom it is counted against:

    WORKER_DIED     the worker ended by itself with the job in hand      counts, and towards quarantine
    RESULT_LOST     the worker works on nothing and has sent no result   counts
    WORKER_STOPPED  the platform stopped the worker, for its own reasons  does not count
    PLATFORM_DIED   the worker ended together with the platform           does not count
    TIMED_OUT       the job ran too long; that ends it                    counts

What is not the job's doing does not count, but not for ever: a job that takes the whole machine down each time would come
back for as long as it lives. So `EXCUSED_MAX` attempts of a run are excused, and the next ones count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NewType

from runyard.domain.errors import BadRequest

WorkerId = NewType("WorkerId", str)

ATTEMPTS_MAX = 3
ATTEMPTS_MAX_LIMIT = 20
QUARANTINE_AFTER = 3
EXCUSED_MAX = 20
ATTEMPTS_KEPT_MAX = 20
"""Attempts that a job remembers."""
LAST_LINES_MAX = 10
LAST_LINES_BYTES_MAX = 2048
"""Of all last lines of one attempt together, as UTF-8."""
_SIZE = 100
"""About what an attempt takes beside its texts."""


class Cause(StrEnum):
    """How an attempt ended."""

    WORKER_DIED = "worker_died"
    RESULT_LOST = "result_lost"
    WORKER_STOPPED = "worker_stopped"
    PLATFORM_DIED = "platform_died"
    TIMED_OUT = "timed_out"


EXCUSED = frozenset({Cause.WORKER_STOPPED, Cause.PLATFORM_DIED})


class Evidence(NamedTuple):
    """What is known of how an attempt ended. `exit_code` and `signal` are those of a worker whose process has ended."""

    cause: Cause = Cause.RESULT_LOST
    exit_code: int | None = None
    signal: int | None = None
    last_lines: tuple[str, ...] = ()
    """What the worker said last, within the bounds of `bounded`."""


NO_EVIDENCE = Evidence()


class Attempt(NamedTuple):
    """One try of one worker at a job that gave no result. Times are Unix seconds."""

    run: int
    worker_id: WorkerId
    taken_at: float
    ended_at: float
    reason: str
    counted: bool
    """Whether it has used up one of the job's attempts."""
    evidence: Evidence = NO_EVIDENCE

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly."""
        return _SIZE + len(self.reason) + sum(map(len, self.evidence.last_lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLimits:
    """How often a job is tried in one run, and from how many dead workers on it is quarantined.

    Quarantine never comes later than the last attempt, nor before a second worker has died.
    """

    attempts_max: int = ATTEMPTS_MAX
    quarantine_after: int = QUARANTINE_AFTER

    def __post_init__(self) -> None:
        if not 1 <= self.attempts_max <= ATTEMPTS_MAX_LIMIT:
            raise BadRequest(f"attempts_max must be 1 to {ATTEMPTS_MAX_LIMIT}, not {self.attempts_max}")
        if not 2 <= self.quarantine_after <= ATTEMPTS_MAX_LIMIT:
            raise BadRequest(f"quarantine_after must be 2 to {ATTEMPTS_MAX_LIMIT}, not {self.quarantine_after}")

    def quarantines(self, deaths: int) -> bool:
        """Whether a job that has killed so many workers is dangerous."""
        return deaths >= max(2, min(self.quarantine_after, self.attempts_max))


DEFAULT_LIMITS = AttemptLimits()


def remembered(attempts: tuple[Attempt, ...], last: Attempt) -> tuple[Attempt, ...]:
    """The history with one more attempt. When it is full, attempts of earlier runs go first, then those that count for
    nothing, the oldest first.
    """
    if len(attempts) < ATTEMPTS_KEPT_MAX:
        return (*attempts, last)
    spare = (n for n, attempt in enumerate(attempts) if attempt.run != last.run or not attempt.counted)
    gone = 0 if attempts[0].run != last.run else next(spare, 0)
    return (*attempts[:gone], *attempts[gone + 1 :], last)


def deaths(attempts: Iterable[Attempt], run: int) -> int:
    """How many workers have ended by themselves with the job in hand, in this run."""
    died = (a.worker_id for a in attempts if a.run == run and a.evidence.cause is Cause.WORKER_DIED)
    return len(set(died))


def bounded(lines: Iterable[str]) -> tuple[str, ...]:
    """The last `LAST_LINES_MAX` lines, or as many as fit into `LAST_LINES_BYTES_MAX`; the first one may be cut short."""
    kept: list[str] = []
    left = LAST_LINES_BYTES_MAX
    for line in list(lines)[: -LAST_LINES_MAX - 1 : -1]:
        data = line.encode("utf-8", "replace")
        kept.append(line if len(data) <= left else data[:left].decode("utf-8", "ignore"))
        left -= len(data)
        if left <= 0:
            break
    return tuple(reversed(kept))
