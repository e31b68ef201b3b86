"""A worker's output between the worker and the server, on disk."""

from __future__ import annotations

import os
from contextlib import suppress

SPOOL_BYTES_MAX = 4 << 20
"""Output of one worker that the server has not read yet."""


class Spool:
    """What a worker has written and the server has not read yet. Places are counted from the worker's first byte."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.base = self.read = self.end = 0
        """The file begins at `base`; the server is done with what lies before `read`."""

    @property
    def full(self) -> bool:
        return self.end - self.base >= SPOOL_BYTES_MAX

    def write(self, data: bytes) -> None:
        with suppress(OSError):  # A full disk costs lines; a worker must not end for it.
            self.end += os.pwrite(self._file, data, self.end - self.base)

    def done(self, upto: int) -> None:
        """The server needs nothing before `upto`. It reads nothing until it is told again, so the file may be moved."""
        self.read = max(self.read, min(upto, self.end))
        # Moving only when half is done with keeps the cost of a flood at one copy of each byte.
        if self.read - self.base >= SPOOL_BYTES_MAX // 2 or self.read == self.end:
            rest = os.pread(self._file, self.end - self.read, self.read - self.base)
            os.pwrite(self._file, rest, 0)
            os.ftruncate(self._file, len(rest))
            self.base = self.read

    def close(self) -> None:
        os.close(self._file)
