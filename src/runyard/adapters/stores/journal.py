"""The journal of jobs: records that go to disk in batches, in order, each batch one row and one commit.

*Group commit without a timer*: while one batch is being written the next one collects, and it is written as soon as the
last commit has ended. Whoever waits for a record waits for the commit that holds it.

When a batch cannot be written, neither can what has been said after it, which builds on it: both are given up, `undo` is
called before anybody who waits hears of it, and the next record starts anew. So a full disk needs no restart.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from runyard.adapters.stores import records
from runyard.adapters.stores.sqlite import SQL, named_queries, open_database, transaction
from runyard.domain.errors import RunyardError, TooBusy
from runyard.domain.job import JobId

log = logging.getLogger(__name__)

BATCH_BYTES_MAX = 64 << 20
WAL_PAGES_MAX = 4000
"""About 16 MiB: then the write-ahead log is copied into the database, between two commits."""


class Also(NamedTuple):
    """A statement for the commit of what is said with it. `kept` is called when that is on disk."""

    statement: str
    values: Mapping[str, object]
    kept: Callable[[], None] | None = None


class _Batch:
    __slots__ = ("also", "bytes", "clean_to", "last", "records", "waiters")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.also: list[Also] = []
        self.bytes = 0
        self.last = 0
        """The number of its last record."""
        self.waiters: list[asyncio.Future[None]] = []
        self.clean_to = 0
        """Rows up to this one are deleted with it."""


class Journal:
    """Belongs to the event loop that calls it. `written` is told of each commit: its row, the number of its last record."""

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        self._path = path
        self._synced = synced
        self._queries = named_queries(SQL / "journal.sql")
        self._database = self._open()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-journal")
        self._open_batch = _Batch()
        self._writing: _Batch | None = None
        self._kicked = False
        self._row = 0
        self._rows: deque[tuple[int, int]] = deque()
        """Number and size of each row there is."""
        self.bytes = 0
        """Of all rows."""
        self.said = 0
        """The number of the last record."""
        self.kept = 0
        """The last record that is on disk, or was given up."""
        self.written: Callable[[int, int], None] = lambda row, last: None
        self.undo: Callable[[], None] = lambda: None

    def load(self) -> Iterator[tuple[int, bytes]]:
        """All rows, as they were when the platform started."""
        for number, format, row in self._database.execute(self._queries["load"]):
            if format != records.FORMAT:
                raise RunyardError(
                    f"row {number} of the job journal has format {format}, which this Runyard cannot read: upgrade, or name "
                    "another data directory"
                )
            self._row = number
            self._rows.append((number, len(row)))
            self.bytes += len(row)
            yield number, row

    def say(self, record: bytes, *also: Also) -> int:
        """Write this down, soon. Returns its number, for `wait`."""
        batch = self._open_batch
        batch.records.append(record)
        batch.bytes += len(record)
        return self.do(*also)

    def do(self, *also: Also) -> int:
        """Execute these statements, soon, in one commit with what has just been said. Returns a number, for `wait`."""
        batch = self._open_batch
        if also:
            batch.also += also
        self.said += 1
        batch.last = self.said
        if self._writing is None and not self._kicked:
            self._kicked = True
            # Not at once: what else is said in this turn of the loop goes into the same commit.
            asyncio.get_running_loop().call_soon(self._write)
        return self.said

    async def wait(self, number: int) -> None:
        """Until the record is on disk. Raises `TooBusy` when it could not be written."""
        if number <= self.kept:
            return
        writing = self._writing
        batch = writing if writing is not None and number <= writing.last else self._open_batch
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch.waiters.append(waiter)
        await waiter

    async def close(self) -> None:
        """All that has been said is on disk, or given up, when this returns."""
        try:
            await self.wait(self.said)
        except TooBusy:
            log.error("the last changes to jobs could not be written")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()

    def read(self, statement: str) -> list[sqlite3.Row]:
        """Before anything is said: what other tables of the file hold."""
        return self._database.execute(statement).fetchall()

    async def fetch(self, statement: str, values: Mapping[str, object]) -> list[sqlite3.Row]:
        """Rows as they are on disk. Commits wait meanwhile, so it is to be quick."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._database.execute(statement, values).fetchall()
        )

    # Cleaning

    def oldest(self, bytes_max: int) -> int:
        """The last of the oldest rows that hold up to `bytes_max` bytes, at least one of them; 0 when there is none."""
        size, found = 0, 0
        for number, length in self._rows:
            size += length
            if found and size > bytes_max:
                break
            found = number
        return found

    async def jobs_up_to(self, last: int) -> list[JobId]:
        """The jobs that rows up to number `last` hold in full."""

        def fetch() -> list[JobId]:
            rows = self._database.execute(self._queries["up_to"], {"last": last})
            return [job_id for (row,) in rows for job_id in records.jobs_in(row)]

        return await asyncio.get_running_loop().run_in_executor(self._thread, fetch)

    def clean(self, last: int) -> None:
        """Delete the rows up to `last`, in the commit that holds what has just been said."""
        self._open_batch.clean_to = last

    # Writing

    def _write(self) -> None:
        self._kicked = False
        if self._writing is not None or not (self._open_batch.records or self._open_batch.also):
            return
        batch = self._writing = self._open_batch
        self._open_batch = _Batch()
        row = self._row + 1
        data = records.batch(batch.records) if batch.records else b""
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, row, data, batch)
        writing.add_done_callback(lambda done: self._done(batch, row, len(data), done.exception()))

    def _commit(self, row: int, data: bytes, batch: _Batch) -> None:
        """On the journal's thread."""
        values = {"number": row, "format": records.FORMAT, "records": data}
        try:
            if batch.clean_to or batch.also:
                with transaction(self._database):
                    if data:
                        self._database.execute(self._queries["append"], values)
                    if batch.clean_to:
                        self._database.execute(self._queries["delete_up_to"], {"last": batch.clean_to})
                    for also in batch.also:
                        self._database.execute(also.statement, also.values)
            else:
                self._database.execute(self._queries["append"], values)
        except sqlite3.Error:
            # After a failed sync nobody knows what the file holds: SQLite is to read it anew.
            self._database.close()
            self._database = self._open()
            raise

    def _done(self, batch: _Batch, row: int, size: int, error: BaseException | None) -> None:
        self._writing = None
        if error is not None:
            self._give_up(batch, error)
            return
        if size:
            self._row = row
            self._rows.append((row, size))
            self.bytes += size
        while self._rows and self._rows[0][0] <= batch.clean_to:
            self.bytes -= self._rows.popleft()[1]
        self.kept = batch.last
        self.written(row, batch.last)
        for also in batch.also:
            if also.kept is not None:
                also.kept()
        for waiter in batch.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._write()

    def _give_up(self, batch: _Batch, error: BaseException) -> None:
        log.error("changes to jobs cannot be written: %s", error)
        lost, self._open_batch = self._open_batch, _Batch()
        self.kept = self.said
        self.undo()
        for waiter in (*batch.waiters, *lost.waiters):
            if not waiter.done():
                waiter.set_exception(TooBusy(f"the job store cannot write ({error}); free disk space, then try again"))

    def _open(self) -> sqlite3.Connection:
        database = open_database(self._path)
        database.execute(f"pragma synchronous = {'full' if self._synced else 'off'}")
        database.execute(f"pragma wal_autocheckpoint = {WAL_PAGES_MAX}")
        return database
