"""Stores that take their time, as those that write to disk or to a network do."""

import asyncio
import random
from typing import Any

from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.payload import Spilled
from tests.payload_kit import MemoryPayloads, MemoryReading


class SlowJobs:
    """Memory that answers late: each call waits before and after it is done, so that others come in between."""

    outlives_process = False

    def __init__(self, chance: random.Random, *, pause_s_max: float = 0.05) -> None:
        self._store = MemoryJobs()
        self._chance = chance
        self._pause_s_max = pause_s_max

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._pause()
            result = await method(*args, **kwargs)
            await self._pause()
            return result

        return call

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.choice([0, 0, self._chance.uniform(0, self._pause_s_max)]))


class SlowPayloads(MemoryPayloads):
    """Payloads in memory that are read late."""

    def __init__(self, chance: random.Random, *, pause_s_max: float = 0.05) -> None:
        super().__init__()
        self._chance = chance
        self._pause_s_max = pause_s_max

    async def open(self, payload: Spilled) -> MemoryReading:
        await asyncio.sleep(self._chance.choice([0, self._chance.uniform(0, self._pause_s_max)]))
        return await super().open(payload)
