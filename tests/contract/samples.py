"""A database as each schema has left it, with data as the code of its day wrote it: `upgrades/NNNN.sql`.

A new migration brings a new sample: `python -m tests.contract.samples` writes that of the newest schema. The others stay as
they are, whatever becomes of the code: they are what is out there.
"""

import asyncio
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.fleet import SqliteFleet
from runyard.adapters.stores.secrets import SqliteSecrets
from runyard.adapters.stores.sqlite import migrations_in
from runyard.domain.account import ApiKey, KeyId, digest_of
from runyard.domain.job import EndpointId, Job, JobState, WorkerId
from runyard.domain.secret import FormerSecret, Registry, RegistryId, Secret
from runyard.domain.terms import QUEUE, OwnTerms
from runyard.domain.webhook import SigningSecret
from tests.builders import START, a_job, a_job_that_is, a_release, a_scaling, a_worker, an_endpoint

SAMPLES = Path(__file__).parent / "upgrades"
NEWEST = max(migrations_in())

KEYS = [
    ApiKey(id=KeyId("key-1"), name="admin", digest=digest_of("one"), created_at=START),
    ApiKey(id=KeyId("key-2"), name="old", digest=digest_of("two"), created_at=START + 1, revoked_at=START + 2),
]
FIRST = an_endpoint(
    scaling=a_scaling(workers_min=1, workers_max=4, delay_s=2.5), execution_timeout=timedelta(seconds=77), generation=3
)
FIRST = replace(FIRST, release=a_release(2, env=(("NAME", "vålue"),), lock="httpx==1.0\n"))
SECOND = an_endpoint(
    "endpoint-2",
    scaling=a_scaling(per_worker=3),
    created_at=START + 5,
    terms=OwnTerms(retention_s=5.5, ttl_scope=QUEUE, attempts_max=9),
)
NUMBERS = {EndpointId("endpoint-0"): 0, FIRST.id: 1, SECOND.id: 2}
WORKERS = [
    a_worker().spawned(START + 10).heard(START + 20).runs_sdk("1.12.0"),
    a_worker("worker-2", endpoint_id=SECOND.id, created_at=START + 1).spawned(START + 11).drain("it is outdated"),
]
SECRETS = (SigningSecret(value="whsec_c2FtcGxl", created_at=START),)
SECRET = Secret(name="hf", sealed=b"sealed anew", created_at=START, updated_at=START + 3)
FORMER = FormerSecret(id=1, name="hf", sealed=b"sealed", replaced_at=START + 3)
REGISTRY = Registry(id=RegistryId("registry-1"), name="hub", server="ghcr.io", sealed=b"a user", created_at=START)
OWING = a_job("job-owing", endpoint_id=SECOND.id, webhook="https://receiver.test/hook", expires_at=START + 1e9)
OWED = b"what the receiver is told"
AWAY = a_job_that_is(JobState.FAILED, endpoint_id=SECOND.id, id="job-away", expires_at=START + 20)
GONE = a_job("job-gone", endpoint_id=SECOND.id, expires_at=START + 20, fingerprint=b"f" * 32)
STREAMED = [b'"one"', b"2", b'{"three":3}']


def jobs() -> dict[JobState, Job]:
    """A job in each state."""
    first, last = WorkerId("worker-1"), START + 9
    queued = {state: a_job(f"job-{state.lower()}", expires_at=START + 1e9) for state in JobState}
    leased = {state: job.take(first, START + 5) for state, job in queued.items()}
    return {
        JobState.IN_QUEUE: queued[JobState.IN_QUEUE],
        JobState.IN_PROGRESS: leased[JobState.IN_PROGRESS],
        JobState.COMPLETED: leased[JobState.COMPLETED].complete(b'{"done":true}', last),
        JobState.FAILED: leased[JobState.FAILED].fail("boom", b"1", last),
        JobState.CANCELLED: queued[JobState.CANCELLED].cancel(last),
        JobState.TIMED_OUT: leased[JobState.TIMED_OUT].time_out(last),
    }


async def fill(path: Path) -> None:
    """Write all of the above."""
    control, fleet = SqliteControl(path), SqliteFleet(path)
    for key in KEYS:
        await control.add_key(replace(key, revoked_at=None))
    await control.revoke_key("key-2", START + 2)
    await control.endpoint_number(EndpointId("endpoint-0"))
    for endpoint in (FIRST, SECOND):
        first = replace(endpoint, release=a_release(endpoint_id=endpoint.id), generation=1)
        await control.add_endpoint(first)
        await control.endpoint_number(endpoint.id)
    assert await control.save_endpoint(FIRST, generation=1)
    for worker in WORKERS:
        await fleet.save(worker)
    store = EmbeddedJobs(path, render=lambda job: OWED)
    for state, job in jobs().items():
        waiting = a_job(job.id, expires_at=job.expires_at)
        await store.add(waiting)
        if job.lease is not None or state is not JobState.IN_QUEUE:
            await _live(store, waiting, job)
    await store.add(OWING)
    assert await store.save(OWING.cancel(START + 9), was=OWING)
    for job in (AWAY, GONE):
        await store.add(job)
        assert [job] == await store.put_away([job], START + 30)
    assert store.outbox is not None
    await store.outbox.keep_secrets(SECOND.id, SECRETS)
    secrets = SqliteSecrets(path)
    await secrets.set_secret(SECRET.name, FORMER.sealed, SECRET.created_at, keep_former=False)
    await secrets.set_secret(SECRET.name, SECRET.sealed, SECRET.updated_at, keep_former=True)
    await secrets.add_registry(REGISTRY)
    for each in (control, fleet, store, secrets):
        await each.close()


async def _live(store: EmbeddedJobs, waiting: Job, job: Job) -> None:
    leased = waiting
    if job.state is not JobState.CANCELLED:
        leased = waiting.take(WorkerId("worker-1"), START + 5)
        assert await store.save(leased, was=waiting)
    if job.state is JobState.IN_PROGRESS:
        await store.append_output(leased, STREAMED)
        await store.drain_output(leased, 1)
        return
    assert await store.save(job, was=leased)


def dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump()) + "\n"


def opened_as(schema: int, path: Path) -> None:
    """Put the sample of that schema at `path`."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(sample_of(schema).read_text())
        database.execute("pragma journal_mode = wal")


def sample_of(schema: int) -> Path:
    return SAMPLES / f"{schema:04}.sql"


if __name__ == "__main__":
    if sample_of(NEWEST).exists():
        sys.exit(f"{sample_of(NEWEST)} exists, and stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "sample.db"
        asyncio.run(fill(database))
        sample_of(NEWEST).write_text(dump(database))
