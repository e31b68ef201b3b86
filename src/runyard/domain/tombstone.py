"""What is left of a job that is gone: enough to say what became of it, and to know it again if it is asked for once more."""

from __future__ import annotations

from typing import NamedTuple

from runyard.domain.job import EndpointId, Job, JobId, JobState


class Tombstone(NamedTuple):
    """Times are Unix seconds."""

    job_id: JobId
    endpoint_id: EndpointId
    state: JobState
    """Its last: how it ended, or what it was doing when its time to live was over."""
    created_at: float
    ended_at: float | None
    gone_at: float
    """Since when there is nothing else of it."""
    fingerprint: bytes | None


def tombstone_of(job: Job, now: float) -> Tombstone:
    return Tombstone(
        job.id,
        job.endpoint_id,
        job.state,
        job.created_at,
        job.finished_at if job.terminal else None,
        now,
        job.fingerprint,
    )
