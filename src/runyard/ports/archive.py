"""Jobs that are out of the way: ended ones, still whole, and tombstones of those that are gone."""

from __future__ import annotations

from typing import Protocol

from runyard.domain.job import EndpointId

TOMBSTONE_BYTES = 200
"""About what one takes."""
STEP = 100
"""Most jobs, or tombstones, that one call takes: each is one commit, and others want to get between them."""


class Archive(Protocol):
    """Of one `JobStore`, which puts jobs in and finds them there; here is how they leave it.

    Each call that removes does one step and returns how much it took, 0 when nothing is left to take. Only a job that has
    expired is ever taken, and it leaves a tombstone.
    """

    async def endpoints(self) -> list[EndpointId]:
        """Those with jobs in here."""
        ...

    async def used_bytes(self) -> int:
        """What it takes on disk, or in memory, together with what it shares that place with."""
        ...

    async def forget(self, endpoint_id: EndpointId, expired_before: float, now: float) -> int:
        """Jobs of an endpoint that had expired by then, the first expired first."""
        ...

    async def forget_oldest(self, now: float, size: int) -> int:
        """Jobs of any endpoint, those first that have been here longest, until they took `size` bytes or more. Returns how
        many bytes they took.
        """
        ...

    async def clear(self, endpoint_id: EndpointId) -> int:
        """Jobs of an endpoint that is no more: expired or not, and without tombstones."""
        ...

    async def bury(self, gone_before: float, named_before: float) -> int:
        """Remove tombstones of jobs gone before then; `named_before` is for those that their clients have named."""
        ...
