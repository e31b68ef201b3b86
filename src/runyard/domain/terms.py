"""The terms on which an endpoint takes jobs: how long they live, how often they are tried, how long what they gave is kept.

The platform has terms. An endpoint has none but those that were set for it (`OwnTerms`), so that a change of the
platform's reaches all others. What holds is its own over the platform's.

    submitted ---- ttl ---------------> deleted, in whatever state; with `ttl_scope` QUEUE only while it waits
    ended -------- retention ---------> gone from the compatible routes
    gone --------- keep --------------> gone from `/v2/{id}/requests/{job}`, too
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum

from runyard.domain.attempt import ATTEMPTS_MAX, ATTEMPTS_MAX_LIMIT
from runyard.domain.errors import BadRequest

DAY_S = 24 * 3600.0
TTL_S = DAY_S
TTL_S_MIN, TTL_S_MAX = 10.0, 7 * DAY_S
RETENTION_S = 30 * 60.0
RETENTION_SYNC_S = 60.0
RETENTION_WAIT_S_MAX = 5 * 60.0
"""The longest that the wait of a `runsync` extends its retention to."""
KEEP_S = 7 * DAY_S


class TtlScope(StrEnum):
    """Where a job's time to live counts. It begins with the submission in both."""

    ALL = "all"
    """Waiting, running and ended: the documented way (contract A.7)."""
    QUEUE = "queue"
    """While it waits: one that runs may finish, and its result has all of its retention."""


# An enum's attribute costs 0.1 us on Python 3.11.
ALL, QUEUE = TtlScope

BOUNDS: dict[str, tuple[float, float]] = {
    "retention_s": (1, 7 * DAY_S),
    "retention_sync_s": (1, 7 * DAY_S),
    "ttl_s": (TTL_S_MIN, TTL_S_MAX),
    "keep_s": (0, 365 * DAY_S),
    "attempts_max": (1, ATTEMPTS_MAX_LIMIT),
}
"""The least and the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTerms:
    """What holds for jobs. `_s` is seconds; numbers out of their `BOUNDS` raise `BadRequest`."""

    retention_s: float = RETENTION_S
    """How long a job that came by `run` is readable after its end (F030)."""
    retention_sync_s: float = RETENTION_SYNC_S
    """The same for `runsync`, where the wait may make it more."""
    ttl_s: float = TTL_S
    """How long it lives, unless its policy says otherwise (F022)."""
    ttl_scope: TtlScope = ALL
    keep_s: float = KEEP_S
    """How much longer than its retention it is kept, with its payloads."""
    attempts_max: int = ATTEMPTS_MAX

    def __post_init__(self) -> None:
        _check_all(self)

    def retention_of(self, wait_s: float | None) -> float:
        """Seconds a result stays readable: of a `runsync` its wait, of up to 5 minutes, if that is more (K48)."""
        if wait_s is None:
            return self.retention_s
        return max(self.retention_sync_s, min(wait_s, RETENTION_WAIT_S_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTerms:
    """What is set for one endpoint, within the same bounds; None where the platform's holds."""

    retention_s: float | None = None
    retention_sync_s: float | None = None
    ttl_s: float | None = None
    ttl_scope: TtlScope | None = None
    keep_s: float | None = None
    attempts_max: int | None = None

    def __post_init__(self) -> None:
        _check_all(self)

    def over(self, platform: JobTerms) -> JobTerms:
        """What holds for the endpoint."""
        return replace(platform, **{name: getattr(self, name) for name in self.names})

    @property
    def names(self) -> list[str]:
        """Of those that are set."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def check_term(name: str, value: float, called: str) -> None:
    """Raises `BadRequest` for a number out of its bounds; `called` is the name that the caller knows it by."""
    low, high = BOUNDS[name]
    if not low <= value <= high:
        raise BadRequest(f"{called} must be {low:.0f} to {high:.0f}, not {value:.15g}")


def _check_all(terms: JobTerms | OwnTerms) -> None:
    for name in BOUNDS:
        value: float | None = getattr(terms, name)
        if value is not None:
            check_term(name, value, name)


DEFAULT_TERMS = JobTerms()
NO_OWN_TERMS = OwnTerms()
