"""When what is kept behind a job's documented end of life goes, too.

A job that has ended and expired is kept in the store's archive, to be read at `/v2/{endpoint}/requests/{job}`, for as long
as its endpoint says, or until there are too many bytes of them, or the disk is full: then the oldest go first. What is left
is a tombstone, which says what became of the job and keeps its name from being taken again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import EndpointId
from runyard.domain.terms import JobTerms
from runyard.ports.archive import Archive
from runyard.ports.system import Clock

PAUSE_S = 10.0
NAMED_S = 24 * 3600.0
"""How long a job's name, which its client has chosen, is kept from being taken again at the least (F022)."""

log = logging.getLogger(__name__)


class TermsBook(Protocol):
    """What holds for jobs, by endpoint. `get` raises `NotFound` for an endpoint that is no more."""

    def get(self, endpoint_id: EndpointId) -> object: ...

    def terms(self, endpoint_id: EndpointId) -> JobTerms: ...


class Forgetting:
    """`run` is the loop. `is_full` looks whether the disk is."""

    def __init__(
        self,
        archive: Archive,
        book: TermsBook,
        clock: Clock,
        *,
        bytes_max: int,
        tombstone_s: float,
        is_full: Callable[[], Awaitable[bool]],
    ) -> None:
        self._archive = archive
        self._book = book
        self._clock = clock
        self._bytes_max = bytes_max
        self._tombstone_s = tombstone_s
        self._is_full = is_full

    async def run(self) -> None:
        """Forget for ever."""
        while True:
            await self.forget()
            await self._clock.sleep(PAUSE_S)

    async def forget(self) -> None:
        """What is to go now."""
        try:
            for endpoint_id in await self._archive.endpoints():
                await self._all(lambda of=endpoint_id: self._of(of))
            await self._all(self._excess)
            await self._all(self._tombstones)
        except TooBusy as error:
            log.warning("jobs whose time is over stay for now: %s", error)

    async def _all(self, step: Callable[[], Awaitable[int]]) -> None:
        while await step():
            await self._clock.sleep(0)  # Let others run.

    async def _of(self, endpoint_id: EndpointId) -> int:
        try:
            self._book.get(endpoint_id)
        except NotFound:
            return await self._archive.clear(endpoint_id)
        now = self._clock.now()
        return await self._archive.forget(endpoint_id, now - self._book.terms(endpoint_id).keep_s, now)

    async def _excess(self) -> int:
        if not await self._too_much():
            return 0
        now = self._clock.now()
        return await self._archive.forget_oldest(now) or await self._archive.bury(now, now - NAMED_S)

    async def _tombstones(self) -> int:
        before = self._clock.now() - self._tombstone_s
        return await self._archive.bury(before, before)

    async def _too_much(self) -> bool:
        return await self._archive.used_bytes() > self._bytes_max or await self._is_full()
