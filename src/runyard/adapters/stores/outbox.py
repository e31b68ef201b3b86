"""The outbox of jobs in memory: it owes nothing any more when the process ends."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from runyard.adapters.stores.lanes import Lanes
from runyard.domain.job import EndpointId, Job
from runyard.domain.webhook import Delivery, DeliveryId, SigningSecret, owed_by
from runyard.ports.webhooks import DeliveryPage, DeliveryQuery

log = logging.getLogger(__name__)

PRUNE_STEP = 500
"""Most deliveries that are forgotten in one go."""


class _Kept(NamedTuple):
    number: int
    delivery: Delivery
    body: bytes


class MemoryOutbox:
    """An `Outbox` in dictionaries. `render` makes the body of what a job's end owes.

    It holds at most `bytes_max` bytes of bodies, or one body: what is more drives out the oldest.
    """

    def __init__(self, render: Callable[[Job], bytes], *, bytes_max: int = 512 << 20) -> None:
        self._render = render
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: dict[DeliveryId, _Kept] = {}
        """In the order in which they were owed."""
        self._number = 0
        self._lanes = Lanes()
        self._secrets: dict[EndpointId, tuple[SigningSecret, ...]] = {}
        self.owed: Callable[[], None] = lambda: None

    def owe(self, job: Job) -> None:
        """For the store: this job has ended."""
        body = self._render(job)
        delivery = owed_by(job, body)
        self._number += 1
        self._kept[delivery.id] = _Kept(self._number, delivery, body)
        self._bytes += delivery.size
        self._lanes.put(delivery.id, delivery.receiver, delivery.next_at)
        while self._bytes > self._bytes_max and len(self._kept) > 1:
            oldest = self._forget(next(iter(self._kept)))
            if oldest.pending:
                log.warning(
                    "too many webhooks wait: that of job %s to %s is lost", oldest.job_id, oldest.receiver[:100]
                )
        self.owed()

    async def take(self, now: float, passing: Collection[str]) -> Delivery | None:
        found = self._lanes.take(now, passing)
        return None if found is None else self._kept[found].delivery

    async def next_at(self, passing: Collection[str]) -> float | None:
        return self._lanes.next_at(passing)

    async def body(self, delivery_id: DeliveryId) -> bytes | None:
        kept = self._kept.get(delivery_id)
        return None if kept is None else kept.body

    async def save(self, delivery: Delivery) -> None:
        kept = self._kept.get(delivery.id)
        if kept is None:
            return
        self._kept[delivery.id] = kept._replace(delivery=delivery)
        if delivery.pending:
            self._lanes.put(delivery.id, delivery.receiver, delivery.next_at)
        else:
            self._lanes.drop(delivery.id)

    async def get(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None:
        kept = self._kept.get(delivery_id)
        return None if kept is None or kept.delivery.endpoint_id != endpoint_id else kept.delivery

    async def list(self, endpoint_id: EndpointId, query: DeliveryQuery) -> DeliveryPage:
        found = (kept for kept in reversed(self._kept.values()) if _matches(kept, endpoint_id, query))
        page = list(islice(found, query.limit + 1))
        more = len(page) > query.limit
        page = page[: query.limit]
        return DeliveryPage(
            deliveries=tuple(kept.delivery for kept in page), next=page[-1].number if more and page else None
        )

    async def prune(self, before: float, *, finished_max: int, waiting_max: int, bytes_max: int) -> Sequence[Delivery]:
        doomed = list(islice(self._doomed(before, finished_max, waiting_max, bytes_max), PRUNE_STEP))
        return [self._forget(delivery.id) for delivery in doomed]

    async def secrets(self, endpoint_id: EndpointId) -> tuple[SigningSecret, ...]:
        return self._secrets.get(endpoint_id, ())

    async def keep_secrets(self, endpoint_id: EndpointId, secrets: Sequence[SigningSecret]) -> None:
        self._secrets[endpoint_id] = tuple(secrets)

    def close(self) -> None:
        """For the store: nothing is asked of it after this."""
        waiting = sum(kept.delivery.pending for kept in self._kept.values())
        if waiting:
            log.warning("%d webhooks are lost: the platform stops before they were delivered", waiting)

    def _doomed(self, before: float, finished_max: int, waiting_max: int, bytes_max: int) -> Iterator[Delivery]:
        deliveries = sorted((kept.delivery for kept in self._kept.values()), key=_age)
        left = Counter((delivery.endpoint_id, delivery.pending) for delivery in deliveries)
        left_bytes = self._bytes
        for delivery in deliveries:
            alike = (delivery.endpoint_id, delivery.pending)
            expired = delivery.finished_at is not None and delivery.finished_at < before
            too_many = left[alike] > (waiting_max if delivery.pending else finished_max)
            if expired or too_many or left_bytes > bytes_max:
                left[alike] -= 1
                left_bytes -= delivery.size
                yield delivery

    def _forget(self, delivery_id: DeliveryId) -> Delivery:
        delivery = self._kept.pop(delivery_id).delivery
        self._bytes -= delivery.size
        self._lanes.drop(delivery_id)
        return delivery


def _age(delivery: Delivery) -> tuple[bool, float]:
    """Those that finished first come first, and those that wait come last."""
    return delivery.pending, delivery.created_at if delivery.finished_at is None else delivery.finished_at


def _matches(kept: _Kept, endpoint_id: EndpointId, query: DeliveryQuery) -> bool:
    delivery = kept.delivery
    return (
        delivery.endpoint_id == endpoint_id
        and (query.job_id is None or delivery.job_id == query.job_id)
        and (query.state is None or delivery.state is query.state)
        and (query.after is None or kept.number < query.after)
    )
