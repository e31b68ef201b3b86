"""What the data directory's disk says of itself."""

import asyncio
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from runyard.adapters.disk import DataDisk, lacks
from runyard.adapters.stores.sqlite import open_database

MIB = 1 << 20


async def test_what_the_file_system_has_left_is_free(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    free = await DataDisk(tmp_path, tmp_path / "control.db").free_bytes()

    assert abs(free - room.f_bavail * room.f_frsize) < 512 * MIB, "others write, too"


async def test_what_jobs_have_left_in_the_database_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database file does not shrink: else a disk that the platform has filled would stay full for ever."""
    path = tmp_path / "control.db"
    stands_still = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: stands_still)
    with closing(open_database(path)) as database:
        disk = DataDisk(tmp_path, path)
        before = await disk.free_bytes()
        await asyncio.to_thread(database.execute, "insert into journal values (1, 1, zeroblob(10000000))")
        full = await disk.free_bytes()
        await asyncio.to_thread(database.execute, "delete from journal")
        after = await disk.free_bytes()

    assert full == before
    assert 9 * MIB < after - before < 11 * MIB


async def test_a_database_that_is_not_there_or_none_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_text("no database" * 1000)

    assert await DataDisk(tmp_path, tmp_path / "control.db").free_bytes() > 0
    assert await DataDisk(tmp_path, tmp_path / "nowhere.db").free_bytes() > 0
    assert not (tmp_path / "nowhere.db").exists()


async def test_a_folder_that_is_gone_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await DataDisk(tmp_path / "gone", tmp_path / "control.db").free_bytes()


def test_a_folder_lacks_what_is_missing_to_the_reserve(tmp_path: Path) -> None:
    room = shutil.disk_usage(tmp_path).free
    assert 0 == lacks(tmp_path, 1)
    assert lacks(tmp_path, 10 * room) > 8 * room
    assert 0 == lacks(tmp_path / "on another machine", 10 * room)
