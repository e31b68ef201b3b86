"""What became of a job, for as long as anybody remembers it.

A job goes through up to three places, and is in one of them at a time:

    live       waiting, running, or ended and readable on all routes (until `Job.expires_at`)
    kept       expired: it is read whole at `/requests/{job}` alone (until `Job.keep_until`)
    tombstone  its payloads are gone; its fate is remembered
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from runyard.domain.job import COMPLETED, IN_PROGRESS, IN_QUEUE, EndpointId, Job, JobId, JobState


class Loss(StrEnum):
    """Why a job's payloads are gone."""

    EXPIRED_IN_QUEUE = "expired_in_queue"
    """Its time to live was over before a worker took it."""
    EXPIRED_RUNNING = "expired_running"
    """Its time to live was over while it ran."""
    KEEP_OVER = "keep_over"
    """It was kept as long as its endpoint keeps jobs."""
    NO_ROOM = "no_room"
    """It was among the oldest that were kept when there was no room for all."""


class Fate(NamedTuple):
    """Times are Unix seconds."""

    job_id: JobId
    endpoint_id: EndpointId
    state: JobState
    """How it ended, or what it is doing; of one that expired without an end: what it did then."""
    finished_at: float | None
    expires_at: float
    """When the routes that the hosted service has begin, or began, to answer 404."""
    keep_until: float
    """Until then it can be read whole, if nothing is lost."""
    loss: Loss | None = None
    """Why there is nothing to be read any more; None: there is."""
    fingerprint: bytes | None = None
    """Of what was asked, for a job that its client has named: whoever repeats that is told this fate."""

    def expired(self, now: float) -> bool:
        return self.loss is not None or self.expires_at <= now

    @property
    def told(self) -> str:
        """What became of one that has expired, in words."""
        match self.loss:
            case Loss.EXPIRED_IN_QUEUE:
                return "its time to live was over before a worker took it"
            case Loss.EXPIRED_RUNNING:
                return "its time to live was over while it ran"
            case Loss.KEEP_OVER:
                return f"it ended {self.state}, and its result was deleted when it had been kept long enough"
            case Loss.NO_ROOM:
                return f"it ended {self.state}, and its result was deleted to make room for newer ones"
            case None if self.state in (IN_QUEUE, IN_PROGRESS):
                return "its time to live is over"
            case None:
                return (
                    f"it ended {self.state}, and {'its result' if self.state is COMPLETED else 'all about it'} is kept"
                )


def fate_of(job: Job) -> Fate:
    """Of a job that can be read."""
    return Fate(
        job.id,
        job.endpoint_id,
        job.state,
        job.finished_at,
        job.expires_at,
        job.keep_until,
        fingerprint=job.fingerprint,
    )


def fate_at_expiry(job: Job, now: float) -> Fate:
    """Of a job whose time is over: what never ended loses its payloads, and so does what is not to be kept."""
    fate = fate_of(job)
    if job.state is IN_QUEUE:
        return fate._replace(loss=Loss.EXPIRED_IN_QUEUE)
    if job.state is IN_PROGRESS:
        return fate._replace(loss=Loss.EXPIRED_RUNNING)
    return fate if job.keep_until > now else fate._replace(loss=Loss.KEEP_OVER)
