"""What the platform's stores have acknowledged is there after a power failure, whenever it comes."""

import asyncio
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.stores.control import SqliteControl
from tests.powerloss.recording import Cut, Recording
from tests.powerloss.rig import record

pytestmark = pytest.mark.usefixtures("shim")

CUTS = 200
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


def test_endpoints_and_keys_outlive_a_power_failure(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "control", 20)

    findings = recording.examine(control_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > CUTS


def test_blobs_outlive_a_power_failure(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "blobs", 20).examine(blobs_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > CUTS
