"""Large inputs on their way to hand, before their jobs are taken.

1. A job with a large input is taken when its input is in hand (`Hand`), and not before: so nothing can come between a take
   and its answer but what always can.
2. Each load is a task of its own, for as long as its job waits. What cannot be read just now is tried again, more and more
   rarely; what is not there fails its job.
3. When a load is over, however it ends, the queue is offered to whoever waits for a job: another job may be its head now.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import IN_QUEUE, EndpointId, Job
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Signals
from runyard.services import topics
from runyard.services.background import Background
from runyard.services.hand import HAND_BYTES_MAX, Hand
from runyard.services.insistence import insist
from runyard.services.spill import Spills

RETRY_S, RETRY_S_MAX = 0.25, 10.0
"""Pauses before a load is tried again: the first, and the longest; each is twice as long as the one before."""
CLOSE_S_MAX = 5.0
"""How long to wait, at the end, for what was about to be handed over."""

log = logging.getLogger(__name__)


class Loading:
    """Loads inputs into `hand`. `close` it at the end."""

    def __init__(self, spills: Spills, store: JobStore, hand: Hand, signals: Signals, clock: Clock) -> None:
        self._spills = spills
        self._store = store
        self._hand = hand
        self._signals = signals
        self._clock = clock
        self._loads: dict[str, _Load] = {}
        """By what is loaded."""
        self._bytes = 0
        """Of all that is to be loaded."""
        self._share = _Share(HAND_BYTES_MAX)
        self._readings: set[asyncio.Task[bytes]] = set()
        self.tasks = Background(log, "what waits could not be offered to workers")
        """All that is under way, but for what is read for nobody any more."""
        self._closed = False
        self.under_way: Counter[EndpointId] = Counter()
        """How many loads for which endpoint; without those that have none."""
        self.offer: Callable[[EndpointId], Awaitable[None]]
        """Set by the dispatch: offer what waits to parked workers."""

    def begin(self, wanted: Job | None, ahead: Sequence[Job]) -> None:
        """Load the input of the job that a worker could have now, and those of `ahead` for which there is room."""
        if wanted is not None:
            self._begin(wanted)
        for job in ahead:
            if isinstance(job.input, Spilled) and self._hand.has_room(self._bytes + job.input.size):
                self._begin(job)

    async def close(self) -> None:
        """Give up what is being loaded; what is in hand already and about to be handed over goes out."""
        self._closed = True
        for load in list(self._loads.values()):
            self._over(load)
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=CLOSE_S_MAX)
            for task in late:
                task.cancel()

    async def settled(self) -> None:
        """Until nothing is under way."""
        while self.tasks:
            await asyncio.wait(self.tasks)

    def _begin(self, job: Job) -> None:
        assert isinstance(job.input, Spilled)
        ref, size = job.input
        if self._closed or ref in self._loads or ref in self._hand:
            return
        load = self._loads[ref] = _Load(job, job.input)
        self._bytes += size
        self.under_way[job.endpoint_id] += 1
        load.unsubscribe = self._signals.subscribe(job.id, lambda: self._in_vain(load))
        load.task = self.tasks.spawn(self._load(load))

    def _over(self, load: _Load) -> None:
        """It is no longer under way; nothing happens if it is not already."""
        if not self._is_under_way(load):
            return
        del self._loads[load.input.ref]
        self._bytes -= load.input.size
        self.under_way[load.job.endpoint_id] -= 1
        if not self.under_way[load.job.endpoint_id]:
            del self.under_way[load.job.endpoint_id]
        load.unsubscribe()
        if load.task is not asyncio.current_task():
            load.task.cancel()

    def _in_vain(self, load: _Load) -> None:
        """Its job has ended, or so it seems; if not, whoever could have it begins anew."""
        self._over(load)
        self.tasks.spawn(self._offer(load.job.endpoint_id))

    async def _load(self, load: _Load) -> None:
        try:
            data = await self._read_at_last(load)
        except NotFound as error:
            await self._fail(load, f"the job's input is lost: {error.message}")
            data = None
        finally:
            self._over(load)
        if data is not None:
            self._hand.put(load.input.ref, data)
        await self._offer(load.job.endpoint_id)

    async def _read_at_last(self, load: _Load) -> bytes | None:
        """None when its job does not wait for it any more. Raises `NotFound`."""
        pause_s = RETRY_S
        while True:
            try:
                data = await self._read(load)
                return data if await self._waits(load) else None
            except NotFound:
                raise
            except Exception as error:  # noqa: BLE001 - Whatever it is, the job waits, and must not be forgotten.
                if pause_s == RETRY_S:
                    log.warning("the input of job %s cannot be read, which waits for it: %s", load.job.id, error)
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)
            if not await self._waits(load):
                return None

    async def _read(self, load: _Load) -> bytes:
        """Who is cancelled does not wait for it: what is open in a thread is to be closed when that is done."""
        reading = asyncio.get_running_loop().create_task(self._read_in_turn(load))
        self._readings.add(reading)
        reading.add_done_callback(self._read_done)
        return await asyncio.shield(reading)

    async def _read_in_turn(self, load: _Load) -> bytes:
        async with self._share.of(load.input.size):
            return await self._spills.load(load.input) if self._is_under_way(load) else b""

    def _read_done(self, reading: asyncio.Task[bytes]) -> None:
        self._readings.discard(reading)
        if not reading.cancelled():
            reading.exception()  # It may be nobody's any more.

    def _is_under_way(self, load: _Load) -> bool:
        return self._loads.get(load.input.ref) is load

    async def _waits(self, load: _Load) -> bool:
        """Whether its job, as it is kept, still waits for it. As long as nobody knows, it does."""
        try:
            return await self._waiting(load) is not None
        except TooBusy:
            return True

    async def _waiting(self, load: _Load) -> Job | None:
        job = await self._store.get(load.job.endpoint_id, load.job.id)
        return job if job is not None and job.state is IN_QUEUE and job.input == load.input else None

    async def _fail(self, load: _Load, error: str) -> None:
        while (job := await insist(lambda: self._waiting(load), self._clock)) is not None:
            failed = job.fail(error, None, self._clock.now())
            if await insist(lambda was=job, failed=failed: self._store.save(failed, was=was), self._clock):
                self._signals.fire(job.id)
                self._signals.fire(topics.demand(job.endpoint_id))
                return

    async def _offer(self, endpoint_id: EndpointId) -> None:
        if not self._closed:
            await self.offer(endpoint_id)


class _Load:
    __slots__ = ("input", "job", "task", "unsubscribe")

    task: asyncio.Task[None]
    unsubscribe: Callable[[], None]

    def __init__(self, job: Job, input: Spilled) -> None:
        self.job = job
        self.input = input


class _Share:
    """Bytes that may be in memory at a time; more than that only for one alone."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._used = 0
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncGenerator[None]:
        while self._used and self._used + size > self._bytes_max:
            self._freed.clear()
            await self._freed.wait()
        self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._freed.set()
