"""Which jobs the clock touches next.

They are kept in one-second buckets rather than a heap: a finished job leaves its old bucket at once, where a heap would
carry its 24-hour deadline for 24 hours.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from runyard.domain.job import JobId


class DueTimes:
    """Jobs by the second they are due in."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[JobId]] = {}
        self._seconds: list[int] = []

    def move(self, job_id: JobId, was: int, second: int) -> None:
        """From the bucket it is in, if it is in one, to another."""
        self.drop(job_id, was)
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
            heapq.heappush(self._seconds, second)
        bucket.add(job_id)

    def drop(self, job_id: JobId, was: int) -> None:
        bucket = self._buckets.get(was)
        if bucket is not None:
            bucket.discard(job_id)

    def until(self, now: float) -> Iterator[set[JobId]]:
        """The buckets up to this second, the longest due first."""
        for second in sorted(self._passed(now)):
            yield self._buckets[second]

    def _passed(self, now: float) -> Iterator[int]:
        """Seconds up to now whose buckets hold jobs; empty ones that lie wholly in the past are dropped on the way."""
        kept: list[int] = []
        while self._seconds and self._seconds[0] <= now:
            second = heapq.heappop(self._seconds)
            if self._buckets[second] or second + 1 > now:
                kept.append(second)
                yield second
            else:
                del self._buckets[second]
        for second in kept:
            heapq.heappush(self._seconds, second)
