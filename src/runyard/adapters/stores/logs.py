"""Workers' log lines in a SQLite file of their own, apart from what is promised: they may fill their budget and be lost."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from runyard.adapters.stores.sqlite import SQL, Tables
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.ports.logs import Cursor, LogLine, LogQuery
from runyard.ports.runtime import LogSource

TRIM_LINES = 2_000
"""Lines forgotten in one transaction, so that those who read do not wait."""
LINE_OVERHEAD_BYTES = 200
"""What a line takes beside its text, in the table and its indexes."""


class SqliteLogs:
    """A `LogStore` in the file at `path`, which is made if need be. Raises `RunyardError` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._tables = Tables(path, "logs", migrations=SQL / "logs", synchronous="normal")

    async def add(self, lines: Sequence[LogLine]) -> None:
        def work() -> None:
            sizes: Counter[str] = Counter()
            for line in lines:
                self._tables.execute("add", **_row(line))
                sizes[line.endpoint_id] += len(line.line.encode()) + LINE_OVERHEAD_BYTES
            self._count(sizes)

        await self._tables.transact(work)

    async def after(self, query: LogQuery, cursor: Cursor, upto: Cursor, limit: int) -> list[LogLine]:
        return await self._read("after", query, upto, limit, ms=cursor.ms, seq=cursor.seq)

    async def last(self, query: LogQuery, upto: Cursor, count: int) -> list[LogLine]:
        return (await self._read("last", query, upto, count))[::-1]

    async def newest(self) -> Cursor | None:
        rows = await self._tables.fetch("newest")
        return Cursor(rows[0]["ms"], rows[0]["seq"]) if rows else None

    async def trim(self, *, endpoints: Collection[EndpointId], before: float, bytes_max: int) -> bool:
        if await self._forget_before(round(before * 1000)):
            return True
        kept = await self._tables.fetch("kept")
        going = [row["endpoint_id"] for row in kept if row["endpoint_id"] not in endpoints]
        if not going and sum(row["bytes"] for row in kept) > bytes_max:
            going = [kept[0]["endpoint_id"]]
        return bool(going) and await self._forget_oldest(going[0])

    async def close(self) -> None:
        await self._tables.close()

    async def _read(self, what: str, query: LogQuery, upto: Cursor, limit: int, **place: int) -> list[LogLine]:
        values = {
            "endpoint_id": query.endpoint_id,
            "worker_id": query.worker_id,
            "job_id": query.job_id,
            "source": query.source,
            "upto_ms": upto.ms,
            "upto_seq": upto.seq,
            "limit": limit,
            **place,
        }
        by = "worker" if query.worker_id is not None else "endpoint" if query.job_id is None else "job"
        return [_line(row) for row in await self._tables.fetch(f"{what}_of_{by}", **values)]

    async def _forget_oldest(self, endpoint_id: str) -> bool:
        """Of this endpoint; whether there was anything."""
        found = await self._tables.fetch("oldest_of_endpoint", endpoint_id=endpoint_id, limit=TRIM_LINES)
        await self._forget(found)
        return bool(found)

    async def _forget_before(self, ms: int) -> bool:
        found = await self._tables.fetch("oldest", limit=TRIM_LINES)
        old = [row for row in found if row["ms"] < ms]
        await self._forget(old)
        return len(old) == TRIM_LINES

    async def _forget(self, rows: Sequence[sqlite3.Row]) -> None:
        def work() -> None:
            sizes: Counter[str] = Counter()
            for row in rows:
                self._tables.execute("forget", id=row["id"])
                sizes[row["endpoint_id"]] -= row["length"] + LINE_OVERHEAD_BYTES
            self._count(sizes)
            self._tables.execute("uncount")

        if rows:
            await self._tables.transact(work)

    def _count(self, sizes: Counter[str]) -> None:
        for endpoint_id, size in sizes.items():
            self._tables.execute("count", endpoint_id=endpoint_id, bytes=size)


def _row(line: LogLine) -> dict[str, object]:
    ms, seq = line.cursor
    return {
        "ms": ms,
        "seq": seq,
        "endpoint_id": line.endpoint_id,
        "worker_id": line.worker_id,
        "job_id": line.job_id,
        "source": line.source.value,
        "line": line.line,
    }


def _line(row: sqlite3.Row) -> LogLine:
    return LogLine(
        row["ms"] / 1000,
        row["seq"],
        LogSource(row["source"]),
        row["line"],
        WorkerId(row["worker_id"]),
        EndpointId(row["endpoint_id"]),
        None if row["job_id"] is None else JobId(row["job_id"]),
    )
