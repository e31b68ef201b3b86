"""Staying awake where that is quicker than being woken.

A process that sleeps has to be woken and finds its caches cold: 60 us for each piece of news, a third of what a round trip
of a no-op job takes. So after news the loop looks for more for a moment before it sleeps, as hypervisors do with idle
processors (halt polling), but only where news has lately come that soon: under a handler that takes its time, and on an idle
platform, it sleeps at once. Nor is it done in a crowd: where one look finds news on several connections there is hardly any
sleep to be saved, and looking less often finds more at a time. A vigil in which a quick disk is at work lasts until that is
done, and from then on: it is what everybody waits for.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

CREDIT_MAX = 8
FAILURE_COSTS = 3
"""A vigil in vain takes as much credit as three pieces of news bring that one could have been kept for."""
CROWD_COSTS = 200
DISK_WINDOWS = 8
"""By so many times its length a vigil is longer while the disk works, at most: a slow one is not waited for like this."""


class Vigil:
    """The vigils of one event loop, `window_s` long; with 0 it keeps none."""

    __slots__ = ("_credit", "_disk_works", "_heard", "_keeping", "_loop", "_now", "_over_at", "_window_s")

    def __init__(
        self, window_s: float, loop: AbstractEventLoop | None = None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._window_s = window_s
        self._loop = loop
        self._now = now
        self._over_at = float("-inf")
        self._credit = 0
        self._keeping = False
        self._disk_works = False
        self._heard = 0
        """Pieces of news since the last look."""

    def news(self) -> None:
        """There is something to do."""
        self._heard += 1
        if self._now() < self._over_at:
            self._credit = min(self._credit + 1, CREDIT_MAX)

    def rest(self) -> None:
        """It is done."""
        if self._loop is not None:
            self._over_at = self._now() + self._window_s
            if self._credit > 0 and not self._keeping:
                self._keeping = True
                self._heard = 0
                self._loop.call_soon(self._watch)

    def disk_works(self, works: bool) -> None:
        """The disk has begun to work for somebody who waits, or has done what it was to do."""
        self._disk_works = works
        if not works:
            self.rest()

    def _watch(self) -> None:
        assert self._loop is not None
        heard, self._heard = self._heard, 0
        if heard > 1:
            self._keeping = False
            self._credit = -CROWD_COSTS
        elif self._now() < self._over_at + self._disk_works * DISK_WINDOWS * self._window_s:
            self._loop.call_soon(self._watch)
        else:
            self._keeping = False
            self._credit -= FAILURE_COSTS
