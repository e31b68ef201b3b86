"""The fleet follows demand: real planner, lifecycle, queue and edge; workers are entries of a `FakeRuntime`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.domain.scaling import ScalingPolicy
from tests.builders import ENDPOINT, a_scaling, an_endpoint
from tests.edge_kit import Worker, Yard

pytestmark = pytest.mark.looptime
A_MOMENT = 0.2
"""More than the loop needs to see a change and act on it."""


class Site:
    """A yard whose fleet runs."""

    def __init__(self, yard: Yard, runtime: FakeRuntime) -> None:
        self.yard, self.runtime = yard, runtime

    @property
    def running(self) -> int:
        return len(self.runtime.running)

    async def submit(self, count: int = 1) -> list[str]:
        ids = [await self.yard.client.run(number) for number in range(count)]
        await asyncio.sleep(A_MOMENT)
        return ids

    def worker(self, number: int = 0) -> Worker:
        """The worker that was started as this one, speaking for itself."""
        launch = self.runtime.launches[number]
        secret = launch.env["RUNPOD_AI_API_KEY"]
        worker = Worker(self.yard, self.yard.worker_port, f"/v2/{ENDPOINT}", secret)
        live = self.yard.roster.get(launch.worker_id)
        assert live is not None
        worker.live = live
        return worker


@asynccontextmanager
async def a_site(scaling: ScalingPolicy) -> AsyncGenerator[Site]:
    yard = Yard()
    yard.book.put(an_endpoint(scaling=scaling))
    await yard.open()
    runtime = FakeRuntime(yard.lifecycle)
    await yard.lifecycle.open(runtime)
    planning = asyncio.create_task(yard.fleet.run())
    try:
        yield Site(yard, runtime)
    finally:
        planning.cancel()
        await yard.lifecycle.close()
        await yard.close()


@pytest.mark.row("F073")
async def test_active_workers_are_there_before_the_first_job_and_stay() -> None:
    async with a_site(a_scaling(workers_min=2)) as site:
        await asyncio.sleep(A_MOMENT)
        assert 2 == site.running

        polls = [site.worker(number).take() for number in (0, 1)]
        await asyncio.sleep(3600)

        assert 2 == site.running
        for poll in polls:
            poll.leave()


@pytest.mark.row("F074")
async def test_there_are_never_more_workers_than_the_maximum_and_the_job_says_so() -> None:
    async with a_site(a_scaling(workers_max=2, delay_s=0.5)) as site:
        ids = await site.submit(10)
        await asyncio.sleep(60)
        for number in (0, 1):
            assert 200 == (await site.worker(number).take()).status
        await asyncio.sleep(60)

        assert 2 == site.running == len(site.runtime.launches)
        reason = (await site.yard.client.status(ids[-1]))["queueReason"]
        assert "workers_max_reached" == reason["code"]


@pytest.mark.row("F075")
async def test_a_worker_stops_when_it_has_been_idle_for_the_idle_timeout() -> None:
    async with a_site(a_scaling(idle_s=30)) as site:
        [job] = await site.submit()
        worker = site.worker()
        assert 200 == (await worker.take()).status
        await asyncio.sleep(100)
        await worker.done(job, {"output": 1})

        poll = worker.take()
        await asyncio.sleep(29)
        assert 1 == site.running
        await asyncio.sleep(1 + A_MOMENT)
        assert 0 == site.running
        poll.leave()


@pytest.mark.row("F078")
async def test_queue_delay_starts_another_worker_for_a_job_that_has_waited_too_long() -> None:
    async with a_site(a_scaling(delay_s=4)) as site:
        await site.submit()
        assert 1 == site.running
        assert 200 == (await site.worker().take()).status

        await site.submit()
        await asyncio.sleep(3.5)
        assert 1 == site.running
        await asyncio.sleep(0.5)
        assert 2 == site.running


@pytest.mark.row("F079")
@pytest.mark.parametrize(("requests", "workers"), [(1, 1), (4, 1), (5, 2), (9, 3), (100, 3)])
async def test_request_count_wants_a_worker_for_every_so_many_requests(requests: int, workers: int) -> None:
    async with a_site(a_scaling(per_worker=4, workers_max=3)) as site:
        await site.submit(requests)

        assert workers == site.running


async def test_a_fleet_that_is_new_to_the_platform_is_planned_at_once() -> None:
    async with a_site(a_scaling(workers_min=1)) as site:
        await asyncio.sleep(A_MOMENT)

        assert 1 == site.running
