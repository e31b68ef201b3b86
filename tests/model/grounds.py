"""What a machine's jobs are kept in, for every adapter of `JobStore`, and what is left of it for the next process."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.memory import MemoryJobs
from runyard.ports.stores import JobStore


class Ground(Protocol):
    async def open(self) -> JobStore:
        """The store of the next process, when there is none or the one before is closed or dead."""
        ...

    def dies(self) -> None:
        """The process dies now: what its store does from here on happens no more."""
        ...

    def close(self) -> None: ...


class MemoryGround:
    """The store itself outlives its process here, so that the services' part of a restart is seen by itself."""

    def __init__(self) -> None:
        self._store = MemoryJobs()

    async def open(self) -> JobStore:
        return self._store

    def dies(self) -> None:
        """It has no process."""

    def close(self) -> None:
        """Nothing is kept."""


class EmbeddedGround:
    """A process that dies leaves a copy of its files as they were at that moment."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "0" / "jobs.db"
        self._path.parent.mkdir()
        self._deaths = 0

    async def open(self) -> JobStore:
        # Cleaned all the time, and nearly all that has ended is put away. Not synced: a copy has what was written, as it is
        # after the death of a process.
        return EmbeddedJobs(self._path, synced=False, clean_from_bytes=1500, ended_max=10, pause_s=0)

    def dies(self) -> None:
        self._deaths += 1
        copy = Path(self._folder.name) / str(self._deaths) / "jobs.db"
        copy.parent.mkdir()
        for suffix in ("", "-wal"):  # What is mapped (-shm) goes with the process.
            if (file := self._path.with_name(f"jobs.db{suffix}")).exists():
                shutil.copyfile(file, copy.with_name(file.name))
        self._path = copy

    def close(self) -> None:
        self._folder.cleanup()
