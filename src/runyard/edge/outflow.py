"""A large result on its way out: from disk as its reader takes it, with a bound on what is in memory."""

from __future__ import annotations

import asyncio

from runyard.domain.job import Job
from runyard.domain.payload import Spilled
from runyard.edge.exchange import Exchange
from runyard.services.spill import Spills

PIECE_BYTES = 128 * 1024
_HEADERS = b"content-type: application/json\r\n"


async def respond(x: Exchange, spills: Spills, job: Job, body: bytes, *, begun: bool = False) -> None:
    """Answer with `body`, a JSON object that shows a job: with its output already, or without if that is large. `begun`: the
    head of the answer is out already.

    Raises `NotFound` when the output is lost.
    """
    if not isinstance(job.output, Spilled):
        if begun:
            x.end(body)
        else:
            x.respond(200, body)
        return
    reading = await spills.open(job.output)
    try:
        if x.open_for_answer and (begun or not x.response_started):
            head = body.removesuffix(b"}") + b',"output":'
            room = asyncio.Event()
            x.on_end(room.set)
            size = len(head) + job.output.size + 1
            if x.go_on(room.set) if begun else x.begin(200, _HEADERS, room.set, size=size):
                x.send(head)
                while piece := await reading.read(PIECE_BYTES):
                    if not await _sent(x, piece, room):
                        return
                await _sent(x, b"}", room)
                x.end()
    finally:
        await reading.close()


async def _sent(x: Exchange, piece: bytes, room: asyncio.Event) -> bool:
    """Send it, then wait until the client can take more; False when it has left."""
    x.send(piece)
    while x.open_for_answer and x.clogged:
        room.clear()
        await room.wait()
    return x.open_for_answer


async def load(spills: Spills, payload: Spilled) -> bytes:
    """All of it, where it is small enough for that."""
    reading = await spills.open(payload)
    try:
        pieces: list[bytes] = []
        while piece := await reading.read(PIECE_BYTES):
            pieces.append(piece)
    finally:
        await reading.close()
    return b"".join(pieces)
