"""The journal of jobs: records that go to disk in batches, in order, each batch one row and one commit.

*Group commit without a timer*: while one batch is being synced the next one collects, and it is written as soon as that
sync has ended. Whoever waits for a record waits for the commit that holds it. A record for which nobody waits hurries
nobody: it goes with the next commit, or after `LINGER_S`. A batch is written at the end of the turn of the event loop in
which somebody began to wait for it; at once, if nobody else has lately come in the same turn.

When a batch cannot be written, neither can what has been said after it, which builds on it: both are given up, `undo` is
called before anybody who waits hears of it, and the next record starts anew. So a full disk needs no restart.

SQLite appends commits to a log, which has to be copied into the database now and then. That is done beside the event loop;
the last of it, a few milliseconds, while the next batch collects: only a log that has been copied whole is begun anew,
and one that is written over takes half the time to sync that a growing one does.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from runyard.adapters.stores import records
from runyard.adapters.stores.batches import Also, Batch
from runyard.adapters.stores.snapshot import HeldSnapshot
from runyard.adapters.stores.sqlite import SQL, named_queries, open_database, transaction
from runyard.adapters.stores.syncing import LogSync
from runyard.domain.errors import RunyardError, TooBusy
from runyard.domain.job import JobId

log = logging.getLogger(__name__)

LINGER_S = 0.005
"""How long a record waits for company when nobody waits for it."""
HOLD_S = 1.0
"""At most so long a snapshot is held: others write to the file as well, and their log must not grow without end."""
LONE_TURNS_MIN = 8
"""Turns with a single one who waits before the next one is taken to be alone, too."""
LOG_PAGES = 2000
"""About 8 MiB: so large the log becomes before it is copied."""
_PAGE_BYTES = 4000
_T = TypeVar("_T")


class Journal:
    """Belongs to the event loop that calls it.

    `writing` is told when a batch goes to disk; what it returns are the last records of it. `written` is told the row in
    which it is there. `undo` is told that it, and all that has been said since, will not be.
    """

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        self._path = path
        self._queries = named_queries(SQL / "journal.sql")
        self._database = self._open()
        self._snapshot = HeldSnapshot(self._database)
        self._sync = LogSync(path) if synced else None
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-journal")
        self._reader = self._open()
        """For the thread beside the event loop."""
        self._open_batch = Batch()
        self._writing: Batch | None = None
        self._paused = False
        """Nothing may be written just now."""
        self._kicked = False
        """The turn of the event loop in which somebody began to wait is not over."""
        self._waiting = 0
        """So many have begun to wait since the end of the last such turn."""
        self._lone_turns = 0
        """In so many of them, one after the other, nobody came but one."""
        self._lingering: asyncio.TimerHandle | None = None
        self._log_pages = 0
        self._copying: asyncio.Task[None] | None = None
        self._doubtful = False
        """A sync has failed: nobody knows what of the log is on disk."""
        self._doubted: list[Also] = []
        """What was in the commit whose sync has failed."""
        self._row = 0
        self._rows: deque[tuple[int, int]] = deque()
        """Number and size of each row there is."""
        self.bytes = 0
        """Of all rows."""
        self.said = 0
        """The number of the last record."""
        self.kept = 0
        """The last record that is on disk, or was given up."""
        self._failing = False
        self.writing: Callable[[], list[bytes]] = list
        self.written: Callable[[int], None] = lambda row: None
        self.undo: Callable[[], None] = lambda: None
        self.disk_works: Callable[[bool], None] = lambda works: None
        """Told when a sync begins and when it has ended."""

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

    def read(self, statement: str) -> list[sqlite3.Row]:
        """Before anything is said: what other tables of the file hold."""
        return self._database.execute(statement).fetchall()

    async def fetch(self, statement: str, values: Mapping[str, object]) -> list[sqlite3.Row]:
        """Rows of other tables, read beside the event loop. What was last written may be in them and not on disk yet."""
        try:
            return await self._beside(lambda: self._reader.execute(statement, values).fetchall())
        except sqlite3.OperationalError as error:
            raise TooBusy(f"the job store cannot be read ({error}); try again later") from error

    def say(self, record: bytes, *also: Also) -> int:
        """Write this down. Returns its number, for `wait`."""
        self._open_batch.records.append(record)
        return self.do(*also)

    def do(self, *also: Also) -> int:
        """Execute these in one commit with what was said last, and what `writing` will say. Returns its number."""
        batch = self._open_batch
        if also:
            batch.also += also
        self.said += 1
        batch.last = self.said
        if not self._kicked and self._writing is None:
            self._linger()
        return self.said

    async def wait(self, number: int) -> None:
        """Until the record is on disk. Raises `TooBusy` when it could not be written."""
        if number <= self.kept:
            return
        batch = self._batch_of(number)
        self._waiting += 1
        if batch is self._open_batch and not batch.hurried:
            batch.hurried = True
            if self._writing is None and not self._kicked:
                self._kick()
                if self._lone_turns >= LONE_TURNS_MIN:
                    self._write()
        if not batch.over:
            waiter: asyncio.Future[None] = self._loop.create_future()
            batch.waiters.append(waiter)
            await waiter
        elif batch.error is not None:
            raise _cannot_write(batch.error)

    def if_lost(self, number: int, tell: Callable[[RunyardError], None]) -> None:
        """For who does not wait: `tell` is called if the record could not be written."""
        if number > self.kept:
            self._batch_of(number).lost.append(tell)

    def _batch_of(self, number: int) -> Batch:
        writing = self._writing
        return writing if writing is not None and number <= writing.last else self._open_batch

    async def close(self) -> None:
        """All that has been said is on disk, or given up, when this returns."""
        try:
            await self.wait(self.said)
        except TooBusy:
            log.error("the last changes to jobs could not be written")
        if self._copying is not None:
            await asyncio.wait([self._copying])
        if self._lingering is not None:
            self._lingering.cancel()
        self._snapshot.let_go()
        await self._beside(self._reader.close)
        self._aside.shutdown()
        if self._sync is not None:
            self._sync.close()
        self._database.close()

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
            rows = self._reader.execute(self._queries["up_to"], {"last": last}).fetchall()
            return [job_id for (row,) in rows for job_id in records.jobs_in(row)]

        return await self._beside(fetch)

    def clean(self, last: int) -> int:
        """Delete the rows up to `last`. Returns a number, for `wait`."""
        self._open_batch.clean_to = last
        return self.do()

    # Writing

    def _linger(self) -> None:
        if self._lingering is None:  # One that an earlier record has set comes sooner, and costs nothing.
            self._lingering = self._loop.call_later(LINGER_S, self._lingered)

    def _lingered(self) -> None:
        self._lingering = None
        self._write()

    def _kick(self) -> None:
        """Write when all that this turn of the loop has to say is said."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._turn_over)

    def _turn_over(self) -> None:
        self._kicked = False
        self._lone_turns = self._lone_turns + 1 if self._waiting < 2 else 0
        self._waiting = 0
        if self._open_batch.hurried:
            self._write()

    def _write(self) -> None:
        batch = self._open_batch
        if self._writing is not None or self._paused or not batch.last:
            return
        if self._doubtful:
            if self._copying is None:
                self._begin_anew()
            return
        self._writing, self._open_batch = batch, Batch()
        said = [*batch.records, *self.writing()]
        data = records.batch(said) if said else b""
        try:
            self._commit(data, batch)
        except sqlite3.Error as error:
            self._give_up(batch, error)
            return
        self._log_pages += 3 + (len(data) + sum(also.size for also in batch.also)) // _PAGE_BYTES
        if self._sync is None:
            self._done(batch, len(data), None)
            return
        self.disk_works(True)
        self._sync.sync(lambda error: self._synced(batch, len(data), error))

    def _synced(self, batch: Batch, size: int, error: OSError | None) -> None:
        self._done(batch, size, error)
        self.disk_works(False)

    def _commit(self, data: bytes, batch: Batch) -> None:
        self._snapshot.commit(lambda: self._execute(data, batch))
        if self._copying is None and self._snapshot.hold():
            self._loop.call_later(HOLD_S, self._snapshot.let_go)

    def _execute(self, data: bytes, batch: Batch) -> None:
        values = (self._row + 1, records.FORMAT, data)
        if not (batch.clean_to or batch.also):
            self._database.execute(self._queries["append"], values)
            return
        with transaction(self._database):
            if data:
                self._database.execute(self._queries["append"], values)
            if batch.clean_to:
                self._database.execute(self._queries["delete_up_to"], {"last": batch.clean_to})
            for also in batch.also:
                self._database.execute(also.statement, also.values)

    def _done(self, batch: Batch, size: int, error: OSError | None) -> None:
        if error is not None:
            self._doubtful, self._doubted = True, batch.also
            self._give_up(batch, error)
            return
        self._writing = None
        if self._failing:
            self._failing = False
            log.warning("changes to jobs are written again")
        if size:
            self._row += 1
            self._rows.append((self._row, size))
            self.bytes += size
        while self._rows and self._rows[0][0] <= batch.clean_to:
            self.bytes -= self._rows.popleft()[1]
        self.kept, batch.over = batch.last, True
        self.written(self._row)
        for also in batch.also:
            if also.kept is not None:
                also.kept()
        for waiter in batch.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._copy_if_due()
        if self._open_batch.hurried:
            self._kick()
        elif self._open_batch.last:
            self._linger()

    def _give_up(self, batch: Batch, error: BaseException) -> None:
        if not self._failing:  # Said once: those who try again are many.
            self._failing = True
            log.error("changes to jobs cannot be written for now: %s", error)
        self._writing = None
        batch.over, batch.error = True, error
        lost, self._open_batch = self._open_batch, Batch()
        self.kept = self.said
        self.undo()
        for waiter in (*batch.waiters, *lost.waiters):
            if not waiter.done():
                waiter.set_exception(_cannot_write(error))
        for tell in (*batch.lost, *lost.lost):
            tell(_cannot_write(error))

    # The log

    def _copy_if_due(self) -> None:
        if self._log_pages >= LOG_PAGES and self._copying is None:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._copying = self._loop.create_task(self._copy(), name="copy the job journal's log")

    async def _copy(self) -> None:
        """Copy the log into the database, so that the next commit begins it anew."""
        try:
            self._snapshot.let_go()
            if not self._doubtful:
                await self._beside(lambda: self._checkpoint("passive"))
            self._paused = True
            if self._writing is not None:
                await self.wait(self._writing.last)
            await self._beside(self._empty_log)
            self._doubtful = False
        except (sqlite3.Error, TooBusy) as error:
            log.warning("the log of the job journal cannot be copied yet: %s", error)
            if self._doubtful:
                self._give_up(self._open_batch, error)
        self._log_pages = 0
        self._paused = False
        self._copying = None
        self._write()

    def _empty_log(self) -> None:
        """On the thread beside the event loop, while nothing is being written."""
        if self._doubtful:
            self._reader.execute(self._queries["delete_after"], {"last": self._row})
            for also in self._doubted:
                if also.undo is not None:
                    self._reader.execute(also.undo, also.values)
        if not self._checkpoint("restart") and self._doubtful:
            raise sqlite3.OperationalError("after a sync that failed, the log of the database is in use")

    def _checkpoint(self, mode: str) -> bool:
        """Whether all of the log has been copied."""
        busy, size, copied = self._reader.execute(f"pragma wal_checkpoint({mode})").fetchone()
        return not busy and size == copied

    def _open(self) -> sqlite3.Connection:
        database = open_database(self._path)
        # A commit is in the kernel's hands in any case, so that no process takes it along. NORMAL and not OFF: the file is
        # shared with endpoints and keys, and a copy of the log into it that is not synced in order can ruin them.
        database.execute("pragma synchronous = normal")
        database.execute("pragma wal_autocheckpoint = 0")
        return database

    async def _beside(self, work: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._aside, work)

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: to find it out is a system call."""
        return asyncio.get_running_loop()


def _cannot_write(error: BaseException) -> TooBusy:
    return TooBusy(f"the job store cannot write ({error}); free disk space, then try again")
