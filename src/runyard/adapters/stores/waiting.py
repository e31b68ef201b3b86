"""The waiting jobs of one endpoint, in the order of their ranks.

Those of low priority are in a queue of their own, so that the pressing ones are read without walking past them.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice, takewhile
from operator import attrgetter

from runyard.adapters.stores.entries import Entry
from runyard.domain.job import Job, JobId

_rank = attrgetter("rank")


class Waiting:
    __slots__ = ("_low_priority", "_pressing")

    def __init__(self) -> None:
        self._pressing: OrderedDict[JobId, Entry] = OrderedDict()
        self._low_priority: OrderedDict[JobId, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pressing) + len(self._low_priority)

    def __iter__(self) -> Iterator[Entry]:
        if self._pressing and self._low_priority:
            return heapq.merge(self._pressing.values(), self._low_priority.values(), key=_rank)
        return iter((self._pressing or self._low_priority).values())

    def pressing(self, limit: int) -> list[Job]:
        """The first that are not of low priority."""
        return [entry.job for entry in islice(self._pressing.values(), limit)]

    def append(self, entry: Entry) -> None:
        self._queue_of(entry.job)[entry.job.id] = entry

    def remove(self, job: Job) -> None:
        del self._queue_of(job)[job.id]

    def move_up(self, entry: Entry) -> None:
        """Move the last one of its queue to its place. That is near the head: what it passes on the way there is few."""
        queue = self._queue_of(entry.job)
        ahead = list(takewhile(lambda other: other.rank < entry.rank, queue.values()))
        for other in (entry, *reversed(ahead)):
            queue.move_to_end(other.job.id, last=False)

    def _queue_of(self, job: Job) -> OrderedDict[JobId, Entry]:
        return self._low_priority if job.policy.low_priority else self._pressing
