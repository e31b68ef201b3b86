"""Programs that put the platform's own stores to work and acknowledge what those have promised."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from runyard.adapters.backups import back_up, restore
from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.payloads import FolderPayloads
from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores import journal
from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.system import SystemClock
from runyard.domain.account import ApiKey, KeyId, digest_of
from runyard.domain.errors import Conflict
from runyard.domain.job import EndpointId, Job, JobId, JobState
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobQuery
from runyard.services.inputs import Inputs
from runyard.services.spill import Carried, Spills
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


async def results(folder: Path, count: str, how: str = "synced") -> None:
    """Large results of several jobs at once, kept in files. A third of the jobs fail and run again, some are put away, and
    what nobody names is swept away meanwhile.
    """
    acks, store = Acks(), EmbeddedJobs(folder / "jobs.db", clean_from_bytes=1 << 12)
    spills = Spills(FolderPayloads(folder / "payloads", synced=how == "synced"), store, SystemClock(), Carried(0))

    async def live(number: int) -> None:
        await store.add(a_job(f"job-{number}"))
        for leased in await store.take(ENDPOINT, WORKER, 1, START):
            incoming = await spills.begin(ENDPOINT, leased.id, WORKER)
            assert incoming is not None
            for piece in (result_of(leased.id)[:5000], result_of(leased.id)[5000:]):
                await incoming.write(piece)
            payload = await incoming.keep()
            failed = leased.fail("boom", payload, START + 1)
            ended = failed if leased.run == 1 and int(leased.id[4:]) % 3 == 0 else leased.complete(payload, START + 1)
            if await store.save(ended, leased):
                acks.tell(f"{leased.id} {ended.state} {leased.run}")
            await incoming.close()
            if ended is failed:
                await asyncio.gather(spills.sweep(), store.save(failed.retry(START + 2), failed))

    for first in range(0, int(count), 4):
        await asyncio.gather(*(live(number) for number in range(first, first + 4)))
        done = await store.list(ENDPOINT, JobQuery(states=frozenset({JobState.COMPLETED}), limit=2))
        await store.put_away(done.jobs, START + 1000)
        await spills.sweep()
    await store.close()


async def inputs(folder: Path, count: str, how: str = "synced") -> None:
    """Large inputs of several jobs at once, kept in files. Each is submitted a second time, with another input, and refused;
    a third fail and run again, some are put away, and what nobody names is swept away meanwhile.
    """
    acks, store = Acks(), EmbeddedJobs(folder / "jobs.db", clean_from_bytes=1 << 12)
    spills = Spills(FolderPayloads(folder / "payloads", synced=how == "synced"), store, SystemClock(), Carried(0))
    inputs = Inputs(spills, store, LocalSignals(), SystemClock(), inline_bytes_max=0)

    async def keep(job: Job) -> Job:
        await store.add(job)
        return job

    async def live(number: int) -> None:
        id = f"job-{number}"
        job = await inputs.spill(a_job(id, input=result_of(id)), keep)
        acks.tell(f"{job.id} added")
        with suppress(Conflict):
            await inputs.spill(a_job(id, input=b"another"), keep)
        for leased in await store.take(ENDPOINT, WORKER, 1, START):
            assert isinstance(leased.input, Spilled)
            input = await spills.load(leased.input)
            assert input == result_of(leased.id)
            failed = leased.fail("boom", None, START + 1)
            ended = failed if leased.run == 1 and int(leased.id[4:]) % 3 == 0 else leased.complete(b"1", START + 1)
            await store.save(ended, leased)
            if ended is failed:
                await asyncio.gather(spills.sweep(), store.save(failed.retry(START + 2), failed))

    for first in range(0, int(count), 4):
        await asyncio.gather(*(live(number) for number in range(first, first + 4)))
        done = await store.list(ENDPOINT, JobQuery(states=frozenset({JobState.COMPLETED}), limit=2))
        await store.put_away(done.jobs, START + 1000)
        await spills.sweep()
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
    payloads = FolderPayloads(data / "payloads")
    for number in range(int(count)):
        draft = await payloads.begin(ENDPOINT, JobId(f"job-{number}"))
        await draft.write(result_of(f"job-{number}"))
        await draft.keep()
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


def result_of(job_id: str) -> bytes:
    """About 20 sectors, each another, of each job."""
    return b"".join(b"%s has %d\n" % (job_id.encode(), line) for line in range(700))


def rendered(job: Job) -> bytes:
    """What is owed for its end."""
    return job.id.encode() * 50


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


if __name__ == "__main__":
    _, program, where, *rest = sys.argv
    programs = {
        "control": control,
        "blobs": blobs,
        "jobs": jobs,
        "results": results,
        "inputs": inputs,
        "careless": careless,
        "backups": backups,
    }
    asyncio.run(programs[program](Path(where), *rest))
