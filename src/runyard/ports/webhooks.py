"""How the platform calls addresses that its users name, and what it keeps of that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from runyard.domain.job import EndpointId, JobId
from runyard.domain.webhook import Delivery, DeliveryId, DeliveryState, SigningSecret


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """What a receiver said: its status and the first of its body, at most `EXCERPT_CHARACTERS_MAX`."""

    status: int
    excerpt: str = ""


class WebhookSender(Protocol):
    """Sends one request and reads what it was answered."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """POST a JSON body with these headers; the answer is the receiver's own: redirects are not followed.

        Raises `WebhookRefused` for an address that the platform must not call, `WebhookFailed` when no answer came. The
        caller bounds its time: cancelling it ends the request.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryQuery:
    """Which deliveries to list, newest first. `after` is the `next` of the page before."""

    job_id: JobId | None = None
    state: DeliveryState | None = None
    limit: int = 50
    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    deliveries: tuple[Delivery, ...]
    next: int | None


class Outbox(Protocol):
    """Deliveries that are owed, or were.

    What the end of a job owes is kept by the `JobStore` to which the outbox belongs, in the commit of that end.
    """

    owed: Callable[[], None]
    """Called when something new is owed, and kept; set by whoever delivers. A hint: looking now and then must do."""

    async def take(self, now: float, passing: Collection[str]) -> Delivery | None:
        """A pending delivery whose time has come, to none of the receivers `passing`. Receivers take turns.

        It is given to nobody else until it is `save`d, or another process opens the store.
        """
        ...

    async def next_at(self, passing: Collection[str]) -> float | None:
        """When `take` will have something (more), as things stand; None: nothing waits."""
        ...

    async def body(self, delivery_id: DeliveryId) -> bytes | None:
        """What is to be sent: None when the delivery is kept no longer."""
        ...

    async def save(self, delivery: Delivery) -> None:
        """Note what has become of it. Raises `TooBusy` when that cannot be written; it holds until the process ends."""
        ...

    async def get(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None: ...

    async def list(self, endpoint_id: EndpointId, query: DeliveryQuery) -> DeliveryPage: ...

    async def prune(self, before: float, *, finished_max: int, waiting_max: int, bytes_max: int) -> Sequence[Delivery]:
        """Forget some of what finished before `before`, or is too much: of one endpoint's that have finished, of one
        endpoint's that wait, or bytes of all. The oldest go first, and for the bytes those that have finished before those
        that wait. Returns which; none when there is nothing (more) to forget.
        """
        ...

    async def secrets(self, endpoint_id: EndpointId) -> tuple[SigningSecret, ...]:
        """What an endpoint's deliveries are signed with, the newest first; none until some are kept."""
        ...

    async def keep_secrets(self, endpoint_id: EndpointId, secrets: Sequence[SigningSecret]) -> None:
        """In place of those there were."""
        ...
