"""What the platform's stores have acknowledged is there after a power failure, whenever it comes."""

import asyncio
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.domain.job import JobState
from runyard.ports.stores import JobQuery
from runyard.ports.webhooks import DeliveryQuery
from tests.builders import ENDPOINT, START
from tests.powerloss.recording import Cut, Recording
from tests.powerloss.rig import record
from tests.powerloss.stores import rendered

pytestmark = pytest.mark.usefixtures("shim")

CUTS = 200
JOB_CUTS = 1_000
SEED = 3


def recorded(tmp_path: Path, program: str, count: int) -> Recording:
    folder = tmp_path / "data"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.powerloss.stores", program, str(folder), str(count)]
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
    store = EmbeddedJobs(path, now=START, render=rendered)
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
