"""Short ways to bring a `JobStore` into a state, for the suites that say what the port means."""

from collections.abc import Callable

from runyard.domain.job import Job, JobId, WorkerId
from runyard.ports.stores import JobStore
from tests.builders import ENDPOINT, START, a_job

NewStore = Callable[[int], JobStore]
"""Opens an empty store for that many bytes of payload."""
A, B = WorkerId("worker-a"), WorkerId("worker-b")


async def stored(store: JobStore, *ids: str, **changes: object) -> list[Job]:
    """Add jobs, queued a second apart in this order."""
    jobs = [a_job(id, at=START + number, **changes) for number, id in enumerate(ids)]
    for job in jobs:
        await store.add(job)
    return jobs


async def saved(store: JobStore, was: Job, job: Job) -> Job:
    """Save a change that must go through."""
    assert await store.save(job, was=was)
    return job


async def taken(store: JobStore, worker: WorkerId = A, limit: int = 1, now: float = START + 100) -> list[JobId]:
    """Ids of the jobs a worker gets."""
    return [job.id for job in await store.take(ENDPOINT, worker, limit, now)]


async def kept(store: JobStore, job: Job) -> Job:
    """The job as it is stored."""
    found = await store.get(job.endpoint_id, job.id)
    assert found is not None
    return found


async def put_away(store: JobStore, job: Job, now: float = START + 1000) -> bool:
    """Whether it went."""
    return [job] == await store.put_away([job], now)
