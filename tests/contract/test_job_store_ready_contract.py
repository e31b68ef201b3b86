"""What every `JobStore` promises of jobs that cannot be taken yet."""

from runyard.domain.job import EndpointId, ExecutionPolicy, Job, JobId
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobStore
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A

OTHER = EndpointId("endpoint-2")
LATER = START + 100


async def test_none_is_taken_from_the_first_on_that_is_not_ready(store: JobStore) -> None:
    for id, input in {"a": b"1", "b": Spilled("b", 9), "c": Spilled("c", 9), "d": b"4"}.items():
        await store.add(a_job(id)._replace(input=input))
    asked: list[JobId] = []

    def ready(job: Job) -> bool:
        asked.append(job.id)
        return job.id != "c"

    assert ["a", "b"] == [job.id for job in await store.take(ENDPOINT, A, 9, LATER, ready)]
    assert ["b", "c"] == asked, "only those with large inputs, and none behind the first that is not ready"
    assert [] == await store.take(ENDPOINT, A, 9, LATER, ready)
    assert ["c", "d"] == [job.id for job in await store.take(ENDPOINT, A, 9, LATER)]


async def test_none_is_asked_about_that_the_worker_may_not_have(store: JobStore) -> None:
    await store.add(a_job("a")._replace(input=Spilled("a", 9)))
    [job] = await store.take(ENDPOINT, A, 1, START)
    await store.save(job.lose_worker(START + 1, "it died"), was=job)
    await store.add(a_job("over", ttl_s=1, expires_at=START + 1)._replace(input=Spilled("over", 9)))
    await store.add(a_job("b"))

    assert ["b"] == [job.id for job in await store.take(ENDPOINT, A, 9, LATER, lambda job: False)]


async def test_the_first_that_wait_are_told_in_the_order_in_which_they_are_taken(store: JobStore) -> None:
    for id in "abcd":
        await store.add(a_job(id, policy=ExecutionPolicy(low_priority=id in "ac")))
    [job] = await store.take(ENDPOINT, A, 1, START)

    assert "a" == job.id
    assert ["b", "c"] == [job.id for job in await store.first(ENDPOINT, 2)]
    await store.save(job.lose_worker(START + 1, "it died"), was=job)
    assert ["a", "b", "c", "d"] == [job.id for job in await store.first(ENDPOINT, 9)]
    assert [] == await store.first(OTHER, 9)
