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
from runyard.ports.archive import TOMBSTONE_BYTES, Archive
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
    """`run` is the loop. `lacking` looks how many bytes the disk lacks; `forgotten` is told that payloads may have lost the
    job that names them.
    """

    def __init__(
        self,
        archive: Archive,
        book: TermsBook,
        clock: Clock,
        *,
        bytes_max: int,
        tombstone_s: float,
        lacking: Callable[[], Awaitable[int]],
        forgotten: Callable[[], Awaitable[None]],
    ) -> None:
        self._archive = archive
        self._book = book
        self._clock = clock
        self._bytes_max = bytes_max
        self._tombstone_s = tombstone_s
        self._lacking = lacking
        self._forgotten = forgotten

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
            await self._excess()
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

    async def _excess(self) -> None:
        """No more than must go. What goes frees its place at once or, where it is a file, with `forgotten`: so it is counted
        here, and not looked for on the disk.
        """
        too_much = max(await self._archive.used_bytes() - self._bytes_max, await self._lacking())
        went = 0
        while too_much > 0 and (freed := await self._free(too_much)):
            went, too_much = went + freed, too_much - freed
            await self._clock.sleep(0)
        if went:
            await self._forgotten()

    async def _free(self, size: int) -> int:
        now = self._clock.now()
        freed = await self._archive.forget_oldest(now, size)
        return freed or TOMBSTONE_BYTES * await self._archive.bury(now, now - NAMED_S)

    async def _tombstones(self) -> int:
        now = self._clock.now()
        before = now - self._tombstone_s
        return await self._archive.bury(before, min(before, now - NAMED_S))
