"""A large result on its way in: to disk as it comes, with a bound on what is in memory.

What came is taken in piece by piece beside the connection, which is not read while more than `WAITING_BYTES_MAX` waits for
that. So a worker sends no faster than the disk takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, JobId
from runyard.domain.payload import Spilled
from runyard.edge.exchange import Exchange
from runyard.edge.result_scan import ResultScan
from runyard.services.roster import LiveWorker
from runyard.services.spill import Incoming, Spills
from runyard.wire.jobs import WorkerBody

WAITING_BYTES_MAX = 256 * 1024
RESULT_HOLD_S = 240.0
"""How long a result waits for a store, or a disk, that cannot write; the oldest stock workers wait 300 s for an answer."""
RETRY_S = 0.25
_T = TypeVar("_T")


class Inflow:
    """Of one exchange. Its handler asks for the `result`, and closes it; without a handler it closes itself."""

    def __init__(self, x: Exchange, spills: Spills, live: LiveWorker, job_id: JobId) -> None:
        self._x = x
        self._spills = spills
        self._job: tuple[EndpointId, JobId] = live.worker.endpoint_id, job_id
        self._worker_id = live.id
        self._scan = ResultScan()
        self._incoming: Incoming | None = None
        """None until it has begun, and when the worker's word about the job does not count."""
        self._begun = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._taking: asyncio.Task[None] | None = None
        self._handled = False
        self._given_up = False
        self._error: Exception | None = None
        self._paused = False
        self.size = 0
        """Bytes that have come."""
        x.on_end(self._ended)

    def receive(self, chunk: bytes) -> None:
        """More of the body has come."""
        self.size += len(chunk)
        if self._given_up:
            return
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        flow = self._x.protocol.flow
        if self._waiting_bytes > WAITING_BYTES_MAX and not flow.read_paused:
            self._paused = True
            flow.pause_reading()
        if self._taking is None:
            self._taking = self._x.protocol.loop.create_task(self._take_in())

    async def result(self) -> tuple[WorkerBody, Spilled | None]:
        """Once the body is whole: what it says, and its output. Raises `TooBusy` when there is no room for it."""
        self._handled = True
        if self._taking is not None:
            await asyncio.wait([self._taking])
        if self._error is not None:
            raise self._error
        await self._write(self._scan.end())
        said = self._scan.result()
        if self._incoming is None or not (self._scan.readable and self._scan.has_output):
            return said, None
        return said, await self._patiently(self._incoming.keep)

    async def close(self) -> None:
        """It has been handled: what of it no job names is not wanted."""
        self._given_up = True
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            await incoming.close()

    async def _take_in(self) -> None:
        try:
            if not self._begun:
                self._begun = True
                self._incoming = await self._patiently(lambda: self._spills.begin(*self._job, self._worker_id))
            while self._waiting and not self._given_up:
                data = b"".join(self._waiting)
                self._waiting, self._waiting_bytes = [], 0
                self._read_on()
                await self._write(self._scan.feed(data))
        except Exception as error:  # noqa: BLE001 - The exchange decides what each error means.
            self._fail(error)
        finally:
            self._taking = None
            if self._given_up:
                self._read_on()
                await self.close()

    async def _write(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            if self._incoming is not None:
                write = self._incoming.write
                await self._patiently(lambda piece=piece, write=write: write(piece))
            await asyncio.sleep(0)  # Nobody is to wait for a whole body.

    async def _patiently(self, work: Callable[[], Awaitable[_T]]) -> _T:
        return await when_there_is_room(work, self._x.protocol.loop, self._in_vain)

    def _in_vain(self) -> bool:
        return self._given_up or (self._incoming is not None and self._incoming.spoiled)

    def _fail(self, error: Exception) -> None:
        self._error, self._given_up = error, True
        if not self._handled:
            self._x.refuse(error)

    def _read_on(self) -> None:
        if self._paused and not self._x.received:  # Else the connection decides what is read next.
            self._x.protocol.flow.resume_reading()
        self._paused = False

    def _ended(self) -> None:
        """It was refused, or the worker has left amid it. A body that is whole counts, whoever has left."""
        if self._handled or self._given_up:
            return
        self._given_up = True
        if self._taking is None:
            self._taking = self._x.protocol.loop.create_task(self._take_in())


async def when_there_is_room(
    work: Callable[[], Awaitable[_T]], loop: asyncio.AbstractEventLoop, over: Callable[[], bool]
) -> _T:
    """Do it, again and again while there is no room, until that is `over` or has been too long: a result that is soon
    refused would be lost. Raises `TooBusy` then.
    """
    until = loop.time() + RESULT_HOLD_S
    while True:
        try:
            return await work()
        except TooBusy:
            if over() or loop.time() >= until:
                raise
        await asyncio.sleep(RETRY_S)
