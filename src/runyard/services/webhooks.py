"""Tells the address that a job's submitter named how the job ended (contract A.12, K37).

1. A *delivery* is the job's status as it ended, as JSON. It gets up to 3 attempts, 10 s apart, of 10 s each. An answer of
   200 is success, whatever else happens is not. An address that must not be called is not tried again.
2. Deliveries wait in one *lane* per receiver. Few of a lane are under way at once and lanes take turns; a delivery that
   waits for its next attempt takes no place. So a receiver that hangs or fails delays nobody but itself.
3. What is held is bounded, in all and per lane; what comes on top is dropped, and the log says so. It is held in memory:
   it ends with the process, as the jobs of the memory store do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from runyard.domain.errors import WebhookFailed, WebhookRefused
from runyard.domain.job import Job, JobId
from runyard.ports.system import Clock
from runyard.ports.webhooks import WebhookSender

ATTEMPTS_MAX = 3
ATTEMPT_S = 10.0
RETRY_S = 10.0
ACTIVE_MAX = 32
ACTIVE_PER_LANE_MAX = 4
HELD_MAX = 10_000
HELD_BYTES_MAX = 512 << 20
HELD_PER_LANE_MAX = 2_000
HELD_PER_LANE_BYTES_MAX = 128 << 20
SETTLE_S = 5.0
"""How long a platform that stops waits for first attempts."""
_SETTLE_POLL_S = 0.05
_COMPLAIN_EVERY_S = 60.0

log = logging.getLogger("runyard.webhooks")


@dataclass(slots=True)
class _Delivery:
    job_id: JobId
    url: str
    body: bytes
    attempts: int = 0

    @property
    def size(self) -> int:
        return len(self.url) + len(self.body)


class _Room:
    """Counts deliveries and their bytes. When empty it has room for one of any size."""

    def __init__(self, held_max: int, bytes_max: int) -> None:
        self._held_max = held_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self.held = 0

    def fits(self, delivery: _Delivery) -> bool:
        return not self.held or (self.held < self._held_max and self._bytes + delivery.size <= self._bytes_max)

    def add(self, delivery: _Delivery) -> None:
        self.held += 1
        self._bytes += delivery.size

    def remove(self, delivery: _Delivery) -> None:
        self.held -= 1
        self._bytes -= delivery.size


class _Lane:
    """All deliveries to one receiver."""

    def __init__(self, receiver: str) -> None:
        self.receiver = receiver
        self.shown = receiver[:100]
        """For the log: a user chose it."""
        self.room = _Room(HELD_PER_LANE_MAX, HELD_PER_LANE_BYTES_MAX)
        self.waiting: deque[_Delivery] = deque()
        self.active = 0


class Webhooks:
    """Deliveries that are owed: `run` is the loop. `render` makes the body, as `/status` shows the job."""

    def __init__(self, sender: WebhookSender, clock: Clock, *, render: Callable[[Job], bytes]) -> None:
        self._sender = sender
        self._clock = clock
        self._render = render
        self._room = _Room(HELD_MAX, HELD_BYTES_MAX)
        self._lanes: dict[str, _Lane] = {}
        self._ready: OrderedDict[str, _Lane] = OrderedDict()
        """Lanes that have a delivery to begin and may begin one, in the order of their turns."""
        self._active = 0
        self._wake = asyncio.Event()
        self._dropped = 0
        self._complain_at = 0.0

    def ended(self, job: Job) -> None:
        """Owe the job's webhook its status. To be called once per end; returns at once and never raises."""
        if job.webhook is None:
            return
        delivery = _Delivery(job.id, job.webhook, self._render(job))
        receiver = _receiver(job.webhook)
        lane = self._lanes.get(receiver) or _Lane(receiver)
        if not (self._room.fits(delivery) and lane.room.fits(delivery)):
            self._drop(delivery, lane)
            return
        self._lanes[receiver] = lane
        self._room.add(delivery)
        lane.room.add(delivery)
        lane.waiting.append(delivery)
        self._offer(lane)

    async def run(self) -> None:
        """Deliver for ever. Ends by cancellation."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                self._wake.clear()
                while self._ready and self._active < ACTIVE_MAX:
                    _, lane = self._ready.popitem(last=False)
                    deliveries.create_task(self._deliver(lane, self._begin(lane)))
                await self._wake.wait()

    async def settle(self) -> None:
        """Wait, for a moment at most, until nothing is left but what waits for another attempt."""
        until = self._clock.now() + SETTLE_S
        while (self._active or self._ready) and self._clock.now() < until:
            await self._clock.sleep(_SETTLE_POLL_S)
        if self._room.held:
            log.warning("%d webhooks are lost: the platform stops before they were delivered", self._room.held)

    def _offer(self, lane: _Lane) -> None:
        """Give the lane its next turn if it can use one."""
        if lane.waiting and lane.active < ACTIVE_PER_LANE_MAX:
            self._ready[lane.receiver] = lane
        self._wake.set()

    def _begin(self, lane: _Lane) -> _Delivery:
        delivery = lane.waiting.popleft()
        lane.active += 1
        self._active += 1
        self._offer(lane)
        return delivery

    async def _deliver(self, lane: _Lane, delivery: _Delivery) -> None:
        failure = await self._attempt(delivery)
        lane.active -= 1
        self._active -= 1
        self._offer(lane)
        if failure is not None and delivery.attempts < ATTEMPTS_MAX:
            await self._clock.sleep(RETRY_S)
            lane.waiting.appendleft(delivery)
            self._offer(lane)
            return
        if failure is not None:
            log.warning("the webhook of job %s was not delivered to %s: %s", delivery.job_id, lane.shown, failure)
        self._room.remove(delivery)
        lane.room.remove(delivery)
        if not lane.room.held:
            del self._lanes[lane.receiver]

    async def _attempt(self, delivery: _Delivery) -> str | None:
        """None for a success, else what went wrong."""
        delivery.attempts += 1
        try:
            async with asyncio.timeout(ATTEMPT_S):
                status = await self._sender.send(delivery.url, delivery.body)
        except WebhookRefused as error:
            delivery.attempts = ATTEMPTS_MAX
            return error.message
        except WebhookFailed as error:
            return error.message
        except TimeoutError:
            return f"no answer within {ATTEMPT_S:g} s"
        return None if status == 200 else f"it answered {status} where 200 means success"

    def _drop(self, delivery: _Delivery, lane: _Lane) -> None:
        self._dropped += 1
        now = self._clock.now()
        if now >= self._complain_at:  # Where one is dropped, thousands are.
            self._complain_at = now + _COMPLAIN_EVERY_S
            text = "too many webhooks wait: that of job %s to %s was dropped, as were %d others since the start"
            log.warning(text, delivery.job_id, lane.shown, self._dropped - 1)


def _receiver(url: str) -> str:
    """Host and port: whose time a delivery to this address takes."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
