"""From the bytes a process writes to lines of text."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

LINE_BYTES_MAX = 64 * 1024


class LineSplitter:
    """Lines without their ends, as text; bytes that are not UTF-8 become U+FFFD.

    A line longer than `LINE_BYTES_MAX` comes in pieces of at most that, none of which cuts a character in two. Holds no
    more than one such piece.
    """

    def __init__(self, rest: bytes = b"") -> None:
        """`rest`: what another has left."""
        self._rest = bytearray(rest)

    @property
    def pending(self) -> int:
        """Bytes of a line that has not ended yet."""
        return len(self._rest)

    @property
    def rest(self) -> bytes:
        """The bytes themselves."""
        return bytes(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        self._rest += data
        *whole, rest = self._rest.split(b"\n")
        pieces = [piece for line in whole for piece in _pieces(line.removesuffix(b"\r"))]
        *early, self._rest = _pieces(rest)
        return [_text(piece) for piece in (*pieces, *early)]

    def end(self) -> list[str]:
        """The last line, when no line end came after it."""
        rest, self._rest = self._rest, bytearray()
        return [_text(rest)] if rest else []


class Lines(asyncio.Protocol):
    """Listens to a pipe and passes its lines on as they come."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._splitter = LineSplitter()
        self.ended = asyncio.get_running_loop().create_future()
        """Done when nobody has the other end of the pipe any more, and all lines were said."""

    def data_received(self, data: bytes) -> None:
        for line in self._splitter.feed(data):
            self._say(line)

    def connection_lost(self, exc: Exception | None) -> None:
        for line in self._splitter.end():
            self._say(line)
        if not self.ended.done():
            self.ended.set_result(None)


async def listen(say: Callable[[str], None]) -> tuple[asyncio.ReadTransport, Lines, int]:
    """A new pipe, heard by `say`, and the file descriptor to write to it; who calls closes that.

    The loop reads when it has time: a process that writes faster waits at its pipe, so memory is bounded.
    """
    read, write = os.pipe()
    source = os.fdopen(read, "rb", buffering=0)
    transport, lines = await asyncio.get_running_loop().connect_read_pipe(lambda: Lines(say), source)
    return transport, lines, write


def _pieces(line: bytearray) -> list[bytearray]:
    """The line cut to size; at least one piece."""
    pieces: list[bytearray] = []
    while len(line) > LINE_BYTES_MAX:
        cut = _character_border(line, LINE_BYTES_MAX)
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


def _character_border(line: bytearray, at: int) -> int:
    """The last border between UTF-8 characters at or before `at`; `at` itself when the bytes are not UTF-8."""
    for border in range(at, at - 4, -1):
        if line[border] & 0b1100_0000 != 0b1000_0000:
            return border
    return at


def _text(line: bytearray) -> str:
    return line.decode("utf-8", errors="replace")
