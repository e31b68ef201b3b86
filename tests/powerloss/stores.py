"""Programs that put the platform's own stores to work and acknowledge what those have promised."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from runyard.adapters.backups import back_up, restore
from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.stores import journal
from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.domain.account import ApiKey, KeyId, digest_of
from runyard.domain.job import EndpointId, Job, JobState
from runyard.ports.stores import JobQuery
from tests.builders import ENDPOINT, START, WORKER, a_job, a_release, an_endpoint
from tests.powerloss.log import Acks

BLOB_BYTES_MAX = 1 << 20
WEBHOOK = "http://receiver.test/"


async def control(folder: Path, count: str) -> None:
    """Keys made and revoked, endpoints deployed and released anew."""
    acks, store = Acks(), SqliteControl(folder / "control.db")
    for number in range(int(count)):
        key = ApiKey(id=KeyId(f"key-{number}"), name="ci", digest=digest_of(str(number)), created_at=START)
        await store.add_key(key)
        acks.tell(f"added {key.id}")
        if number % 3 == 0:
            await store.revoke_key(key.id, START)
            acks.tell(f"revoked {key.id}")
        id = EndpointId(f"endpoint-{number}")
        endpoint = an_endpoint(id)
        await store.add_endpoint(endpoint)
        acks.tell(f"deployed {id} 1")
        newer = replace(endpoint, release=a_release(2, endpoint_id=id), generation=endpoint.generation + 1)
        assert await store.save_endpoint(newer, generation=endpoint.generation)
        acks.tell(f"deployed {id} 2")
    await store.close()


async def blobs(folder: Path, count: str) -> None:
    acks, store = Acks(), FolderBlobs(folder / "blobs")
    for number in range(int(count)):
        data = b"%d" % number * 3000
        digest = hashlib.sha256(data).hexdigest()
        await store.put(digest, _one(data), BLOB_BYTES_MAX)
        acks.tell(digest)


async def jobs(folder: Path, count: str) -> None:
    """Jobs submitted, taken, streamed and finished by several at once, while the journal is cleaned. Half have a webhook."""
    acks, store = Acks(), EmbeddedJobs(folder / "jobs.db", clean_from_bytes=1 << 14, render=rendered)

    async def live(number: int) -> None:
        job = a_job(f"job-{number}", input=b"1" * 300, webhook=WEBHOOK if number % 2 else None)
        await store.add(job)
        acks.tell(f"{job.id} added")
        for leased in await store.take(ENDPOINT, WORKER, 1, START):
            if leased.id == job.id:
                await store.append_output(leased, [b"2" * 300])
                acks.tell(f"{job.id} streamed")
            done = leased.complete(b"3" * 300, START + 1)
            if await store.save(done, leased):
                acks.tell(f"{leased.id} done")

    for first in range(0, int(count), 8):
        await asyncio.gather(*(live(number) for number in range(first, first + 8)))
        for job in (await store.list(ENDPOINT, JobQuery(states=frozenset({JobState.COMPLETED}), limit=1))).jobs:
            acks.tell(f"{job.id} forgotten")
            await store.put_away([job], START + 1000)
    await store.close()


async def careless(folder: Path, count: str) -> None:
    """Endpoints' keys beside jobs that need not survive a power failure: these must not take the keys with them."""
    acks, path = Acks(), folder / "control.db"
    journal.LOG_PAGES = 30  # The log is copied into the file often, and by the jobs' connection.
    store, jobs = SqliteControl(path), EmbeddedJobs(path, synced=False, clean_from_bytes=1 << 14)
    for number in range(int(count)):
        await asyncio.gather(*(jobs.add(a_job(f"job-{number}-{n}", input=b"1" * 20_000)) for n in range(10)))
        key = ApiKey(id=KeyId(f"key-{number}"), name="ci", digest=digest_of(str(number)), created_at=START)
        await store.add_key(key)
        acks.tell(f"added {key.id}")
    await jobs.close()
    await store.close()


async def backups(folder: Path, count: str) -> None:
    """A data directory, a backup of it, and the data directory that is made from that."""
    acks, data = Acks(), folder / "data"
    await blobs(data, count)
    store = SqliteControl(data / "control.db")
    for number in range(int(count)):
        key = ApiKey(id=KeyId(f"key-{number}"), name="ci", digest=digest_of(str(number)), created_at=START)
        await store.add_key(key)
    for number in range(3):
        back_up(data, folder / f"backup-{number}", now=START, version="1")
        acks.tell(f"backup-{number}")
        restore(folder / f"backup-{number}", folder / f"again-{number}", now=START, key=lambda: ("new", "secret"))
        acks.tell(f"again-{number}")
    await store.close()


def rendered(job: Job) -> bytes:
    """What is owed for its end."""
    return job.id.encode() * 50


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


if __name__ == "__main__":
    _, program, where, count = sys.argv
    asyncio.run(
        {"control": control, "blobs": blobs, "jobs": jobs, "careless": careless, "backups": backups}[program](
            Path(where), count
        )
    )
