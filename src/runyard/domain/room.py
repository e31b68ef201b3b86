"""When the disk counts as full.

Part of the disk, the *reserve*, is for what has been promised: results, cancels, attempts of jobs that are there. What is
new is refused while less than the reserve is free. It is let in again a little later than it was refused, so that a disk
at the brim does not open and close with every job.
"""

from __future__ import annotations

MARGIN = 8
"""An eighth of the reserve more must be free before what is new is let in again."""


def is_full(free_bytes: int, reserve_bytes: int, *, was_full: bool) -> bool:
    """Whether what is new is refused. A reserve of 0 never fills."""
    return free_bytes < (reopens_at(reserve_bytes) if was_full else reserve_bytes)


def reopens_at(reserve_bytes: int) -> int:
    """How much must be free for a disk that was full to be full no more."""
    return reserve_bytes + reserve_bytes // MARGIN
