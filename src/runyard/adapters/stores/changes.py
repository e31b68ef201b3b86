"""What the embedded store has changed in memory and not yet on disk."""

from __future__ import annotations

from runyard.adapters.stores.entries import Before, Entry
from runyard.domain.job import JobId


class Changes:
    """What one batch of the journal changes."""

    __slots__ = ("away", "back", "before", "new", "rewritten", "unsaid")

    def __init__(self) -> None:
        self.new: dict[JobId, Entry] = {}
        """Jobs that come with it."""
        self.unsaid: dict[JobId, Entry] = {}
        """Those of them that will be written down at its end, as they are then, their leases and ends with them."""
        self.before: dict[JobId, Before] = {}
        """The other jobs that it changes, as they were before."""
        self.rewritten: list[Entry] = []
        """Jobs that it holds in full, too."""
        self.away: dict[JobId, Entry] = {}
        """Jobs that it takes to the archive. Nothing in it comes after that."""
        self.back: dict[JobId, Entry] = {}
        """Jobs that have come from there. Nothing in it was before that."""


NONE = Changes()
