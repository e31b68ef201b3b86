"""Limits of what containers write to their own layer, for Engines that cannot set any: looked at now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from runyard.adapters.docker.contained import Contained
from runyard.adapters.docker.engine import Engine
from runyard.domain.errors import StartFailed

LOOK_EVERY_S = 15.0
MB = 1_000_000


async def watch_disks(
    engine: Engine, contained: Callable[[], Iterable[Contained]], every_s: float = LOOK_EVERY_S
) -> None:
    """For ever. Who has written more than its limit is killed, and its log says why."""
    while True:
        await asyncio.sleep(every_s)
        for each in list(contained()):
            if each.disk_limit is not None and not each.stopping:
                with suppress(StartFailed):  # It has ended, or the Engine is away.
                    await _check(engine, each, each.disk_limit)


async def _check(engine: Engine, contained: Contained, limit: int) -> None:
    found = await engine.call("GET", f"/containers/{contained.container}/json", size=True)
    written = found.get("SizeRw") or 0
    if written > limit:
        contained.remark(f"killed: it has written {written // MB} MB to its disk, and may write {limit // MB} MB")
        await contained.kill()
