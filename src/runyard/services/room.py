"""Whether the disk has room for what is new, looked at by the clock and not by each request."""

from __future__ import annotations

import logging

from runyard.domain.errors import TooBusy
from runyard.domain.room import is_full, reopens_at
from runyard.ports.system import Clock, Disk

log = logging.getLogger("runyard")

LOOK_EVERY_S = 1.0


class Room:
    """`run` is the loop; what is new asks `admit`, which costs a comparison. Until the first look all is admitted."""

    def __init__(self, disk: Disk, clock: Clock, *, reserve_bytes: int) -> None:
        self._disk = disk
        self._clock = clock
        self._reserve_bytes = reserve_bytes
        self.free_bytes = 0
        """At the last look that worked."""
        self.full = False
        self._blind = False

    def admit(self) -> None:
        """Raises `TooBusy` while the disk is full."""
        if self.full:
            raise TooBusy(
                f"the disk is full: {self.free_bytes} bytes can be written, and {self._reserve_bytes} are kept for "
                "jobs that were accepted; try again later, or free disk space, or lower disk_reserve_bytes"
            )

    async def lacking(self) -> int:
        """So many bytes more have to be free for what is new to be let in, as it is now."""
        await self.look()
        return max(0, reopens_at(self._reserve_bytes) - self.free_bytes) if self.full else 0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Bring `full` up to date. A disk that cannot be asked is as it was."""
        try:
            self.free_bytes = await self._disk.free_bytes()
        except OSError as error:
            if not self._blind:
                log.warning("cannot find out how full the disk is: %s", error)
            self._blind = True
            return
        self._blind = False
        was_full, self.full = self.full, is_full(self.free_bytes, self._reserve_bytes, was_full=self.full)
        if self.full and not was_full:
            log.error(
                "the disk is full: %d bytes can be written, less than the reserve of %d; new jobs are refused until there "
                "is room, and what was accepted goes on",
                self.free_bytes,
                self._reserve_bytes,
            )
        elif was_full and not self.full:
            log.warning("the disk has room again (%d bytes): new jobs are taken", self.free_bytes)
