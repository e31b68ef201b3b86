"""Terms of an endpoint's jobs, between the wire and the domain."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from runyard.domain.terms import JobTerms, OwnTerms, TtlScope, check_term
from runyard.wire import control as wire

_NAMES = {
    "retentionSeconds": "retention_s",
    "retentionSyncSeconds": "retention_sync_s",
    "ttlSeconds": "ttl_s",
    "ttlScope": "ttl_scope",
    "keepSeconds": "keep_s",
    "attemptsMax": "attempts_max",
}
_WIRE_NAMES = {name: wire_name for wire_name, name in _NAMES.items()}


def terms_asked(jobs: wire.JobsRequest | UnsetType) -> dict[str, Any]:
    """The fields of `OwnTerms` that the body names. Raises `BadRequest` for a number out of its bounds."""
    if jobs is UNSET:
        return {}
    asked: dict[str, Any] = {}
    for wire_name, name in _NAMES.items():
        value = getattr(jobs, wire_name)
        if isinstance(value, str):
            asked[name] = TtlScope(value)
        elif value is not UNSET:
            if value is not None:
                check_term(name, value, f"runyard.jobs.{wire_name}")
            asked[name] = value
    return asked


def terms_view(holds: JobTerms, own: OwnTerms) -> wire.EndpointJobs:
    return wire.EndpointJobs(
        retentionSeconds=whole(holds.retention_s),
        retentionSyncSeconds=whole(holds.retention_sync_s),
        ttlSeconds=whole(holds.ttl_s),
        ttlScope=holds.ttl_scope.value,
        keepSeconds=whole(holds.keep_s),
        attemptsMax=holds.attempts_max,
        own=[_WIRE_NAMES[name] for name in own.names],
    )


def whole(number: float) -> float:
    """4 rather than 4.0, as the original writes it."""
    return int(number) if number.is_integer() else number
