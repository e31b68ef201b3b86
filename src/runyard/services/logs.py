"""What workers said, and what the platform said about them: the last lines of each in memory, and all on disk where there
is one (kept_logs.py).

Each worker has a ring of lines. A worker that has stopped keeps its ring, since its last words say why, until memory is
wanted; then the ring of the worker that stopped first goes. Lines are ordered by time and, within a millisecond, by a
number; time never runs backwards here, so a reader needs to remember only the last line it has seen. That is also all a
follower holds: it is woken and reads what came since. The *horizon* of an endpoint is its youngest line that is not in
memory any more. What lies up to it is read from disk, or else a follower is told that it is gone.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from runyard.domain.attempt import bounded
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.ports.logs import Cursor, LogLine, LogQuery
from runyard.ports.runtime import LogSource
from runyard.ports.system import Clock

LINES_MAX = 5_000
"""Lines kept per worker."""
LINE_LENGTH_MAX = 16_384
"""Characters kept of one line; the official SDK stops at 4,096 of its own accord."""
BYTES_MAX = 64 << 20
"""Memory for all lines together, roughly."""
TAIL_DEFAULT = 100
LAST_WORDS_SCAN_MAX = 200
"""Lines of a worker that are looked through for those about one job."""
READ_MAX = 500
"""Lines a follower reads at once."""
SEQ_MAX = 10**12 - 1
_OVERHEAD_BYTES = 200
_KEPT_AFTER_SHRINKING = 15 / 16
_SDK_LINE = '{"requestId":'
BEGINNING = Cursor(0, 0)


class Older(Protocol):
    """Keeps every line, and has those that memory has let go of."""

    def add(self, line: LogLine) -> None: ...

    async def after(self, query: LogQuery, cursor: Cursor, upto: Cursor, limit: int) -> list[LogLine]:
        """As `LogStore`, but never raises."""
        ...

    async def last(self, query: LogQuery, upto: Cursor, count: int) -> list[LogLine]: ...


class Logs:
    """Use it from the event loop's thread only."""

    def __init__(self, clock: Clock, *, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._clock = clock
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._seq = 0
        self._ts = 0.0
        self._rings: dict[WorkerId, _Ring] = {}
        self._ended: dict[WorkerId, None] = {}
        """Stopped workers, the first to stop first."""
        self._followers: dict[EndpointId, list[Follower]] = {}
        self.redact: Callable[[EndpointId, str], str] = lambda endpoint_id, line: line
        """Takes out of each line what may not be kept."""
        self.older: Older | None = None
        """Set where lines are kept on disk."""
        self._begun = BEGINNING
        self._horizons: dict[EndpointId, Cursor] = {}

    def go_on_after(self, cursor: Cursor) -> None:
        """Lines up to this one are those of an earlier platform process, and are with `older`."""
        self._begun = cursor
        self._ts, self._seq = max(self._ts, cursor.ms / 1000), max(self._seq, cursor.seq)

    def horizon(self, endpoint_id: EndpointId) -> Cursor:
        """Memory has all lines of the endpoint that came after it."""
        return max(self._begun, self._horizons.get(endpoint_id, BEGINNING))

    def append(
        self,
        worker_id: WorkerId,
        endpoint_id: EndpointId,
        line: str,
        *,
        source: LogSource = LogSource.CONTAINER,
        job_id: JobId | None = None,
    ) -> None:
        """Keep a line. `job_id` is the job it must be about: the worker holds that one alone.

        A line of the official SDK names its job itself, or says that it is about none (contract E.4). An error is about this
        one even then.
        """
        if source is LogSource.CONTAINER and line.startswith(_SDK_LINE):
            job_id = _job_named_in(line, job_id)
        self._ts = max(self._ts, round(self._clock.now(), 3))
        self._seq += 1
        line = _clean(self.redact(endpoint_id, line))
        kept = LogLine(self._ts, self._seq, source, line, worker_id, endpoint_id, job_id)
        self._ring(worker_id, endpoint_id).append(kept)
        self._bytes += _size(kept)
        if self.older is not None:
            self.older.add(kept)
        self._trim(worker_id)
        for follower in self._followers.get(endpoint_id, ()):
            follower.notice(kept)

    def worker_stopped(self, worker_id: WorkerId) -> None:
        """Its lines may go when memory is wanted."""
        if worker_id in self._rings:
            self._ended.setdefault(worker_id)

    async def knows(self, endpoint_id: EndpointId, worker_id: WorkerId) -> bool:
        """Whether the worker is the endpoint's and has said something that is still here."""
        query = LogQuery(endpoint_id=endpoint_id, worker_id=worker_id)
        if self._rings_of(query):
            return True
        return self.older is not None and bool(await self.older.last(query, self.horizon(endpoint_id), 1))

    def tail(self, worker_id: WorkerId, count: int) -> list[LogLine]:
        """The worker's last lines, oldest first."""
        ring = self._rings.get(worker_id)
        return [] if ring is None or count <= 0 else list(ring.lines)[-count:]

    def last_words(self, worker_id: WorkerId, job_id: JobId) -> tuple[str, ...]:
        """What the worker itself has said last, without what is about another job: the evidence of how a job ended."""
        lines = self.tail(worker_id, LAST_WORDS_SCAN_MAX)
        said = (line for line in lines if line.source is LogSource.CONTAINER and line.job_id in (None, job_id))
        return bounded(line.line for line in said)

    @contextmanager
    def follow(
        self,
        query: LogQuery,
        *,
        after: Cursor | None = None,
        since: float | None = None,
        tail: int = TAIL_DEFAULT,
    ) -> Generator[Follower]:
        """A reader that begins after `after`, else with the first line at or after `since`, else `tail` lines back."""
        if after is None and since is not None:
            after = Cursor(round(since * 1000), -1)
        follower = Follower(self, query, after, 0 if after is not None else tail)
        self._followers.setdefault(query.endpoint_id, []).append(follower)
        try:
            yield follower
        finally:
            self._leave(follower)

    def forget_endpoint(self, endpoint_id: EndpointId) -> None:
        """Drop the lines of all its workers and end its followers (contract D.7)."""
        for worker_id in [id for id, ring in self._rings.items() if ring.endpoint_id == endpoint_id]:
            self._drop(worker_id)
        self._horizons.pop(endpoint_id, None)
        for follower in self._followers.get(endpoint_id, ()):
            follower.end()

    def close(self) -> None:
        """End all followers: the platform stops."""
        for followers in self._followers.values():
            for follower in followers:
                follower.end()

    def pack(self) -> Iterator[bytes]:
        """All lines as JSON, oldest first of each worker, for `unpack` in the next platform process."""
        for worker_id, ring in self._rings.items():
            for line in ring.lines:
                row = (line.ts, line.seq, line.source.value, line.line, worker_id, ring.endpoint_id, line.job_id)
                yield json.dumps(row).encode() + b"\n"

    def unpack(self, rows: Iterable[bytes]) -> None:
        """Go on where another process has stopped, with its lines. Workers count as stopped until `worker_goes_on`."""
        for row in rows:
            ts, seq, source, text, worker_id, endpoint_id, job_id = json.loads(row)
            self._ts, self._seq = max(self._ts, ts), max(self._seq, seq)
            line = LogLine(ts, seq, LogSource(source), text, WorkerId(worker_id), EndpointId(endpoint_id), job_id)
            self._ring(line.worker_id, line.endpoint_id).append(line)
            self._ended.setdefault(line.worker_id)
            self._bytes += _size(line)
            self._trim(line.worker_id)

    def worker_goes_on(self, worker_id: WorkerId) -> None:
        """It has not stopped after all."""
        self._ended.pop(worker_id, None)

    def after(self, query: LogQuery, cursor: Cursor) -> list[LogLine]:
        """The first `READ_MAX` lines in memory after the cursor, led by a word about lines that are gone already."""
        rings = self._rings_of(query)
        lines = heapq.merge(*(ring.after(cursor) for ring in rings), key=lambda line: line.seq)
        found = [line for line, _ in zip(filter(query.matches, lines), range(READ_MAX), strict=False)]
        if query.source is LogSource.CONTAINER:
            return found
        gaps = [gap for ring in rings if (gap := ring.gap(cursor)) is not None]
        if len(found) == READ_MAX:
            # The reader goes on after the last line: what lies beyond it comes next time.
            gaps = [gap for gap in gaps if gap.seq < found[-1].seq]
        return sorted([*gaps, *found], key=lambda line: line.seq)

    def last(self, query: LogQuery, count: int) -> list[LogLine]:
        """The last lines in memory, oldest first; none of those that are read from disk."""
        if count <= 0:
            return []
        newest_first = heapq.merge(
            *(reversed(ring.lines) for ring in self._rings_of(query)), key=lambda line: line.seq, reverse=True
        )
        if self.older is not None:
            horizon = self.horizon(query.endpoint_id)
            newest_first = itertools.takewhile(lambda line: line.cursor > horizon, newest_first)
        found = [line for line, _ in zip(filter(query.matches, newest_first), range(count), strict=False)]
        return found[::-1]

    def _rings_of(self, query: LogQuery) -> list[_Ring]:
        if query.worker_id is not None:
            ring = self._rings.get(query.worker_id)
            return [ring] if ring is not None and ring.endpoint_id == query.endpoint_id else []
        return [ring for ring in self._rings.values() if ring.endpoint_id == query.endpoint_id]

    def _ring(self, worker_id: WorkerId, endpoint_id: EndpointId) -> _Ring:
        ring = self._rings.get(worker_id)
        if ring is None:
            ring = self._rings[worker_id] = _Ring(endpoint_id)
            self._bytes += _OVERHEAD_BYTES
        return ring

    def _trim(self, worker_id: WorkerId) -> None:
        ring = self._rings[worker_id]
        if len(ring.lines) > self._lines_max:
            self._pop(ring)
        if self._bytes > self._bytes_max:
            self._shrink(round(self._bytes_max * _KEPT_AFTER_SHRINKING))

    def _shrink(self, target: int) -> None:
        """First the rings of stopped workers go, then the older half of the largest ring, and so on."""
        while self._bytes > target and self._ended:
            self._drop(next(iter(self._ended)))
        while self._bytes > target and (ring := max(self._rings.values(), key=lambda ring: ring.bytes)).lines:
            for _ in range((len(ring.lines) + 1) // 2):
                self._pop(ring)

    def _pop(self, ring: _Ring) -> None:
        self._bytes -= ring.pop()
        self._let_go(ring, ring.lost)

    def _drop(self, worker_id: WorkerId) -> None:
        ring = self._rings.pop(worker_id)
        self._ended.pop(worker_id, None)
        self._bytes -= ring.bytes + _OVERHEAD_BYTES
        self._let_go(ring, ring.lines[-1] if ring.lines else ring.lost)

    def _let_go(self, ring: _Ring, line: LogLine | None) -> None:
        if line is not None:
            horizon = self._horizons.get(ring.endpoint_id, BEGINNING)
            self._horizons[ring.endpoint_id] = max(horizon, line.cursor)

    def _leave(self, follower: Follower) -> None:
        followers = self._followers[follower.query.endpoint_id]
        followers.remove(follower)
        if not followers:
            del self._followers[follower.query.endpoint_id]


class Follower:
    """Reads on as lines come. It keeps its place, not the lines."""

    def __init__(self, logs: Logs, query: LogQuery, after: Cursor | None, tail: int) -> None:
        self.query = query
        self.ended = False
        """No line will come any more."""
        self._logs = logs
        self._place = after
        """Behind the last line read; None when there was nothing more to read then."""
        self._tail = tail
        """So many lines come before that, once."""
        self._recent = logs.last(query, tail)
        self._beyond = logs.horizon(query.endpoint_id)
        """`_recent` has all lines after it."""
        self._woken = asyncio.Event()

    async def read(self) -> list[LogLine]:
        """The next lines, oldest first; an empty list when there are none yet."""
        self._woken.clear()
        if self._tail and (lines := await self._last()):
            return lines
        if self._place is None:
            return []
        if lines := await self._older(self._place):
            self._place = lines[-1].cursor
            return lines
        lines = self._logs.after(self.query, self._place)
        self._place = lines[-1].cursor if len(lines) >= READ_MAX else None
        return lines

    async def _last(self) -> list[LogLine]:
        recent, wanted = self._recent, self._tail - len(self._recent)
        self._recent, self._tail = [], 0
        if self._logs.older is None or wanted <= 0:
            return recent
        return [*await self._logs.older.last(self.query, self._beyond, wanted), *recent]

    async def _older(self, place: Cursor) -> list[LogLine]:
        """What comes next from disk; none when memory goes on from `place`, which may be further on by then."""
        while self._logs.older is not None and place < (horizon := self._logs.horizon(self.query.endpoint_id)):
            if lines := await self._logs.older.after(self.query, place, horizon, READ_MAX):
                return lines
            self._place = place = horizon
        return []

    async def wait(self, timeout_s: float) -> bool:
        """True when there may be something to read or it has `ended`, False after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._woken.wait()
        except TimeoutError:
            return False

    def notice(self, line: LogLine) -> None:
        """A line was kept."""
        if not self.query.matches(line):
            return
        if self._place is None:
            self._place = Cursor(line.cursor.ms, line.seq - 1)
        self._woken.set()

    def end(self) -> None:
        self.ended = True
        self._woken.set()


class _Ring:
    """One worker's lines, oldest first."""

    __slots__ = ("bytes", "endpoint_id", "lines", "lost")

    def __init__(self, endpoint_id: EndpointId) -> None:
        self.endpoint_id = endpoint_id
        self.lines: deque[LogLine] = deque()
        self.bytes = 0
        self.lost: LogLine | None = None
        """The youngest line that is gone."""

    def append(self, line: LogLine) -> None:
        self.lines.append(line)
        self.bytes += _size(line)

    def pop(self) -> int:
        """Drop the oldest line; returns its size."""
        line = self.lines.popleft()
        size = _size(line)
        self.bytes -= size
        self.lost = line
        return size

    def after(self, cursor: Cursor) -> list[LogLine]:
        newest_first = itertools.takewhile(lambda line: line.cursor > cursor, reversed(self.lines))
        return list(newest_first)[::-1]

    def gap(self, cursor: Cursor) -> LogLine | None:
        """The word about lines after the cursor that a reader will miss; it stands where the last of them stood."""
        if self.lost is None or self.lost.cursor <= cursor:
            return None
        return replace(self.lost, source=LogSource.SYSTEM, job_id=None, line="[older lines of this worker are gone]")


def _size(line: LogLine) -> int:
    return sys.getsizeof(line.line) + _OVERHEAD_BYTES


def _clean(line: str) -> str:
    """At most `LINE_LENGTH_MAX` characters, all of which can be sent as UTF-8."""
    if len(line) > LINE_LENGTH_MAX:
        line = f"{line[:LINE_LENGTH_MAX]} [{len(line) - LINE_LENGTH_MAX} more characters]"
    return line if line.isascii() else line.encode("utf-8", "replace").decode()


def _job_named_in(line: str, otherwise: JobId | None) -> JobId | None:
    try:
        said: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return otherwise
    job_id = said.get("requestId")
    if isinstance(job_id, str) and job_id:
        return JobId(job_id)
    # The traceback of a handler comes without a name, and may hold what is nobody else's business.
    return otherwise if said.get("level") == "ERROR" else None
