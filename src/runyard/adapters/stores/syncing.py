"""Syncing SQLite's write-ahead log on a thread of its own.

With `synchronous = full` SQLite syncs the log at the end of each commit, and whoever commits waits. To commit takes some
microseconds and to sync some hundred, so the journal commits on the event loop with `normal`, which leaves out just that
sync, and does it here. All other syncs, of the log's header and at checkpoints, `normal` has as well.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue


class LogSync:
    """Syncs the log of the database `path` for the event loop that calls it."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + "-wal")
        self._file: int | None = None
        self._work: SimpleQueue[Callable[[OSError | None], None] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="job-journal-sync", daemon=True)

    def sync(self, done: Callable[[OSError | None], None]) -> None:
        """Make durable what has been committed, then call `done`, on the event loop, with what went wrong."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        self._work.put(done)

    def close(self) -> None:
        if self._loop is not None:
            self._work.put(None)
            self._thread.join()
        if self._file is not None:
            os.close(self._file)

    def _run(self) -> None:
        assert self._loop is not None
        while (done := self._work.get()) is not None:
            self._loop.call_soon_threadsafe(done, self._try())

    def _try(self) -> OSError | None:
        try:
            if self._file is None:  # SQLite makes it with the first commit, and keeps it while the database is open.
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            os.fdatasync(self._file)
        except OSError as error:
            return error
        return None
