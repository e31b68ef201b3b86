"""How much of the time the sweep of payloads takes."""

import asyncio

import pytest

from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.system import LoopClock
from runyard.ports.payloads import Kept
from runyard.services.spill import REST_S_MAX, SWEEP_S, Carried, Spills
from tests.payload_kit import MemoryPayloads


class CrowdedPayloads(MemoryPayloads):
    """To list them takes `takes_s`."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self.takes_s = takes_s
        self.listed_at: list[float] = []

    async def kept(self) -> list[Kept]:
        self.listed_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        return await super().kept()


@pytest.mark.looptime
@pytest.mark.parametrize(("takes_s", "rests_s"), [(0.0, SWEEP_S), (1.2, SWEEP_S), (6.0, 300.0), (1000.0, REST_S_MAX)])
async def test_a_sweep_that_takes_long_is_followed_by_a_long_rest(
    looptime: object, takes_s: float, rests_s: float
) -> None:
    payloads = CrowdedPayloads(takes_s)
    sweeping = asyncio.create_task(Spills(payloads, MemoryJobs(), LoopClock(), Carried(0)).run())
    await asyncio.sleep(2.5 * (takes_s + rests_s))
    sweeping.cancel()

    assert pytest.approx([0, takes_s + rests_s, 2 * (takes_s + rests_s)], abs=0.01) == payloads.listed_at
