"""The archive of jobs in memory, and what both archives share: how its jobs stand in an endpoint's list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from runyard.adapters.stores.entries import Entry, Window, entry_bytes, spilled_bytes
from runyard.domain.job import EndpointId, Job, JobId
from runyard.domain.tombstone import Tombstone, tombstone_of
from runyard.ports.archive import STEP, TOMBSTONE_BYTES
from runyard.ports.stores import JobPage, JobQuery

ENTRY_BYTES = 400
"""About what a job takes, beside its payload."""

_Key = tuple[EndpointId, JobId]
_T = TypeVar("_T")


class MemoryArchive:
    """An `Archive` in dictionaries."""

    def __init__(self) -> None:
        self._entries: dict[_Key, Entry] = {}
        self._tombstones: dict[_Key, Tombstone] = {}
        """Both in the order in which they came."""
        self._bytes = 0

    # For the store

    def keep(self, entry: Entry) -> None:
        key = (entry.job.endpoint_id, entry.job.id)
        self._remove(key)
        self._entries[key] = entry
        self._bytes += _size(entry)

    def mark(self, tombstone: Tombstone) -> None:
        key = (tombstone.endpoint_id, tombstone.job_id)
        self._remove(key)
        self._tombstones[key] = tombstone

    def find(self, endpoint_id: EndpointId, job_id: JobId) -> Entry | Tombstone | None:
        key = (endpoint_id, job_id)
        return self._entries.get(key) or self._tombstones.get(key)

    def take(self, endpoint_id: EndpointId, job_id: JobId) -> Entry | None:
        """Out of here, to be changed."""
        return self._remove((endpoint_id, job_id))

    def between(self, endpoint_id: EndpointId, query: JobQuery, window: Window) -> list[tuple[int, Job]]:
        """Jobs in this part of the endpoint's list."""
        return [
            (entry.number, entry.job)
            for (of, _), entry in self._entries.items()
            if of == endpoint_id and window.has(entry.number, entry.job, query)
        ]

    # The port

    async def endpoints(self) -> list[EndpointId]:
        return list({endpoint_id for endpoint_id, _ in self._entries})

    async def used_bytes(self) -> int:
        return self._bytes + len(self._tombstones) * TOMBSTONE_BYTES

    async def forget(self, endpoint_id: EndpointId, expired_before: float, now: float) -> int:
        jobs = (entry.job for entry in self._entries.values() if entry.job.endpoint_id == endpoint_id)
        doomed = sorted((job for job in jobs if job.expires_at <= expired_before), key=lambda job: job.expires_at)
        return self._forget(doomed[:STEP], now)

    async def forget_oldest(self, now: float, size: int) -> int:
        oldest = _some(self._entries.values(), lambda entry: entry.job.expires_at <= now)
        doomed, freed = up_to(((entry.job, _size(entry)) for entry in oldest), size)
        self._forget(doomed, now)
        return freed

    async def clear(self, endpoint_id: EndpointId) -> int:
        doomed = _some(self._entries, lambda key: key[0] == endpoint_id)
        for key in doomed:
            self._remove(key)
        return len(doomed)

    async def bury(self, gone_before: float, named_before: float) -> int:
        def is_old(stone: Tombstone) -> bool:
            return stone.gone_at <= (gone_before if stone.fingerprint is None else min(gone_before, named_before))

        doomed = _some(self._tombstones.items(), lambda item: is_old(item[1]))
        for key, _ in doomed:
            del self._tombstones[key]
        return len(doomed)

    def _forget(self, doomed: list[Job], now: float) -> int:
        for job in doomed:
            self.mark(tombstone_of(job, now))
        return len(doomed)

    def _remove(self, key: _Key) -> Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry)
        self._tombstones.pop(key, None)
        return entry


def page(window: Window, archived: Iterable[tuple[int, Job]], query: JobQuery) -> JobPage:
    """The newest of both, and where to go on."""
    found = sorted((*window.jobs, *archived), key=lambda found: found[0], reverse=True)[: query.limit]
    bottom = found[-1][0] if len(found) == query.limit else window.bottom
    return JobPage(jobs=tuple(job for _, job in found), next=str(bottom) if bottom > 1 else None)


def beside(
    window: Window, going: Iterable[Entry], settled: Iterable[tuple[int, Job]], query: JobQuery
) -> list[tuple[int, Job]]:
    """What belongs into a list beside what the index has: jobs on their way to the archive, and those that are there, each
    once.
    """
    told = {number for number, _ in window.jobs}
    on_the_way = {entry.number: entry.job for entry in going if entry.number not in told}
    passing = [found for found in on_the_way.items() if window.has(*found, query)]
    return [*passing, *(found for found in settled if found[0] not in told and found[0] not in on_the_way)]


def up_to(of: Iterable[tuple[_T, int]], size: int) -> tuple[list[_T], int]:
    """The first of these, each with its size, until they make up `size`; and how much that is."""
    taken: list[_T] = []
    total = 0
    for each, its_size in of:
        if total >= size:
            break
        taken.append(each)
        total += its_size
    return taken, total


def _some(of: Iterable[_T], which: Callable[[_T], bool]) -> list[_T]:
    return list(islice(filter(which, of), STEP))


def _size(entry: Entry) -> int:
    return ENTRY_BYTES + entry_bytes(entry) + spilled_bytes(entry.job)
