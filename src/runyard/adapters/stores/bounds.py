"""How much the embedded store lets stand before it tidies up."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.adapters.stores.entries import Entry, entry_bytes
from runyard.adapters.stores.index import JobIndex
from runyard.adapters.stores.journal import Journal
from runyard.ports.archive import STEP

ENTRY_BYTES = 400
"""About what a job takes in the journal besides its payload."""
CLEAN_FROM_BYTES = 16 << 20
CLEAN_STEP_BYTES = 1 << 18
ENDED_MAX = 100_000
"""Jobs that have ended and are in memory at most. Down to a fifth of it they leave at leisure: a burst of requests does not
have to wait for it."""
PAUSE_S = 0.05
"""That leisure: between two commits that put jobs away."""
STREAM_BYTES_MAX = 1 << 20
"""Jobs with a longer stream stay in memory until they expire: from the archive each reader would read it whole each time."""
AWAY_STEP_BYTES = 1 << 18
"""Payload that is put away with one commit, or that of one job."""


class Bounds:
    """Looks at index and journal."""

    def __init__(
        self, index: JobIndex, journal: Journal, *, clean_from_bytes: int, ended_max: int, ended_bytes_max: int
    ) -> None:
        self._index = index
        self._journal = journal
        self._clean_from_bytes = clean_from_bytes
        self._ended_max = ended_max
        self._ended_bytes_max = ended_bytes_max

    @property
    def are_crowded(self) -> bool:
        """Ended jobs may leave memory."""
        return self._index.ended_count > self._ended_max // 5 or self.are_full

    @property
    def are_full(self) -> bool:
        """They are to leave at once."""
        ended = self._index.ended_count
        return ended > self._ended_max or (ended > 0 and self._index.payload_bytes > self._ended_bytes_max)

    @property
    def are_unclean(self) -> bool:
        """The journal is twice as large as what is alive."""
        alive = self._index.payload_bytes + len(self._index) * ENTRY_BYTES
        return self._journal.bytes > self._clean_from_bytes + 2 * alive


def step_of(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The first of them, as many as go with one commit."""
    size = 0
    for count, entry in enumerate(entries[:STEP]):
        size += entry_bytes(entry)
        if count and size > AWAY_STEP_BYTES:
            return entries[:count]
    return entries[:STEP]
