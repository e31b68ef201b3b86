"""What the platform's stores have acknowledged is there after a power failure, whenever it comes."""

import asyncio
import hashlib
import sqlite3
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from runyard.adapters.backups import restore
from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.payloads import FolderPayloads
from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.system import SystemClock
from runyard.domain.errors import NotFound
from runyard.domain.job import JobId, JobState
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobQuery
from runyard.ports.webhooks import DeliveryQuery
from runyard.services.spill import Carried, Spills
from tests.builders import ENDPOINT, START
from tests.powerloss.recording import Cut, Recording
from tests.powerloss.rig import record
from tests.powerloss.stores import rendered, result_of

pytestmark = pytest.mark.usefixtures("shim")

CUTS = 200
JOB_CUTS = 1_000
RESULT_CUTS = 500
SEED = 3
BACKED_UP = 8


def recorded(tmp_path: Path, program: str, count: int, *more: str) -> Recording:
    folder = tmp_path / "data"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.powerloss.stores", program, str(folder), str(count), *more]
    return record(command, folder, scratch=tmp_path / "rig")


def control_lost(cut: Cut) -> Iterable[str]:
    return {ack.decode() for ack in cut.acks} - asyncio.run(control_holds(cut.folder / "control.db"))


async def control_holds(path: Path) -> set[str]:
    store = SqliteControl(path)
    try:
        keys, endpoints = await store.keys(), await store.endpoints()
        releases = [release for endpoint in endpoints for release in await store.releases(endpoint.id)]
    finally:
        await store.close()
    return {
        *(f"added {key.id}" for key in keys),
        *(f"revoked {key.id}" for key in keys if key.revoked_at is not None),
        *(f"deployed {release.endpoint_id} {release.version}" for release in releases),
    }


def blobs_lost(cut: Cut) -> Iterable[str]:
    FolderBlobs(cut.folder / "blobs")  # Clears away what was interrupted.
    there = {path.name: path.read_bytes() for path in (cut.folder / "blobs").iterdir()}
    missing = {ack.decode() for ack in cut.acks} - there.keys()
    wrong = {name for name, data in there.items() if hashlib.sha256(data).hexdigest() != name}
    return missing | wrong


def jobs_lost(cut: Cut) -> Iterable[str]:
    acks = {ack.decode() for ack in cut.acks}
    forgotten = {ack.split()[0] for ack in acks if ack.endswith("forgotten")}
    return {ack for ack in acks if ack.split()[0] not in forgotten} - asyncio.run(jobs_hold(cut.folder / "jobs.db"))


async def jobs_hold(path: Path) -> set[str]:
    store = EmbeddedJobs(path, render=rendered)
    assert store.outbox is not None
    held: set[str] = set()
    try:
        owed = {
            delivery.job_id
            for delivery in (await store.outbox.list(ENDPOINT, DeliveryQuery(limit=10**6))).deliveries
            if await store.outbox.body(delivery.id) == delivery.job_id.encode() * 50
        }
        for job in (await store.list(ENDPOINT, JobQuery(limit=10**6))).jobs:
            done = job.state is JobState.COMPLETED
            assert (done and job.webhook is not None) == (job.id in owed), (
                f"{job.id} {job.state}: its end or its webhook"
            )
            held |= {f"{job.id} added"} | ({f"{job.id} done"} if done else set())
            held |= {f"{job.id} streamed"} if await store.drain_output(job, None) == [b"2" * 300] else set()
    finally:
        await store.close()
    return held


def results_lost(cut: Cut) -> Iterable[str]:
    """What was acknowledged, and whatever a job names that is not there as it was."""
    done = {ack.decode().split()[0] for ack in cut.acks if b"COMPLETED" in ack}
    whole, lost = asyncio.run(results_hold(cut.folder, done))
    return {f"{job_id} is not done" for job_id in done - whole} | {f"{job_id} names no whole result" for job_id in lost}


async def results_hold(folder: Path, done: Iterable[str]) -> tuple[set[str], set[str]]:
    """The jobs that are done and whose result is whole, and those that name one which is not; `done` may be put away."""
    store = EmbeddedJobs(folder / "jobs.db")
    spills = Spills(FolderPayloads(folder / "payloads"), store, SystemClock(), Carried(0))
    whole, lost = set[str](), set[str]()
    try:
        await spills.sweep()
        listed = (await store.list(ENDPOINT, JobQuery(limit=10**6))).jobs
        for job_id in {job.id for job in listed} | {JobId(job_id) for job_id in done}:
            job = await store.get(ENDPOINT, job_id)
            if job is None or job.output is None:
                continue
            assert isinstance(job.output, Spilled)
            try:
                found = await spills.load(job.output)
            except NotFound:
                found = b""
            if found != result_of(job.id):
                lost.add(job.id)
            elif job.state is JobState.COMPLETED:
                whole.add(job.id)
    finally:
        await store.close()
    return whole, lost


def inputs_lost(cut: Cut) -> Iterable[str]:
    """Jobs that were acknowledged and are not there, and whatever job names an input that is not there as it was."""
    added = {ack.decode().split()[0] for ack in cut.acks}
    there, lost = asyncio.run(inputs_hold(cut.folder, added))
    return {f"{job_id} is not there" for job_id in added - there} | {
        f"{job_id} names no whole input" for job_id in lost
    }


async def inputs_hold(folder: Path, added: Iterable[str]) -> tuple[set[str], set[str]]:
    """All jobs, and those of them whose input is not whole; `added` may be put away."""
    store = EmbeddedJobs(folder / "jobs.db")
    spills = Spills(FolderPayloads(folder / "payloads"), store, SystemClock(), Carried(0))
    there, lost = set[str](), set[str]()
    try:
        await spills.sweep()
        listed = (await store.list(ENDPOINT, JobQuery(limit=10**6))).jobs
        for job_id in {job.id for job in listed} | {JobId(job_id) for job_id in added}:
            job = await store.get(ENDPOINT, job_id)
            if job is None:
                continue
            there.add(job.id)
            assert isinstance(job.input, Spilled)
            try:
                found = await spills.load(job.input)
            except NotFound:
                found = b""
            if found != result_of(job.id):
                lost.add(job.id)
    finally:
        await store.close()
    return there, lost


def careless_lost(cut: Cut) -> Iterable[str]:
    """Nor may the file be damaged, or the jobs that are still in it."""
    database = cut.folder / "control.db"
    missing = control_lost(cut)
    with closing(sqlite3.connect(database)) as connection:
        damage = [row[0] for row in connection.execute("pragma integrity_check")]
    asyncio.run(jobs_hold(database))
    return {*missing, *(line for line in damage if line != "ok")}


def backups_lost(cut: Cut) -> Iterable[str]:
    """What has the name of a backup, or of a data directory, is whole; what was acknowledged is there."""
    acked = {ack.decode() for ack in cut.acks if ack.startswith((b"backup", b"again"))}
    there = {path.name for path in cut.folder.glob("backup-*")}
    there |= {path.parent.name for path in cut.folder.glob("again-*/control.db")}
    keys = {f"added key-{number}" for number in range(BACKED_UP)}
    for name in sorted(there):
        folder = cut.folder / name
        if name.startswith("backup"):
            with tempfile.TemporaryDirectory() as scratch:
                restore(folder, Path(scratch) / "again", now=START, key=lambda: ("new", "secret"))
        elif missing := (keys | {"added new"}) - asyncio.run(control_holds(folder / "control.db")):
            yield f"{name} lacks {missing}"
        elif len(list((folder / "blobs").iterdir())) != BACKED_UP or not (folder / "admin.key").read_text():
            yield f"{name} lacks blobs, or its key"
        elif results_in(folder) != sorted(result_of(f"job-{number}") for number in range(BACKED_UP)):
            yield f"{name} lacks results"
    yield from acked - there


def results_in(folder: Path) -> list[bytes]:
    return sorted(file.read_bytes() for file in (folder / "payloads").iterdir())


@pytest.mark.parametrize("strict", [False, True])
def test_large_results_outlive_a_power_failure_with_the_ends_of_their_jobs(tmp_path: Path, *, strict: bool) -> None:
    findings = recorded(tmp_path, "results", 80).examine(results_lost, cuts=RESULT_CUTS, seed=SEED, strict=strict)

    assert not findings.problems, str(findings)
    assert findings.acks > RESULT_CUTS


def test_large_results_that_are_not_synced_are_found_to_be_lost(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "results", 80, "unsynced").examine(results_lost, cuts=50, seed=SEED)

    assert findings.cuts_with_problems > 10


@pytest.mark.parametrize("strict", [False, True])
def test_large_inputs_outlive_a_power_failure_with_the_jobs_that_were_acknowledged(
    tmp_path: Path, *, strict: bool
) -> None:
    findings = recorded(tmp_path, "inputs", 80).examine(inputs_lost, cuts=RESULT_CUTS, seed=SEED, strict=strict)

    assert not findings.problems, str(findings)
    assert findings.acks > RESULT_CUTS


def test_large_inputs_that_are_not_synced_are_found_to_be_lost(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "inputs", 80, "unsynced").examine(inputs_lost, cuts=50, seed=SEED)

    assert findings.cuts_with_problems > 10


def test_a_backup_and_what_is_restored_from_it_outlive_a_power_failure(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "backups", BACKED_UP).examine(backups_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)


def test_jobs_that_need_not_outlive_a_power_failure_do_not_take_keys_with_them(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "careless", 30).examine(careless_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > CUTS


def test_jobs_and_what_their_ends_owe_outlive_a_power_failure(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "jobs", 160).examine(jobs_lost, cuts=JOB_CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > JOB_CUTS


def test_endpoints_and_keys_outlive_a_power_failure(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "control", 20)

    findings = recording.examine(control_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > CUTS


def test_blobs_outlive_a_power_failure(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "blobs", 20).examine(blobs_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > CUTS
