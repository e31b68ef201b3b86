"""From the bytes a process writes to lines of text."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

LINE_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024
"""At once: as much as a pipe holds, unless somebody enlarges it."""


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


class Lines:
    """Reads a pipe and passes its lines on as they come, until that ends or is closed. The pipe's end is its own.

    It reads when the loop has time: a process that writes faster waits at its pipe, so memory is bounded.
    """

    def __init__(self, pipe: int, say: Callable[[str], None]) -> None:
        """`pipe` is a file descriptor."""
        # Not `connect_read_pipe`: uvloop's closes the descriptor, and then once more the file that it was given, and in
        # between the number may have become another thread's.
        self._loop = asyncio.get_running_loop()
        self._pipe: int | None = pipe
        self._say = say
        self._splitter = LineSplitter()
        self.ended = self._loop.create_future()
        """Done when nobody has the other end of the pipe any more, or this one is closed, and all lines were said."""
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read, pipe)

    def close(self) -> None:
        """Read no more; what was read of a last line is said. Closed twice, it is closed."""
        if self._pipe is None:
            return
        pipe, self._pipe = self._pipe, None
        self._loop.remove_reader(pipe)
        os.close(pipe)
        for line in self._splitter.end():
            self._say(line)
        if not self.ended.done():
            self.ended.set_result(None)

    def _read(self, pipe: int) -> None:
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        for line in self._splitter.feed(data):
            self._say(line)


def listen(say: Callable[[str], None]) -> tuple[Lines, int]:
    """A new pipe, heard by `say`, and the file descriptor to write to it; who calls closes both."""
    read, write = os.pipe()
    return Lines(read, say), write


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
