"""What a job's end owes the address that its submitter named, and how it is told (contract A.12, K37).

A `Delivery` is owed once per end. It is tried until the receiver says yes or the `Schedule` has no try left:

    PENDING ---- yes ------------------------------> DELIVERED
       ^  \\---- no, and no try left, or refused ---> FAILED
       `------------------ redeliver ----------------'

It is told *at least once*: who dies between the receiver's yes and the note of it tells it again, under the same id. By
that id, and by signatures, receivers know what they get (the Standard Webhooks specification). Times are Unix seconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NewType
from urllib.parse import urlsplit

from runyard.domain.job import EndpointId, Job, JobId

DeliveryId = NewType("DeliveryId", str)

TRIES_KEPT_MAX = 20
"""The last tries that a delivery remembers."""
EXCERPT_CHARACTERS_MAX = 512
"""How much of an answer, or of an error's text, a try remembers."""
ROTATION_S = 24 * 3600.0
"""How long after a rotation the old secret signs beside the new one: receivers have so long to learn it."""
SECRET_BYTES = 32
_SECRET_PREFIX = "whsec_"


class DeliveryState(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One call of the receiver: what it answered, or why no answer came."""

    at: float
    duration_s: float
    status: int | None = None
    """The HTTP status; None when no answer came."""
    error: str | None = None
    excerpt: str = ""
    """The first of the answer's body."""
    refused: bool = False
    """The address must not be called: trying again changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One end of one job, to be told to one address."""

    id: DeliveryId
    endpoint_id: EndpointId
    job_id: JobId
    url: str
    created_at: float
    size: int
    """Bytes of its body."""
    state: DeliveryState = DeliveryState.PENDING
    next_at: float
    """When it is tried next, while it is pending."""
    finished_at: float | None = None
    round_tries: int = 0
    """Tries since it was owed, or last asked for again."""
    tries: tuple[Try, ...] = ()
    """The last of all its tries, oldest first."""

    @property
    def pending(self) -> bool:
        return self.state is DeliveryState.PENDING

    @property
    def receiver(self) -> str:
        """Whose time it takes."""
        return receiver_of(self.url)

    def after(self, attempt: Try, schedule: Schedule, chance: float) -> Delivery:
        """What becomes of it by this try. `chance` is in [0, 1)."""
        rounds, ended = self.round_tries + 1, attempt.at + attempt.duration_s
        tried = replace(self, round_tries=rounds, tries=(*self.tries, attempt)[-TRIES_KEPT_MAX:])
        if schedule.is_success(attempt.status):
            return replace(tried, state=DeliveryState.DELIVERED, finished_at=ended)
        delay_s = None if attempt.refused else schedule.delay_s(rounds, chance)
        if delay_s is None:
            return replace(tried, state=DeliveryState.FAILED, finished_at=ended)
        return replace(tried, next_at=ended + delay_s)

    def again(self, now: float) -> Delivery:
        """To be tried at once, with all tries that the schedule has."""
        return replace(self, state=DeliveryState.PENDING, next_at=now, finished_at=None, round_tries=0)


def receiver_of(url: str) -> str:
    """Host and port of an address, in small letters; empty for what is none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def owes(job: Job, was: Job) -> bool:
    """Whether the change from `was` to `job` is an end that somebody wants to be told of."""
    return job.webhook is not None and job.terminal and not was.terminal


def owed_by(job: Job, body: bytes) -> Delivery:
    """The delivery for the end of `job`. The same end always owes the same delivery."""
    assert job.webhook is not None
    assert job.finished_at is not None
    # A client may choose an id again once the first job of that id is forgotten; the time tells the two apart.
    end = "\n".join((job.endpoint_id, job.id, str(job.run), repr(job.created_at)))
    return Delivery(
        id=DeliveryId(f"msg_{hashlib.sha256(end.encode()).hexdigest()[:32]}"),
        endpoint_id=job.endpoint_id,
        job_id=job.id,
        url=job.webhook,
        created_at=job.finished_at,
        next_at=job.finished_at,
        size=len(body),
    )


# --- When ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How often and when a delivery is tried: after each failure `factor` times as long as before, up to `delay_max_s`.

    `jitter` is the share of a delay that chance may add or take, so that what failed together does not come back together.
    """

    tries_max: int
    first_s: float
    factor: float = 1.0
    delay_max_s: float
    jitter: float = 0.0
    any_2xx: bool = False
    """Whether every 2xx is a yes; else 200 alone is."""

    def is_success(self, status: int | None) -> bool:
        return status == 200 or (self.any_2xx and status is not None and 200 <= status < 300)

    def delay_s(self, tries: int, chance: float) -> float | None:
        """Seconds to wait after so many failed tries; None: that was the last."""
        if tries >= self.tries_max:
            return None
        delay_s = min(self.first_s * self.factor ** (tries - 1), self.delay_max_s)
        return delay_s * (1 + self.jitter * (2 * chance - 1))


SCHEDULES = {
    # As documented: "retries up to 2 more times with a 10-second delay", and 200 is success.
    "runpod": Schedule(tries_max=3, first_s=10, delay_max_s=10),
    # 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, then every 6 hours: about a day in all.
    "backoff": Schedule(tries_max=11, first_s=5, factor=4, delay_max_s=6 * 3600, jitter=0.2, any_2xx=True),
}


# --- Signatures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecret:
    """What an endpoint's deliveries are signed with: `whsec_` and base64. Never to be logged."""

    value: str
    created_at: float
    expires_at: float | None = None
    """When one that was replaced signs no more."""

    def __repr__(self) -> str:
        return f"SigningSecret(created_at={self.created_at})"


def secret_of(random_bytes: bytes) -> str:
    """The form in which the specification writes secrets."""
    return _SECRET_PREFIX + base64.b64encode(random_bytes).decode()


def rotated(secrets: Iterable[SigningSecret], value: str, now: float) -> tuple[SigningSecret, ...]:
    """A new secret first, and the one it replaces for `ROTATION_S` more. An older one that still signed does so no more."""
    old = [replace(secret, expires_at=now + ROTATION_S) for secret in living(secrets, now) if secret.expires_at is None]
    return SigningSecret(value=value, created_at=now), *old


def living(secrets: Iterable[SigningSecret], now: float) -> tuple[SigningSecret, ...]:
    return tuple(secret for secret in secrets if secret.expires_at is None or secret.expires_at > now)


def signed_headers(
    delivery_id: DeliveryId, body: bytes, secrets: Iterable[SigningSecret], now: float
) -> dict[str, str]:
    """The three headers of the specification, with one signature for each secret that lives at `now`."""
    timestamp = str(int(now))
    content = b".".join((delivery_id.encode(), timestamp.encode(), body))
    signatures = (_signature(secret.value, content) for secret in living(secrets, now))
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _signature(secret: str, content: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error as error:  # Only ever of a secret that something else has written.
        raise ValueError("a signing secret is not base64: rotate it") from error
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()
