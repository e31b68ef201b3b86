"""What goes to the journal in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from runyard.domain.errors import RunyardError


class Also(NamedTuple):
    """A statement for the commit of what is said with it."""

    statement: str
    values: Mapping[str, object] | Sequence[object]
    size: int = 0
    """About how many bytes it writes."""
    kept: Callable[[], None] | None = None
    """Called when it is on disk."""
    undo: str | None = None
    """With the same values: takes it back from a log of which nobody knows what is on disk."""


class Batch:
    __slots__ = ("also", "clean_to", "error", "hurried", "last", "lost", "over", "records", "waiters")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.also: list[Also] = []
        self.last = 0
        """The number of its last record."""
        self.waiters: list[asyncio.Future[None]] = []
        self.hurried = False
        """Somebody waits for it."""
        self.lost: list[Callable[[RunyardError], None]] = []
        """Told when it could not be written."""
        self.clean_to = 0
        """Rows up to this one are deleted with it."""
        self.over = False
        """It is on disk, or was given up: then `error` says why."""
        self.error: BaseException | None = None
