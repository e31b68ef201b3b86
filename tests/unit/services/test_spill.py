"""What the sweep forgets, and how much of the time it takes."""

import asyncio

import pytest

from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.system import LoopClock
from runyard.domain.job import JobState
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Kept
from runyard.services.spill import REST_S_MAX, SWEEP_S, Carried, Spills, names
from tests.builders import a_job, a_job_that_is
from tests.payload_kit import MemoryPayloads

INPUT, OUTPUT = Spilled("the input", 1), Spilled("the output", 2)


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


def test_a_job_names_its_input_as_long_as_it_is_there_and_its_output() -> None:
    waiting = a_job(input=INPUT)
    running = a_job_that_is(JobState.IN_PROGRESS, input=INPUT)
    failed = running.fail("no", OUTPUT, 1.0)
    named = [[ref for ref in (INPUT.ref, OUTPUT.ref) if names(job, ref)] for job in (waiting, running, failed)]

    assert [["the input"], ["the input"], ["the input", "the output"]] == named
    assert names(failed.retry(2.0), "the input")
    assert not names(failed.retry(2.0), "the output")
    assert not names(a_job(), "the input")
