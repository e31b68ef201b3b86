"""The archive of the embedded store: tables beside the journal, written in the journal's own commits.

Nothing of it is in memory. What it has of a job that the index has, too, is out of date and not to be looked at: a job that
comes back to be changed leaves its old self behind, until it is put away again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Row

from runyard.adapters.stores import records
from runyard.adapters.stores.archive import ENTRY_BYTES, up_to
from runyard.adapters.stores.batches import Also
from runyard.adapters.stores.entries import Entry, Window, spilled_bytes
from runyard.adapters.stores.journal import Journal
from runyard.adapters.stores.sqlite import SQL, named_queries
from runyard.domain.job import RETRYABLE, EndpointId, Job, JobId, JobState
from runyard.domain.tombstone import Tombstone, tombstone_of
from runyard.ports.archive import STEP
from runyard.ports.stores import JobQuery


class EmbeddedArchive:
    """An `Archive` in the journal's file. `lives` tells whether the index has a job."""

    def __init__(self, journal: Journal, lives: Callable[[EndpointId, JobId], bool]) -> None:
        self._journal = journal
        self._lives = lives
        self._queries = named_queries(SQL / "archive.sql")

    # For the store

    def putting(self, entry: Entry, now: float) -> tuple[Also, ...]:
        """What is to be written with the commit that takes a job out of the index."""
        job = entry.job
        if job.terminal:
            record = records.written(entry, stream=job.expires_at > now)
            return (Also(self._queries["keep"], _row(entry, record), size=len(record)),)
        stone = tombstone_of(job, now)._asdict()
        return self._also("drop", {"job_id": job.id, "endpoint_id": job.endpoint_id}), self._also("mark", stone)

    def returning(self, job: Job) -> Also:
        """What is to be written with a job that comes back: its tombstone may be on its way."""
        return self._also("unmark", {"job_id": job.id, "endpoint_id": job.endpoint_id})

    async def find(self, endpoint_id: EndpointId, job_id: JobId) -> Entry | Tombstone | None:
        rows = await self._fetch("find", endpoint_id=endpoint_id, job_id=job_id)
        for row in rows:
            if row["record"] is not None:
                return records.entry_of(row["record"])
        return _tombstone(endpoint_id, job_id, rows[0]) if rows else None

    async def between(self, endpoint_id: EndpointId, query: JobQuery, window: Window) -> list[tuple[int, Job]]:
        """Jobs in this part of the endpoint's list, those that are in the index, too, among them."""
        states = query.states or None
        rows = await self._fetch(
            "dead_between" if states is not None and states <= RETRYABLE else "between",
            endpoint_id=endpoint_id,
            bottom=window.bottom,
            top=window.top,
            states=None if states is None else json.dumps(list(states)),
            worker_id=query.worker_id,
            limit=query.limit,
        )
        return [(row["place"], records.entry_of(row["record"]).job) for row in rows]

    # The port

    async def endpoints(self) -> list[EndpointId]:
        return [EndpointId(row["id"]) for row in await self._fetch("endpoints")]

    async def used_bytes(self) -> int:
        [row] = await self._fetch("used_bytes")
        return (row["pages"] - row["free"]) * row["page_bytes"] + row["spilled"]

    async def forget(self, endpoint_id: EndpointId, expired_before: float, now: float) -> int:
        rows = await self._fetch("expired", endpoint_id=endpoint_id, expired_before=expired_before, limit=STEP)
        return await self._forget(rows, expired_before, now)

    async def forget_oldest(self, now: float, size: int) -> int:
        rows = await self._fetch("oldest", expired_before=now, limit=STEP)
        doomed, freed = up_to(((row, ENTRY_BYTES + row["size"]) for row in rows), size)
        await self._forget(doomed, now, now)
        return freed

    async def clear(self, endpoint_id: EndpointId) -> int:
        return await self._remove(await self._fetch("all_of", endpoint_id=endpoint_id, limit=STEP), "clear")

    async def bury(self, gone_before: float, named_before: float) -> int:
        rows = await self._fetch("gone", gone_before=gone_before, named_before=named_before, limit=STEP)
        return await self._remove(rows, "bury")

    async def _forget(self, rows: Sequence[Row], expired_before: float, now: float) -> int:
        # Both are said in the instant in which it is seen who lives: others come and go while a commit is awaited.
        old_selves = [row for row in rows if self._lives(row["endpoint_id"], row["job_id"])]
        gone = [row for row in rows if row not in old_selves]
        cleared = self._removing(old_selves, "clear")
        forgotten = self._removing(gone, "leave_tombstones", "forget", expired_before=expired_before, now=now)
        await self._journal.wait(max(cleared, forgotten))
        return len(rows)

    async def _remove(self, rows: Sequence[Row], query: str) -> int:
        await self._journal.wait(self._removing(rows, query))
        return len(rows)

    def _removing(self, rows: Sequence[Row], *queries: str, **values: object) -> int:
        """The number of the change, to be waited for; 0 when there is none."""
        if not rows:
            return 0
        values["numbers"] = json.dumps([row["number"] for row in rows])
        return self._journal.do(*(self._also(query, values) for query in queries))

    def _also(self, query: str, values: Mapping[str, object]) -> Also:
        return Also(self._queries[query], values)

    async def _fetch(self, query: str, **values: object) -> list[Row]:
        return await self._journal.fetch(self._queries[query], values)


def _row(entry: Entry, record: bytes) -> tuple[object, ...]:
    job = entry.job
    return (
        job.endpoint_id,
        job.id,
        entry.number,
        job.state.value,
        None if job.lease is None else job.lease.worker_id,
        job.created_at,
        job.finished_at,
        job.expires_at,
        job.fingerprint,
        spilled_bytes(job),
        record,
    )


def _tombstone(endpoint_id: EndpointId, job_id: JobId, row: Row) -> Tombstone:
    return Tombstone(
        job_id=job_id,
        endpoint_id=endpoint_id,
        state=JobState(row["state"]),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        gone_at=row["gone_at"],
        fingerprint=row["fingerprint"],
    )
