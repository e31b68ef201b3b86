"""Where payloads lie that are too large for the job store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from runyard.domain.job import EndpointId, JobId
from runyard.domain.payload import Spilled


class Kept(NamedTuple):
    """A payload that is kept, and the job that it is, or was, for."""

    ref: str
    endpoint_id: EndpointId
    job_id: JobId


class Draft(Protocol):
    """A payload that is coming in. Nobody can read it before it is whole. Calls are not to overlap."""

    @property
    def spoiled(self) -> bool:
        """Something of what was written is lost: it can only be dropped."""
        ...

    async def write(self, piece: bytes) -> None:
        """Add to it. Raises `TooBusy` when there is no room; it can be tried again unless it is spoiled."""
        ...

    async def keep(self) -> Spilled:
        """It is whole, and lasts as well as the store promises when this returns. Raises `TooBusy` when that cannot be; it
        can be tried again unless it is spoiled.
        """
        ...

    async def drop(self) -> None:
        """It is not wanted. Nothing happens when it is kept, or dropped, already."""
        ...


class Reading(Protocol):
    """A payload that is being read, from its beginning."""

    async def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at its end. Raises `TooBusy` when they cannot be had, and `NotFound` when it
        has been forgotten meanwhile; what is forgotten may be readable until it is closed.
        """
        ...

    async def close(self) -> None: ...


class Payloads(Protocol):
    """Bytes that jobs name (`Spilled`)."""

    async def begin(self, endpoint_id: EndpointId, job_id: JobId) -> Draft:
        """A new one for this job. Raises `TooBusy` when there is no room."""
        ...

    async def open(self, payload: Spilled) -> Reading:
        """Raises `NotFound` when it is not there, or not whole, `TooBusy` when that cannot be known just now."""
        ...

    async def kept(self) -> list[Kept]:
        """All that are whole. Raises `TooBusy`."""
        ...

    async def forget(self, refs: Sequence[str]) -> None:
        """Remove these; nothing happens for those that are not there. Raises `TooBusy`."""
        ...
