"""What tests of payloads share, and payloads in memory, for tests that wait for no disk."""

import asyncio
from collections.abc import Sequence

from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import EndpointId, JobId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Kept, Payloads
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Signals
from runyard.services.inputs import Inputs
from runyard.services.spill import Carried, Spills

ENDPOINT = EndpointId("endpoint-1")
JOB = JobId("a job/of, a client's..choice é")
DATA = bytes(range(256)) * 1000


async def keep(payloads: Payloads, *pieces: bytes, job_id: JobId = JOB) -> Spilled:
    draft = await payloads.begin(ENDPOINT, job_id)
    for piece in pieces:
        await draft.write(piece)
    return await draft.keep()


async def read(payloads: Payloads, payload: Spilled) -> bytes:
    reading = await payloads.open(payload)
    try:
        data = b""
        while piece := await reading.read(1000):
            assert len(piece) <= 1000
            data += piece
        return data
    finally:
        await reading.close()


def inputs_in(
    payloads: Payloads, store: JobStore, signals: Signals, clock: Clock, *, inline_bytes_max: int = 1 << 20
) -> Inputs:
    """Large ones lie in these payloads."""
    spills = Spills(payloads, store, clock, Carried(0))
    return Inputs(spills, store, signals, clock, inline_bytes_max=inline_bytes_max)


class MemoryPayloads:
    """`room` is how many bytes may still be written; while `moves` is not set, writing waits, while `opens` is not, opening.

    With `away` nothing can be kept, opened or listed. `spoils`: a draft that cannot be kept is spoiled.
    """

    def __init__(self) -> None:
        self.room = 1 << 40
        self.drafts = 0
        """Begun, and neither kept nor dropped."""
        self.written = 0
        self.held: dict[str, tuple[Kept, bytes]] = {}
        self.moves = asyncio.Event()
        self.moves.set()
        self.opens = asyncio.Event()
        self.opens.set()
        self.away = self.spoils = False
        self._last = 0

    async def begin(self, endpoint_id: EndpointId, job_id: JobId) -> "MemoryDraft":
        self._last += 1
        self.drafts += 1
        return MemoryDraft(self, Kept(f"payload-{self._last}", endpoint_id, job_id))

    async def open(self, payload: Spilled) -> "MemoryReading":
        await self.opens.wait()
        self.check()
        return MemoryReading(self.load(payload))

    def load(self, payload: Spilled) -> bytes:
        if payload.ref not in self.held or len(self.held[payload.ref][1]) != payload.size:
            raise NotFound(f"{payload.ref} is not there")
        return self.held[payload.ref][1]

    def check(self) -> None:
        if self.away:
            raise TooBusy("payloads are away; wait for them")

    async def kept(self) -> list[Kept]:
        self.check()
        return [kept for kept, _ in self.held.values()]

    async def forget(self, refs: Sequence[str]) -> None:
        for ref in refs:
            self.held.pop(ref, None)


class MemoryDraft:
    def __init__(self, payloads: MemoryPayloads, kept: Kept) -> None:
        self._payloads = payloads
        self._kept = kept
        self._data = bytearray()
        self._open = True
        self.spoiled = False

    async def write(self, piece: bytes) -> None:
        await self._payloads.moves.wait()
        if len(piece) > self._payloads.room:
            raise TooBusy("there is no room; free disk space, then try again")
        self._payloads.room -= len(piece)
        self._payloads.written += len(piece)
        self._data += piece

    async def keep(self) -> Spilled:
        self.spoiled = self._payloads.away and self._payloads.spoils
        self._payloads.check()
        self._close()
        self._payloads.held[self._kept.ref] = self._kept, bytes(self._data)
        return Spilled(self._kept.ref, len(self._data))

    async def drop(self) -> None:
        self._close()

    def _close(self) -> None:
        self._payloads.drafts -= self._open
        self._open = False


class MemoryReading:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, size: int) -> bytes:
        data, self.data = self.data[:size], self.data[size:]
        return data

    async def close(self) -> None:
        """Nothing is held."""
