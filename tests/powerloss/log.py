"""The log of what a process did to a folder: records as `shim.c` writes them, and acknowledgements between them.

Standard library only and quick to import: the process under test has it, too.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = "RUNYARD_POWERLOSS_FOLDER"
LOG = "RUNYARD_POWERLOSS_LOG"
FAULTS = "RUNYARD_POWERLOSS_FAULTS"

_HEADER = struct.Struct("=IIQQQ")
_MARK = 0x52590000


class Kind(enum.IntEnum):
    """What was done, and what a record's fields then say."""

    WRITE = 1  # offset, payload: the bytes
    TRUNCATE = 2  # offset: the size, which may be larger than before
    SYNC_BEGIN = 3  # other: which sync
    SYNC_END = 4  # other: which sync; offset: errno, or 0
    CREATE = 5  # other: the parent; offset: mode; payload: name
    LINK = 6  # other: the parent; payload: name
    UNLINK = 7  # other: the parent; payload: name
    RENAME = 8  # other: the old parent; offset: the new parent; payload: old name / new name
    ACK = 9  # payload: the token
    UNMODELLED = 10  # payload: what was done
    START = 11  # inode: the folder. What stands before was on disk when recording began.


class Record(NamedTuple):
    kind: int
    inode: int
    offset: int
    other: int
    payload: bytes


class Unmodelled(Exception):
    """The process did what cannot be rebuilt, so what would be rebuilt might be wrong."""


class Acks:
    """Where the process under test, or the client that drives it, says what it holds to be safe.

    Tell a write's token once the write was acknowledged: its place in the log is then after all that the
    acknowledgement rests upon. Threads and processes may share the log. Outside the rig it does nothing.
    """

    def __init__(self, log: str | os.PathLike[str] | None = None) -> None:
        path = log or os.environ.get(LOG)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC) if path else None

    def tell(self, token: str | int | bytes) -> None:
        payload = token if isinstance(token, bytes) else str(token).encode()
        record = packed(Record(Kind.ACK, 0, 0, 0, payload))
        if self._file is not None and os.write(self._file, record) != len(record):
            raise OSError(f"the power-loss log took only a part of the acknowledgement {payload!r}")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def packed(record: Record) -> bytes:
    head = _HEADER.pack(_MARK | record.kind, len(record.payload), record.inode, record.offset, record.other)
    return head + record.payload


def read_log(path: Path) -> Iterator[Record]:
    """All records, in order. One that a killed process left unfinished at the end is left out."""
    data = path.read_bytes()
    start = 0
    while start + _HEADER.size <= len(data):
        mark, length, inode, offset, other = _HEADER.unpack_from(data, start)
        if mark & 0xFFFF0000 != _MARK:
            raise ValueError(f"{path} is no log of the shim at byte {start}")
        end = start + _HEADER.size + length
        if end > len(data):
            return
        payload = data[start + _HEADER.size : end]
        if mark & 0xFFFF == Kind.UNMODELLED:
            raise Unmodelled(f"the process under test did what the rig does not model: {payload.decode()}")
        yield Record(mark & 0xFFFF, inode, offset, other, payload)
        start = end
