"""Bodies about webhook deliveries: our own routes, in the manner of REST v2."""

from __future__ import annotations

from typing import Literal

import msgspec

DeliveryState = Literal["PENDING", "DELIVERED", "FAILED"]


class Try(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One call of the receiver: `status` and `excerpt` of its answer, or the `error` that came instead."""

    at: str
    durationMs: int
    status: int | None = None
    error: str | None = None
    excerpt: str = ""


class Delivery(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What one end of a job owes, or owed. `id` is what the receiver finds in `webhook-id`; `tries` are the last ones."""

    id: str
    jobId: str
    url: str
    state: DeliveryState
    size: int
    createdAt: str
    nextTryAt: str | None = None
    finishedAt: str | None = None
    tries: list[Try]


class DeliveryList(msgspec.Struct):
    webhooks: list[Delivery]
    next: str | None


class PreviousSecret(msgspec.Struct):
    """One that was replaced and signs beside the new one until `expiresAt`."""

    secret: str
    expiresAt: str


class SigningSecret(msgspec.Struct, omit_defaults=True, kw_only=True):
    secret: str
    createdAt: str
    previous: PreviousSecret | None = None
