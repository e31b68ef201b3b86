"""Fleets that grow and shrink, from a client's request to a worker's environment, on the loop's clock.

Workers need a second to come up and work as long as the job's input says.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runyard.domain.scaling import ScalingPolicy
from runyard.domain.worker import Exit
from tests.builders import ENDPOINT, a_scaling, an_endpoint
from tests.component.crew import Crew
from tests.component.wire import GET, POST, Ports, open_ports

pytestmark = pytest.mark.looptime


class Film:
    """A platform with one endpoint. Times are of the loop's clock; what is planned is done within `SOON_S`."""

    def __init__(self, ports: Ports, crew: Crew) -> None:
        self.ports = ports
        self.crew = crew

    @property
    def fleet(self) -> int:
        return len(self.crew.running)

    async def run(self, seconds: float = 0, **policy: Any) -> str:
        """Submit a job that takes so long; its id."""
        body = json.dumps({"input": {"s": seconds}, "policy": policy})
        reply = await (await self.ports.connect()).ask(self.ports.request(POST, "/run", body))
        return reply.json()["id"]

    async def status(self, job_id: str) -> dict[str, Any]:
        return (await (await self.ports.connect()).ask(self.ports.request(GET, f"/status/{job_id}"))).json()

    async def until(self, at: float) -> None:
        """Let time pass up to that second, to do something then."""
        await asyncio.sleep(at - self.crew.loop_time)

    async def past(self, at: float) -> None:
        """Let time pass up to a bit after that second, when all that is planned for it is done."""
        await self.until(at + SOON_S)


SOON_S = 0.3


@asynccontextmanager
async def filming(scaling: ScalingPolicy) -> AsyncIterator[Film]:
    crews: list[Crew] = []

    def crew(observer: Any) -> Crew:
        crews.append(Crew(observer))
        return crews[0]

    async with open_ports(endpoint=an_endpoint(scaling=scaling), runtime=crew) as ports:
        crews[0].ports = ports
        yield Film(ports, crews[0])


def about(*times: float) -> Any:
    """A plan is made up to 50 ms after its cause, and a second request may come in between."""
    return pytest.approx(list(times), abs=SOON_S)


@pytest.mark.row("F073")
async def test_the_minimum_of_workers_is_up_before_the_first_request_and_for_ever() -> None:
    async with filming(a_scaling(workers_min=2, workers_max=3, idle_s=5)) as film:
        await film.past(0)
        assert about(0, 0) == film.crew.started
        await film.until(100)
        job = await film.run(1)
        await film.past(200)

        assert ("COMPLETED", 0) == ((status := await film.status(job))["status"], round(status["delayTime"], -2))
        assert (2, 2, []) == (film.fleet, len(film.crew.started), film.crew.ended)


@pytest.mark.row("F073")
async def test_a_worker_of_the_minimum_that_dies_is_replaced() -> None:
    async with filming(a_scaling(workers_min=1)) as film:
        await film.until(10)
        film.crew.exit(next(iter(film.crew.running)), Exit(None, 9))
        await film.past(20)

        assert (1, 2) == (film.fleet, len(film.crew.started))


@pytest.mark.row("F073")
async def test_without_a_minimum_there_is_no_worker_until_one_is_asked_for() -> None:
    async with filming(a_scaling(workers_min=0)) as film:
        await film.past(100)

        assert 0 == film.fleet


@pytest.mark.row("F074")
@pytest.mark.parametrize("scaler", [{"delay_s": 0.5}, {"per_worker": 1}], ids=["delay", "count"])
async def test_a_rush_never_starts_more_workers_than_the_maximum(scaler: dict[str, Any]) -> None:
    async with filming(a_scaling(workers_max=2, **scaler)) as film:
        jobs = [await film.run(2) for _ in range(10)]
        await film.past(20)

        assert 2 == film.crew.most
        assert {"COMPLETED"} == {(await film.status(job))["status"] for job in jobs}


@pytest.mark.row("F074")
async def test_a_maximum_of_no_workers_keeps_jobs_waiting_and_says_so() -> None:
    async with filming(a_scaling(workers_max=0)) as film:
        job = await film.run()
        await film.past(60)

        assert ("IN_QUEUE", "workers_max_zero") == (
            (status := await film.status(job))["status"],
            status["queueReason"]["code"],
        )
        assert [] == film.crew.started


@pytest.mark.row("F075")
@pytest.mark.parametrize("idle_s", [1, 5, 60])
async def test_a_worker_stays_for_the_idle_timeout_after_its_last_job(idle_s: int) -> None:
    async with filming(a_scaling(idle_s=idle_s)) as film:
        await film.run(3)
        await film.past(4 + idle_s)

        assert about(4 + idle_s) == film.crew.ended


@pytest.mark.row("F075")
async def test_each_job_begins_the_idle_timeout_anew() -> None:
    async with filming(a_scaling(idle_s=5)) as film:
        for second in (0, 5, 9):
            await film.until(second)
            await film.run(1)
        await film.past(30)

        assert (about(0), about(9 + 1 + 5)) == (film.crew.started, film.crew.ended)


@pytest.mark.row("F078")
async def test_by_queue_delay_the_first_request_starts_a_worker_at_once() -> None:
    async with filming(a_scaling(delay_s=4)) as film:
        await film.until(7)
        job = await film.run()
        await film.past(10)

        assert about(7) == film.crew.started
        assert 1000 == pytest.approx((await film.status(job))["delayTime"], abs=1000 * SOON_S)


@pytest.mark.row("F078")
async def test_by_queue_delay_a_request_that_waits_longer_starts_another_worker() -> None:
    async with filming(a_scaling(delay_s=4)) as film:
        await film.run(100)
        await film.until(2)
        await film.run(100)
        await film.until(5)
        assert about(0) == film.crew.started
        await film.run(100)
        await film.past(20)

        assert about(0, 6, 9) == film.crew.started


@pytest.mark.row("F078")
async def test_by_queue_delay_a_request_that_waits_less_starts_nobody() -> None:
    async with filming(a_scaling(delay_s=4)) as film:
        await film.run(4)
        await film.until(2)
        job = await film.run(4)
        await film.past(30)

        assert about(0) == film.crew.started
        assert 3000 == pytest.approx((await film.status(job))["delayTime"], abs=1000 * SOON_S)


@pytest.mark.row("F079")
@pytest.mark.parametrize(("requests", "workers"), [(1, 1), (4, 1), (5, 2), (9, 3), (100, 5)])
async def test_by_request_count_there_is_a_worker_for_every_few_requests(requests: int, workers: int) -> None:
    async with filming(a_scaling(per_worker=4, workers_max=5)) as film:
        for _ in range(requests):
            await film.run(100)
        await film.past(0)

        assert workers == film.fleet


@pytest.mark.row("F079")
async def test_by_request_count_those_that_run_count_too() -> None:
    async with filming(a_scaling(per_worker=2, workers_max=5)) as film:
        for _ in range(4):
            await film.run(100)
        await film.past(3)
        assert 2 == film.fleet
        await film.run(100)
        await film.past(4)

        assert 3 == film.fleet


@pytest.mark.row("F079")
async def test_by_request_count_the_minimum_holds_when_nobody_asks() -> None:
    async with filming(a_scaling(per_worker=1, workers_min=1, workers_max=5, idle_s=5)) as film:
        for _ in range(3):
            await film.run(1)
        await film.past(1)
        assert 3 == film.fleet
        await film.past(20)

        assert 1 == film.fleet


async def test_a_job_whose_worker_dies_is_run_by_the_next_and_fails_with_the_third() -> None:
    async with filming(a_scaling(workers_max=1)) as film:
        saved, doomed = await film.run(3), await film.run(3)
        deaths = 0
        while deaths < 4:
            await asyncio.sleep(0.5)
            holder = (await film.status(saved if deaths == 0 else doomed)).get("workerId")
            if holder in film.crew.running:
                film.crew.exit(holder, Exit(None, 9))
                deaths += 1
            if deaths == 1 and (await film.status(saved))["status"] == "COMPLETED":
                continue
        await asyncio.sleep(1)
        status = await film.status(doomed)

        assert "COMPLETED" == (await film.status(saved))["status"]
        assert "FAILED" == status["status"]
        assert status["error"].endswith(
            "killed by signal 9) (attempt 3 of 3; no attempt is left); quarantined: 3 workers died with this job in hand"
        )
        health = (await (await film.ports.connect()).ask(film.ports.request(GET, "/health"))).json()
        assert (1, 1, 3) == (health["jobs"]["completed"], health["jobs"]["failed"], health["jobs"]["retried"])


async def test_a_worker_that_is_told_to_go_finishes_its_job_first() -> None:
    async with filming(a_scaling(workers_max=1)) as film:
        job = await film.run(60)
        await film.until(10)
        [live] = film.ports.platform.roster.of_endpoint(ENDPOINT)
        film.ports.platform.lifecycle.replace(live, "a person said so")
        await film.past(62)

        assert ("COMPLETED", about(61)) == ((await film.status(job))["status"], film.crew.ended)
