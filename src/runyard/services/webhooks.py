"""Tells the addresses that jobs' submitters named how the jobs have ended.

1. What is owed is in the store's `Outbox`, written in the commit of the job's end. So nothing is owed for an end that was
   not kept, and a platform that is killed at any moment delivers when it is back: at least once, under one id.
2. Deliveries wait in one lane per receiver, and lanes take turns. Few of a lane are under way at once, and so few in all
   that memory is bounded; one that waits for its next try takes no place. So a receiver that hangs or fails delays nobody.
3. Every try is noted, and signed anew with the secrets that the endpoint has then. What is kept is bounded by age, number
   and bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from runyard.domain.errors import Conflict, NotFound, TooBusy, WebhookFailed, WebhookRefused
from runyard.domain.job import EndpointId
from runyard.domain.webhook import (
    EXCERPT_CHARACTERS_MAX,
    Delivery,
    DeliveryId,
    DeliveryState,
    Schedule,
    SigningSecret,
    Try,
    living,
    rotated,
    secret_of,
    signed_headers,
)
from runyard.ports.system import Clock, Ids
from runyard.ports.webhooks import DeliveryPage, DeliveryQuery, Outbox, WebhookSender

TRY_S = 10.0
ACTIVE_MAX = 32
ACTIVE_BYTES_MAX = 256 << 20
"""Bodies in memory: none is begun beyond it, so it is passed by one at most."""
ACTIVE_PER_RECEIVER_MAX = 4
ACTIVE_BYTES_PER_RECEIVER_MAX = 64 << 20
PRUNE_S = 60.0
PRUNE_AFTER = 1000
"""Deliveries that are owed or asked for again after which what is kept is looked at ahead of time."""
LOOK_S_MAX = 60.0
"""How long a wake-up that is lost may go unnoticed."""
SETTLE_S = 5.0
"""How long a platform that stops waits for deliveries that are due."""
_SETTLE_POLL_S = 0.05

log = logging.getLogger("runyard.webhooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How much is kept of deliveries."""

    keep: timedelta
    """For so long after they have finished."""
    finished_max: int
    """Of one endpoint."""
    waiting_max: int
    """Of one endpoint; what is more is lost."""
    bytes_max: int
    """All bodies together."""


class Webhooks:
    """Deliveries, owed and done. `run` is the loop; `chance` gives numbers in [0, 1)."""

    def __init__(
        self,
        outbox: Outbox,
        sender: WebhookSender,
        clock: Clock,
        ids: Ids,
        *,
        schedule: Schedule,
        keeping: Keeping,
        chance: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._ids = ids
        self._schedule = schedule
        self._keeping = keeping
        self._chance = chance
        self._active: dict[DeliveryId, Delivery] = {}
        self._by_receiver: Counter[str] = Counter()
        self._bytes_by_receiver: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._prune = asyncio.Event()
        self._owed = 0
        self._secrets_lock = asyncio.Lock()
        outbox.owed = self._woken

    # The loop

    async def run(self) -> None:
        """Deliver for ever. Ends by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pruning())
            while True:
                self._wake.clear()
                while (delivery := await self._next()) is not None:
                    if delivery.id not in self._active:  # It was asked for again just when it was taken.
                        self._begin(delivery)
                        tasks.create_task(self._deliver(delivery))
                await self._wait()

    async def settle(self) -> None:
        """Wait, for a moment at most, until nothing is due but what waits for another try."""
        until = self._clock.now() + SETTLE_S
        while self._clock.now() < until:
            due_at = await self._outbox.next_at(())
            if not self._active and (due_at is None or due_at > self._clock.now()):
                return
            await self._clock.sleep(_SETTLE_POLL_S)

    # What its users ask

    async def list(self, endpoint_id: EndpointId, query: DeliveryQuery) -> DeliveryPage:
        return await self._outbox.list(endpoint_id, query)

    async def get(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery:
        """Raises `NotFound` for one that never was, or is kept no longer."""
        delivery = await self._outbox.get(endpoint_id, delivery_id)
        if delivery is None:
            raise NotFound(
                f"webhook delivery {delivery_id} not found on endpoint {endpoint_id}: see GET "
                f"/v2/serverless/{endpoint_id}/webhooks for those that are kept"
            )
        return delivery

    async def redeliver(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery:
        """Try it again, from now on, as often as the schedule says. Raises `NotFound`, or `Conflict` during a try."""
        delivery = await self.get(endpoint_id, delivery_id)
        if delivery_id in self._active:
            raise Conflict(f"delivery {delivery_id} is being tried now: look again within {TRY_S:g} s")
        again = delivery.again(self._clock.now())
        await self._outbox.save(again)
        self._woken()
        return again

    async def secrets(self, endpoint_id: EndpointId) -> tuple[SigningSecret, ...]:
        """What its deliveries are signed with now, the newest first. The first is made when somebody asks."""
        now = self._clock.now()
        if found := living(await self._outbox.secrets(endpoint_id), now):
            return found
        async with self._secrets_lock:
            if found := living(await self._outbox.secrets(endpoint_id), now):
                return found
            return await self._rotate(endpoint_id, now)

    async def rotate_secret(self, endpoint_id: EndpointId) -> tuple[SigningSecret, ...]:
        """A new secret, which signs from now on; the one before signs beside it for a day."""
        async with self._secrets_lock:
            return await self._rotate(endpoint_id, self._clock.now())

    # Turns

    def _woken(self) -> None:
        self._owed += 1
        if self._owed % PRUNE_AFTER == 0:
            self._prune.set()
        self._wake.set()

    async def _next(self) -> Delivery | None:
        return None if self._full() else await self._outbox.take(self._clock.now(), self._busy())

    async def _wait(self) -> None:
        """Until something is owed, comes due, or has ended."""
        wait_s = LOOK_S_MAX
        if not self._full() and (at := await self._outbox.next_at(self._busy())) is not None:
            wait_s = min(wait_s, max(0.0, at - self._clock.now()))
        await self._woken_within(wait_s, self._wake)

    async def _woken_within(self, seconds: float, event: asyncio.Event) -> None:
        if event.is_set():
            return
        waits = [asyncio.ensure_future(wait) for wait in (self._clock.sleep(seconds), event.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _full(self) -> bool:
        return len(self._active) >= ACTIVE_MAX or sum(self._bytes_by_receiver.values()) >= ACTIVE_BYTES_MAX

    def _busy(self) -> Collection[str]:
        """Receivers that get no more for now."""
        return {
            receiver
            for receiver, count in self._by_receiver.items()
            if count >= ACTIVE_PER_RECEIVER_MAX or self._bytes_by_receiver[receiver] >= ACTIVE_BYTES_PER_RECEIVER_MAX
        }

    def _begin(self, delivery: Delivery) -> None:
        self._active[delivery.id] = delivery
        self._by_receiver[delivery.receiver] += 1
        self._bytes_by_receiver[delivery.receiver] += delivery.size

    def _end(self, delivery: Delivery) -> None:
        receiver = delivery.receiver
        del self._active[delivery.id]
        self._by_receiver[receiver] -= 1
        self._bytes_by_receiver[receiver] -= delivery.size
        if not self._by_receiver[receiver]:
            del self._by_receiver[receiver], self._bytes_by_receiver[receiver]
        self._wake.set()

    # One delivery

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            body = await self._outbox.body(delivery.id)
            if body is None:  # Forgotten since it was taken.
                return
            tried = delivery.after(await self._try(delivery, body), self._schedule, self._chance())
            _report(tried)
            await self._outbox.save(tried)
        except TooBusy as error:
            log.warning("what became of webhook %s cannot be written, so it may be told again: %s", delivery.id, error)
        finally:
            self._end(delivery)

    async def _try(self, delivery: Delivery, body: bytes) -> Try:
        at = self._clock.now()
        attempt = Try(at=at, duration_s=0.0)
        try:
            secrets = await self.secrets(delivery.endpoint_id)
            async with asyncio.timeout(TRY_S):
                headers = signed_headers(delivery.id, body, secrets, at)
                answer = await self._sender.send(delivery.url, body, headers)
            attempt = replace(attempt, status=answer.status, excerpt=answer.excerpt[:EXCERPT_CHARACTERS_MAX])
        except (WebhookFailed, TooBusy) as error:  # Too busy to keep a secret that has just been made.
            said = error.message[:EXCERPT_CHARACTERS_MAX]
            attempt = replace(attempt, error=said, refused=isinstance(error, WebhookRefused))
        except TimeoutError:
            attempt = replace(attempt, error=f"no answer within {TRY_S:g} s")
        return replace(attempt, duration_s=max(0.0, self._clock.now() - at))

    async def _rotate(self, endpoint_id: EndpointId, now: float) -> tuple[SigningSecret, ...]:
        secrets = rotated(await self._outbox.secrets(endpoint_id), secret_of(self._ids.signing_key()), now)
        await self._outbox.keep_secrets(endpoint_id, secrets)
        return secrets

    # Forgetting

    async def _pruning(self) -> None:
        while True:
            await self._woken_within(PRUNE_S, self._prune)
            self._prune.clear()
            try:
                await self._forget_some()
            except TooBusy as error:
                log.warning("old webhook deliveries stay for now: %s", error)

    async def _forget_some(self) -> None:
        keeping, lost = self._keeping, 0
        before = self._clock.now() - keeping.keep.total_seconds()
        while gone := await self._outbox.prune(
            before,
            finished_max=keeping.finished_max,
            waiting_max=keeping.waiting_max,
            bytes_max=keeping.bytes_max,
        ):
            lost += sum(delivery.pending for delivery in gone)
            await self._clock.sleep(0)
        if lost:
            log.warning(
                "%d webhooks are lost: more of them wait than may (webhook_waiting_max, webhook_keep_bytes)", lost
            )


def _report(delivery: Delivery) -> None:
    """Names no more of the address than its host: the rest is the user's, and may hold secrets."""
    last = delivery.tries[-1]
    if delivery.state is DeliveryState.FAILED:
        why = last.error or f"it answered {last.status}"
        receiver = delivery.receiver[:100]
        log.warning("the webhook of job %s was not delivered to %s: %s", delivery.job_id, receiver, why)
