"""What every `JobStore` promises about jobs whose time is over, and about those that nobody needs in memory any more."""

from __future__ import annotations

from runyard.domain.fate import Fate, fate_of
from runyard.domain.job import EndpointId, JobId, JobState
from runyard.ports.stores import JobStore
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, saved, stored

OTHER = EndpointId("endpoint-2")


async def fate(store: JobStore, job_id: str = "a", endpoint_id: EndpointId = ENDPOINT) -> Fate | None:
    return await store.fate(endpoint_id, JobId(job_id))


async def test_a_live_jobs_fate_is_what_it_is_doing(store: JobStore) -> None:
    await stored(store, "a")
    [job] = await store.take(ENDPOINT, A, 1, START)

    found = await fate(store)
    assert fate_of(job) == found
    assert found is not None
    assert (JobState.IN_PROGRESS, None, None) == (found.state, found.finished_at, found.loss)
    await saved(store, job, ended := job.complete(b"1", START + 5))
    assert fate_of(ended) == await fate(store)


async def test_an_id_nobody_has_heard_of_has_no_fate_nor_has_one_of_another_endpoint(store: JobStore) -> None:
    await store.add(a_job("a"))

    assert None is await fate(store, "b")
    assert None is await fate(store, "a", OTHER)


async def test_a_fate_has_the_fingerprint_of_a_job_that_its_client_has_named(store: JobStore) -> None:
    await stored(store, "named", fingerprint=bytes(32))
    await stored(store, "unnamed")
    fates = [await store.fate(ENDPOINT, JobId(id)) for id in ("named", "unnamed")]

    assert [bytes(32), None] == [fate and fate.fingerprint for fate in fates]
