"""How much can still be written to the data directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path


def lacks(folder: Path, reserve_bytes: int) -> int:
    """How many bytes are missing until so many are free there; 0 where there is no such folder, as on another machine."""
    try:
        return max(0, reserve_bytes - shutil.disk_usage(folder).free)
    except OSError:
        return 0


class DataDisk:
    """A `Disk`: the file system of the folder `root`, and the pages of `database` that hold nothing any more.

    A database file never shrinks, so what jobs leave behind in it is free only there. Without these pages a disk that
    Runyard itself had filled would count as full for ever.
    """

    def __init__(self, root: Path, database: Path) -> None:
        self._root = root
        self._database = database

    async def free_bytes(self) -> int:
        return await asyncio.to_thread(self._free)  # A network file system may take its time.

    def _free(self) -> int:
        room = os.statvfs(self._root)
        return room.f_bavail * room.f_frsize + self._reusable()

    def _reusable(self) -> int:
        with suppress(sqlite3.Error):  # Busy or damaged: whoever writes to it will say so.
            connection = sqlite3.connect(f"{self._database.as_uri()}?mode=rw", uri=True, timeout=0)
            try:
                (pages,) = connection.execute("pragma freelist_count").fetchone()
                (page_bytes,) = connection.execute("pragma page_size").fetchone()
                return pages * page_bytes
            finally:
                connection.close()
        return 0
