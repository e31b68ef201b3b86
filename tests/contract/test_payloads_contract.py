"""What every `Payloads` promises."""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.adapters import payloads as adapter
from runyard.adapters.payloads import FolderPayloads
from runyard.adapters.payloads_moved import MovedPayloads
from runyard.adapters.payloads_s3 import is_ref
from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import JobId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Payloads
from tests.payload_kit import DATA, ENDPOINT, JOB, MemoryPayloads, keep, read
from tests.s3_kit import s3_payloads


@pytest.fixture(params=["memory", "folder", "folder, unsynced", "s3", "s3, moved"])
def payloads(request: pytest.FixtureRequest, tmp_path: Path) -> Payloads:
    folder = tmp_path / "data" / "payloads"
    match request.param:
        case "memory":
            return MemoryPayloads()
        case "s3":
            return s3_payloads(request.getfixturevalue("s3"))
        case "s3, moved":
            return MovedPayloads(s3_payloads(request.getfixturevalue("s3")), FolderPayloads(folder), is_ref)
        case _:
            return FolderPayloads(folder, synced=request.param == "folder")


async def test_a_payload_comes_back_as_it_was_written(payloads: Payloads) -> None:
    payload = await keep(payloads, DATA[:1], b"", DATA[1:9999], DATA[9999:])

    assert len(DATA) == payload.size
    assert DATA == await read(payloads, payload)
    assert [(payload.ref, ENDPOINT, JOB)] == await payloads.kept()


async def test_each_is_another_though_the_job_is_the_same(payloads: Payloads) -> None:
    one, other = await keep(payloads, b"1"), await keep(payloads, b"2")

    assert (b"1", b"2") == (await read(payloads, one), await read(payloads, other))
    await payloads.forget([one.ref])
    assert b"2" == await read(payloads, other)


async def test_nobody_sees_it_before_it_is_whole(payloads: Payloads) -> None:
    draft = await payloads.begin(ENDPOINT, JOB)
    await draft.write(DATA)

    assert [] == await payloads.kept()
    await draft.drop()
    await draft.drop()
    assert [] == await payloads.kept()


async def test_dropping_what_is_kept_changes_nothing(payloads: Payloads) -> None:
    draft = await payloads.begin(ENDPOINT, JOB)
    await draft.write(DATA)
    payload = await draft.keep()
    await draft.drop()

    assert DATA == await read(payloads, payload)


async def test_what_is_forgotten_is_gone(payloads: Payloads) -> None:
    payload, other = await keep(payloads, DATA), await keep(payloads, DATA)
    await payloads.forget([payload.ref])
    await payloads.forget([payload.ref])
    await payloads.forget([])

    with pytest.raises(NotFound):
        await payloads.open(payload)
    assert [(other.ref, ENDPOINT, JOB)] == await payloads.kept()


async def test_one_that_is_empty_is_one(payloads: Payloads) -> None:
    payload = await keep(payloads)

    assert (0, b"") == (payload.size, await read(payloads, payload))


async def test_one_that_is_not_as_long_as_it_was_is_not_there(payloads: Payloads) -> None:
    payload = await keep(payloads, DATA)

    with pytest.raises(NotFound):
        await payloads.open(payload._replace(size=payload.size + 1))


# Folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "payloads"


def names(root: Path) -> set[str]:
    return {file.name for file in root.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_folder_is_private_and_cleared_of_what_was_never_whole(root: Path) -> None:
    payloads = FolderPayloads(root)
    payload = await keep(payloads, DATA)
    draft = await payloads.begin(ENDPOINT, JOB)
    await draft.write(DATA)
    again = FolderPayloads(root)

    assert DATA == await read(again, payload)
    assert {payload.ref} == names(root)
    assert (0o700, 0o600) == (mode(root), mode(root / payload.ref))
    await draft.drop()


async def test_what_is_forgotten_can_be_read_on(root: Path) -> None:
    payloads = FolderPayloads(root)
    payload = await keep(payloads, DATA)
    reading = await payloads.open(payload)
    await payloads.forget([payload.ref])

    assert DATA == await reading.read(1 << 20)
    await reading.close()


@pytest.mark.parametrize("fails", ["open", "read"])
async def test_one_that_cannot_be_read_just_now_is_not_said_to_be_gone(
    root: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = FolderPayloads(root)
    payload = await keep(payloads, DATA)

    def broken(*args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(adapter.os, fails, broken)
        with pytest.raises(TooBusy, match=r"cannot be read just now \(Input/output error\); see to the disk"):
            await read(payloads, payload)
    assert DATA == await read(payloads, payload)


async def test_two_who_forget_at_once_are_not_in_each_others_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = FolderPayloads(root)
    one, other = await keep(payloads, b"1"), await keep(payloads, b"2")
    goes_on, unlink = threading.Event(), Path.unlink

    def slowly(file: Path, *, missing_ok: bool = False) -> None:
        if file.name == one.ref:
            goes_on.wait(10)
        unlink(file, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", slowly)
    both = [asyncio.ensure_future(payloads.forget([payload.ref])) for payload in (one, other)]
    await asyncio.sleep(0)
    await payloads.aside(lambda: None)  # On the second thread, behind what the second one does there.
    goes_on.set()
    await asyncio.gather(*both)

    assert set() == names(root)


async def test_after_a_sync_that_failed_a_draft_can_only_be_dropped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = await FolderPayloads(root).begin(ENDPOINT, JOB)
    await draft.write(DATA)
    assert not draft.spoiled

    def fails(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(TooBusy):
        await draft.keep()
    assert draft.spoiled
    await draft.drop()


async def test_a_folder_can_be_emptied_at_the_start(root: Path) -> None:
    await keep(FolderPayloads(root), DATA)

    assert [] == await FolderPayloads(root, emptied=True).kept()


@pytest.mark.parametrize(
    "ref", ["", "x", "../secret", "a,b,../../secret", "a,b,c.part", "s3://bucket/a,b,0123456789abcdef"]
)
async def test_a_ref_leads_nowhere_else(root: Path, ref: str) -> None:
    payloads = FolderPayloads(root)
    (root.parent / "secret").write_bytes(b"s")

    with pytest.raises(NotFound):
        await payloads.open(Spilled(ref, 1))
    with pytest.raises(NotFound):
        await payloads.forget([ref])


async def test_it_is_on_disk_before_it_has_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, unsynced = FolderPayloads(root), FolderPayloads(root, synced=False)
    events: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("sync"), sync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append("name"), replace(a, b))[1])
    await keep(synced, DATA)
    await keep(unsynced, DATA)

    assert ["sync", "name", "sync", "name"] == events


async def written(payloads: Payloads) -> None:
    """As whoever writes one is to do it."""
    draft = await payloads.begin(ENDPOINT, JOB)
    try:
        await draft.write(DATA)
        await draft.keep()
    finally:
        await draft.drop()


@pytest.mark.parametrize("fails", ["pwrite", "fsync", "open"])
async def test_a_full_disk_is_said_to_be_full_and_leaves_nothing(
    root: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = FolderPayloads(root)
    real: Callable[..., int] = getattr(os, fails)

    def full(*args: object) -> int:
        if fails == "open" and args[1] == os.O_RDONLY:
            return real(*args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(adapter.os, fails, full)
    with pytest.raises(TooBusy, match=r"No space left on device\); free disk space"):
        await written(payloads)

    assert set() == names(root)


async def test_a_draft_that_cannot_be_closed_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = await FolderPayloads(root).begin(ENDPOINT, JOB)
    await draft.write(DATA)
    close = os.close

    def fails(file: int) -> None:
        is_draft = Path(f"/proc/self/fd/{file}").readlink().suffix == ".part"
        close(file)
        if is_draft:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(adapter.os, "close", fails)
    with pytest.raises(OSError, match="Input/output error"):
        await draft.drop()

    assert set() == names(root)


async def test_a_write_that_found_no_room_can_be_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = FolderPayloads(root)
    real, calls = os.pwrite, 0

    def full_for_a_while(file: int, data: memoryview, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:1000], at)

    monkeypatch.setattr(adapter.os, "pwrite", full_for_a_while)
    draft = await payloads.begin(ENDPOINT, JOB)
    with pytest.raises(TooBusy):
        await draft.write(DATA)
    await draft.write(DATA)

    assert DATA == await read(payloads, await draft.keep())


async def test_drafts_of_many_jobs_come_in_side_by_side(root: Path) -> None:
    payloads = FolderPayloads(root)
    kept = await asyncio.gather(*(keep(payloads, b"%d" % n, DATA, job_id=JobId(f"{n}")) for n in range(20)))

    assert [b"%d" % n + DATA for n in range(20)] == [await read(payloads, payload) for payload in kept]
