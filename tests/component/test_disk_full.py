"""What clients and workers see of a disk that is almost full, and of one that is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from runyard.domain.job import JobState
from runyard.domain.worker import Exit
from runyard.edge.worker import RESULT_HOLD_S
from runyard.services.lifecycle import END_S_MAX
from runyard.services.room import Room
from tests.builders import ENDPOINT, a_scaling, an_endpoint
from tests.component.control_plane import ControlPlane
from tests.component.test_adoption import House, a_running_job, the_worker
from tests.control_doubles import SetDisk
from tests.edge_kit import Worker, Yard
from tests.full_store import FullJobs

pytestmark = pytest.mark.looptime


@pytest.fixture
def store() -> FullJobs:
    return FullJobs()


@pytest.fixture
async def yard(store: FullJobs) -> AsyncIterator[Yard]:
    yard = Yard(store=store)
    await yard.open()
    yield yard
    store.full = False
    await yard.close()


@pytest.fixture
def worker(yard: Yard) -> Worker:
    return yard.worker()


async def taken(yard: Yard, worker: Worker) -> str:
    job_id = await yard.client.run()
    assert job_id == (await worker.take()).json()["id"]
    return job_id


# The reserve


async def test_within_the_reserve_new_jobs_are_refused_and_accepted_ones_go_on(yard: Yard, worker: Worker) -> None:
    disk = SetDisk()
    room = Room(disk, yard.clock, reserve_bytes=1 << 20)
    yard.jobs.admit = room.admit
    held, waiting, failed = await taken(yard, worker), await yard.client.run(), await yard.client.run()
    disk.free = 1
    await room.look()

    for path in ("/run", "/runsync"):
        refused = await yard.client.post(path, {"input": 1})
        assert (503, "1") == (refused.status, refused.headers["retry-after"])
        assert "disk is full" in refused.json()["error"]
    assert 200 == (await worker.done(held, {"output": 5})).status
    assert 5 == (await yard.client.status(held))["output"]
    assert 200 == (await yard.client.post(f"/cancel/{waiting}")).status
    assert failed == (await worker.take()).json()["id"], "what was accepted is worked on"
    await worker.done(failed, {"error": "no"})
    assert 503 == (await yard.client.post(f"/retry/{failed}")).status

    disk.free = 1 << 30
    await room.look()
    await yard.client.run()
    assert 200 == (await yard.client.post(f"/retry/{failed}")).status


async def test_no_bundle_is_taken_while_the_disk_is_full_and_metrics_say_so() -> None:
    plane = ControlPlane()
    async with plane.running():
        assert 200 == (await plane.client.get("/healthz")).status_code
        plane.disk.free = 100
        await plane.room.look()
        refused = await plane.client.put(f"/v2/bundles/{'0' * 64}", content=b"1")
        metrics = (await plane.stranger.get("/metrics")).text

        assert (503, "1") == (refused.status_code, refused.headers["retry-after"])
        assert "runyard_disk_free_bytes 100.0" in metrics
        assert "runyard_disk_full 1.0" in metrics
        assert 200 == (await plane.client.get("/healthz")).status_code


# A store that cannot write


async def test_a_full_disk_refuses_what_is_new_and_shows_what_is_there(yard: Yard, store: FullJobs) -> None:
    job_id = await yard.client.run()
    store.full = True

    assert 503 == (await yard.client.post("/run", {"input": 1})).status
    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]
    assert 503 == (await yard.client.post(f"/cancel/{job_id}")).status
    store.full = False
    assert 200 == (await yard.client.post(f"/cancel/{job_id}")).status


async def test_a_result_waits_until_it_can_be_kept(yard: Yard, worker: Worker, store: FullJobs) -> None:
    """A stock worker would drop it after three answers of 503 within 5 seconds."""
    job_id = await taken(yard, worker)
    store.full = True
    done = worker.done(job_id, {"output": "dear"})
    await asyncio.sleep(60)
    assert not done.answered
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]
    store.full = False

    assert 200 == (await done).status
    assert "dear" == (await yard.client.status(job_id))["output"]


async def test_chunks_wait_until_they_can_be_kept(yard: Yard, worker: Worker, store: FullJobs) -> None:
    job_id = await taken(yard, worker)
    store.full = True
    chunk = worker.stream(job_id, "dear")
    await asyncio.sleep(60)
    assert not chunk.answered
    store.full = False

    assert 200 == (await chunk).status
    shown = (await yard.client.get(f"/stream/{job_id}")).json()["stream"]
    assert [{"output": "dear"}] == [{"output": one["output"]} for one in shown]


async def test_a_result_that_has_waited_too_long_is_to_be_sent_again(
    yard: Yard, worker: Worker, store: FullJobs
) -> None:
    job_id = await taken(yard, worker)
    store.full = True
    began = yard.clock.now()

    assert 503 == (await worker.done(job_id, {"output": 1})).status
    assert RESULT_HOLD_S <= yard.clock.now() - began < RESULT_HOLD_S + 1
    store.full = False
    assert 200 == (await worker.done(job_id, {"output": 1})).status
    assert "COMPLETED" == (await yard.client.status(job_id))["status"]


async def test_a_result_that_waits_is_sent_again_to_the_next_server(
    yard: Yard, worker: Worker, store: FullJobs
) -> None:
    """A connection that broke would lose it; so it is answered before the server lets go of the connection."""
    job_id = await taken(yard, worker)
    store.full = True
    done = worker.done(job_id, {"output": 1})
    await asyncio.sleep(5)
    for connection in list(yard.server_state.connections):
        connection.hurry()  # type: ignore[union-attr]
    hurried = yard.clock.now()

    assert 503 == (await done).status
    assert yard.clock.now() - hurried < 1


async def test_a_result_is_kept_though_its_worker_has_left_meanwhile(
    yard: Yard, worker: Worker, store: FullJobs
) -> None:
    job_id = await taken(yard, worker)
    store.full = True
    done = worker.done(job_id, {"output": "dear"})
    await asyncio.sleep(5)
    done.leave()
    await asyncio.sleep(5)
    store.full = False
    await asyncio.sleep(1)

    assert "dear" == (await yard.client.status(job_id))["output"]


async def test_a_job_whose_worker_ends_on_a_full_disk_is_queued_when_there_is_room(
    yard: Yard, worker: Worker, store: FullJobs
) -> None:
    job_id = await taken(yard, worker)
    store.full = True
    gone = asyncio.create_task(yard.dispatch.worker_gone(worker.live, "it was killed"))
    await asyncio.sleep(30)
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]
    store.full = False
    await gone

    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]


async def test_jobs_expire_and_the_sweeper_lives_on_a_full_disk(yard: Yard, worker: Worker, store: FullJobs) -> None:
    job_id = await yard.client.run(policy={"executionTimeout": 5000})
    await worker.take()
    doomed = await yard.client.run(policy={"ttl": 10_000})
    store.full = True
    await asyncio.sleep(30)

    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"], "its end could not be kept"
    assert 404 == (await yard.client.get(f"/status/{doomed}")).status
    assert store.refused > 10
    store.full = False
    await asyncio.sleep(1)
    assert "TIMED_OUT" == (await yard.client.status(job_id))["status"]


async def test_a_job_that_could_not_be_handed_over_is_put_back_when_there_is_room(
    yard: Yard, worker: Worker, store: FullJobs
) -> None:
    """Its lease is kept, and then the worker is gone: the job must not stay with it."""
    job_id = await yard.client.run()

    def fill_and_leave() -> None:
        poll.leave()
        store.full = True

    store.on_taken = fill_and_leave
    poll = worker.take()
    await asyncio.sleep(10)
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]
    store.full = False
    await asyncio.sleep(1)

    assert "IN_QUEUE" == (await yard.client.status(job_id))["status"]


# A platform that starts or ends then


@pytest.fixture
async def house(store: FullJobs) -> House:
    house = House(store=store)
    await house.control.add_endpoint(an_endpoint(scaling=a_scaling(workers_min=1, workers_max=1)))
    return house


async def test_a_platform_that_ends_does_not_wait_for_room(house: House, store: FullJobs) -> None:
    async with house.process() as platform:
        live = await the_worker(platform)
        await a_running_job(platform, live)
        store.full = True
        house.runtime.exit(live.id, Exit(None, 9))
        async with asyncio.timeout(2 * END_S_MAX):
            await platform.drain()

    assert store.refused > 5


async def test_a_platform_opens_on_a_full_disk_and_sees_to_lost_jobs_when_there_is_room(
    house: House, store: FullJobs
) -> None:
    async with house.process() as platform:
        live = await the_worker(platform)
        job = await a_running_job(platform, live)
        store.full = True
    house.runtimes.clear()  # Nothing of it runs any more.
    began = asyncio.get_running_loop().time()
    async with house.process() as platform:
        assert asyncio.get_running_loop().time() - began < 5
        shown = await platform.jobs.get(ENDPOINT, job.id)
        assert JobState.IN_PROGRESS is shown.state
        store.full = False
        await asyncio.sleep(1)
        assert JobState.IN_QUEUE is (await platform.jobs.get(ENDPOINT, job.id)).state
