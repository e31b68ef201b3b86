"""Log lines, and where they are kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.ports.runtime import LogSource


class Cursor(NamedTuple):
    """A place between lines: after the line of this millisecond (Unix) and number."""

    ms: int
    seq: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line, without its line end. `ts` is Unix seconds, to the millisecond."""

    ts: float
    seq: int
    source: LogSource
    line: str
    worker_id: WorkerId
    endpoint_id: EndpointId
    job_id: JobId | None = None

    @property
    def cursor(self) -> Cursor:
        return Cursor(round(self.ts * 1000), self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines of an endpoint to read; None means any."""

    endpoint_id: EndpointId
    worker_id: WorkerId | None = None
    job_id: JobId | None = None
    source: LogSource | None = None

    def matches(self, line: LogLine) -> bool:
        """Of lines of the endpoint."""
        return (
            (self.worker_id is None or line.worker_id == self.worker_id)
            and (self.job_id is None or line.job_id == self.job_id)
            and (self.source is None or line.source == self.source)
        )


class LogStore(Protocol):
    """Lines on disk. They are few bytes each and many, and none is worth a promise: what was added last may be lost with
    the machine. Methods raise `TooBusy` when the disk does not take it.
    """

    async def add(self, lines: Sequence[LogLine]) -> None:
        """Keep these, which come after all that are there."""
        ...

    async def after(self, query: LogQuery, cursor: Cursor, upto: Cursor, limit: int) -> list[LogLine]:
        """The first lines after `cursor`, and none after `upto`; oldest first."""
        ...

    async def last(self, query: LogQuery, upto: Cursor, count: int) -> list[LogLine]:
        """The last lines that are not after `upto`, oldest first."""
        ...

    async def newest(self) -> Cursor | None:
        """The place of the last line of all; None when there is none."""
        ...

    async def trim(self, *, endpoints: Collection[EndpointId], before: float, bytes_max: int) -> bool:
        """Forget some lines: those older than `before` (Unix seconds), those of other endpoints than these, and, while there
        are more than about `bytes_max` bytes, the oldest of the endpoint that has the most. True: there may be more.
        """
        ...

    async def close(self) -> None: ...
