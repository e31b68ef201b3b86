"""A large result on its way out: from disk as its reader takes it, with a bound on what is in memory."""

from __future__ import annotations

import asyncio

from runyard.domain.payload import Spilled
from runyard.edge.exchange import Exchange
from runyard.ports.payloads import Reading
from runyard.services.spill import Spills

PIECE_BYTES = 128 * 1024
_OUTPUT = b',"output":'
_HEADERS = b"content-type: application/json\r\n"


async def respond(x: Exchange, spills: Spills, output: Spilled, body: bytes) -> None:
    """Answer with `body`, a JSON object that shows a job without its output, and that output in it.

    Raises `NotFound` when the output is lost, `TooBusy` when it cannot be read just now.
    """
    room, size = asyncio.Event(), len(body) + len(_OUTPUT) + output.size
    reading = await spills.open(output)
    try:
        if not x.response_started and x.begin(200, _HEADERS, room.set, size=size):
            await _pour(x, reading, body, room)
    finally:
        await reading.close()


async def end(x: Exchange, reading: Reading, body: bytes) -> None:
    """As `respond`, where the head of the answer is out already, and the output is open."""
    room = asyncio.Event()
    try:
        if x.go_on(room.set):
            await _pour(x, reading, body, room)
    finally:
        await reading.close()


async def _pour(x: Exchange, reading: Reading, body: bytes, room: asyncio.Event) -> None:
    x.on_end(room.set)
    x.send(body.removesuffix(b"}") + _OUTPUT)
    while piece := await reading.read(PIECE_BYTES):
        if not await _sent(x, piece, room):
            return
    await _sent(x, b"}", room)
    x.end()


async def _sent(x: Exchange, piece: bytes, room: asyncio.Event) -> bool:
    """Send it, then wait until the client can take more; False when it has left."""
    x.send(piece)
    while x.open_for_answer and x.clogged:
        room.clear()
        await room.wait()
    return x.open_for_answer
