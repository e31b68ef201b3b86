"""Log lines on disk: written some at a time, so that a line costs an entry in a list, and read when memory has let go.

What waits to be written is read as well. While the disk is full, whose reserve is for jobs, nothing is written: the oldest
lines that wait are given up when there are too many, and a line says how many are missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace

from runyard.domain.errors import RunyardError
from runyard.domain.job import EndpointId
from runyard.ports.logs import Cursor, LogLine, LogQuery, LogStore
from runyard.ports.runtime import LogSource
from runyard.ports.system import Clock
from runyard.services.logs import BEGINNING, Logs

log = logging.getLogger("runyard")

WRITE_EVERY_S = 0.5
WRITE_LINES_MAX = 2_000
"""In one transaction, so that who reads does not wait for long."""
WAITING_LINES_MAX = 50_000
TRIM_EVERY_S = 300.0
TRIM_PAUSE_S = 0.02
"""Between transactions of forgetting: readers and writers come first."""
DAY_S = 86_400.0


class KeptLogs:
    """An `Older` over a `LogStore`. `load` comes before the first line, `run` is the loop, `close` writes the last lines."""

    def __init__(
        self,
        store: LogStore,
        logs: Logs,
        clock: Clock,
        *,
        keep_s: float,
        bytes_max: int,
        endpoints: Callable[[], Collection[EndpointId]],
        is_full: Callable[[], bool],
    ) -> None:
        self._store = store
        self._logs = logs
        self._clock = clock
        self._keep_s = keep_s
        self._bytes_max = bytes_max
        self._endpoints = endpoints
        self._is_full = is_full
        self._waiting: deque[LogLine] = deque()
        self._missing = 0
        self._writing = asyncio.Lock()
        self._failing = False

    async def load(self) -> None:
        """Go on after what is there."""
        self._logs.go_on_after(await self._store.newest() or BEGINNING)
        self._logs.older = self

    async def run(self) -> None:
        """Write and forget for ever."""
        trim_at = 0.0
        while True:
            await self._write()
            # A little at a time: what comes meanwhile must not wait until all is forgotten.
            if self._clock.now() >= trim_at and not await self.trim():
                trim_at = self._clock.now() + TRIM_EVERY_S
            await self._clock.sleep(WRITE_EVERY_S if self._clock.now() < trim_at else TRIM_PAUSE_S)

    async def close(self) -> None:
        await self._write()
        await self._store.close()

    def add(self, line: LogLine) -> None:
        if len(self._waiting) >= WAITING_LINES_MAX:
            self._waiting.popleft()
            self._missing += 1
        self._waiting.append(line)

    async def after(self, query: LogQuery, cursor: Cursor, upto: Cursor, limit: int) -> list[LogLine]:
        await self._write()
        found = await self._read(query, self._store.after(query, cursor, upto, limit))
        place = found[-1].cursor if found else cursor
        return [*found, *self._unwritten(query, place, upto)][:limit]

    async def last(self, query: LogQuery, upto: Cursor, count: int) -> list[LogLine]:
        await self._write()
        found = await self._read(query, self._store.last(query, upto, count))
        place = found[-1].cursor if found else BEGINNING
        return [*found, *self._unwritten(query, place, upto)][-count:]

    async def trim(self) -> bool:
        """Forget some of what is too old, of what deleted endpoints have left, and of what the budget has no room for. True:
        there may be more.
        """
        before = self._clock.now() - self._keep_s
        try:
            return await self._store.trim(endpoints=self._endpoints(), before=before, bytes_max=self._bytes_max)
        except RunyardError as error:
            log.warning("old log lines stay for now: %s", error)
            return False

    async def _read(self, query: LogQuery, reading: Awaitable[list[LogLine]]) -> list[LogLine]:
        try:
            return await reading
        except RunyardError as error:
            log.warning("log lines of %s cannot be read: %s", query.endpoint_id, error)
            return []

    def _unwritten(self, query: LogQuery, place: Cursor, upto: Cursor) -> Iterator[LogLine]:
        waiting = (line for line in self._waiting if place < line.cursor <= upto)
        return (line for line in waiting if line.endpoint_id == query.endpoint_id and query.matches(line))

    async def _write(self) -> None:
        """All that waits now."""
        async with self._writing:
            while self._waiting and not self._is_full():
                lines = [line for line, _ in zip(self._waiting, range(WRITE_LINES_MAX), strict=False)]
                missing = self._missing
                try:
                    await self._store.add([_gap(lines[0], missing), *lines] if missing else lines)
                except RunyardError as error:
                    self._fails(error)
                    return
                self._failing = False
                self._missing -= missing
                self._written(lines)

    def _written(self, lines: list[LogLine]) -> None:
        """Some of them may have been given up meanwhile."""
        last = lines[-1].cursor
        while self._waiting and self._waiting[0].cursor <= last:
            self._waiting.popleft()

    def _fails(self, error: RunyardError) -> None:
        if not self._failing:
            log.warning("log lines cannot be kept: %s; %d wait", error, len(self._waiting))
        self._failing = True


def _gap(before: LogLine, missing: int) -> LogLine:
    """Stands where the lines would that are missing."""
    place = replace(before, seq=before.seq - 1, source=LogSource.SYSTEM, job_id=None)
    return replace(place, line=f"[{missing} lines are missing here, since the disk did not take them]")
