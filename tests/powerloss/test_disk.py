"""What the model of a disk lets a power failure take, and what not."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.powerloss.disk import SECTOR_BYTES, Disk, Survival
from tests.powerloss.log import Kind, Record

ROOT, FILE, OTHER, FOLDER = 1, 2, 3, 4
SAMPLES = 300

Contents = dict[str, bytes]


class Told:
    """A disk that is told of operations, and all that a power failure then leaves in many tries."""

    def __init__(self, scratch: Path, *, strict: bool = False) -> None:
        self._disk = Disk(ROOT, strict=strict)
        self._scratch = scratch
        self._number = 0

    def create(self, inode: int, name: str, folder: int = ROOT, kind: int = stat.S_IFREG | 0o644) -> None:
        self._tell(Kind.CREATE, inode, kind, folder, name.encode())

    def write(self, inode: int, data: bytes, offset: int = 0) -> None:
        self._tell(Kind.WRITE, inode, offset, 0, data)

    def truncate(self, inode: int, size: int) -> None:
        self._tell(Kind.TRUNCATE, inode, size)

    def sync(self, *inodes: int, error: int = 0) -> None:
        for inode in inodes:
            self.begin_sync(inode)
            self.end_sync(inode, error=error)

    def begin_sync(self, inode: int) -> None:
        self._tell(Kind.SYNC_BEGIN, inode, 0, inode)

    def end_sync(self, inode: int, *, error: int = 0) -> None:
        self._tell(Kind.SYNC_END, inode, error, inode)

    def rename(self, inode: int, old: str, new: str, old_folder: int = ROOT, new_folder: int = ROOT) -> None:
        self._tell(Kind.RENAME, inode, new_folder, old_folder, f"{old}/{new}".encode())

    def unlink(self, inode: int, name: str) -> None:
        self._tell(Kind.UNLINK, inode, 0, ROOT, name.encode())

    def left(self) -> list[Contents]:
        """What may be there, each once."""
        found: list[Contents] = []
        for seed in range(SAMPLES):
            contents = dict(self._rebuild(Survival(Random(seed))))
            if contents not in found:
                found.append(contents)
        return found

    def _rebuild(self, survival: Survival) -> Iterator[tuple[str, bytes]]:
        folder = self._scratch / "disk"
        self._disk.rebuild(folder, survival)
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_bytes()
        shutil.rmtree(folder)

    def _tell(self, kind: Kind, inode: int, offset: int = 0, other: int = 0, payload: bytes = b"") -> None:
        self._disk.tell(self._number, Record(kind, inode, offset, other, payload))
        self._number += 1


@pytest.fixture
def disk(tmp_path: Path) -> Told:
    return Told(tmp_path)


def with_file(disk: Told, data: bytes) -> Told:
    disk.create(FILE, "file")
    disk.write(FILE, data)
    disk.sync(FILE, ROOT)
    return disk


def whole(*letters: str) -> bytes:
    return b"".join(letter.encode() * SECTOR_BYTES for letter in letters)


def test_what_was_synced_is_there(disk: Told) -> None:
    assert [{"file": b"old"}] == with_file(disk, b"old").left()


def test_an_unsynced_write_is_there_or_not(disk: Told) -> None:
    with_file(disk, b"old").write(FILE, b"new")

    assert {b"old", b"new"} == {left["file"] for left in disk.left()}


def test_an_unsynced_write_is_torn_at_sectors_in_any_way(disk: Told) -> None:
    with_file(disk, whole("a", "b", "c")).write(FILE, whole("x", "y", "z"))

    assert {a + b + c for a in "ax" for b in "by" for c in "cz"} == {
        left["file"][::SECTOR_BYTES].decode() for left in disk.left()
    }
    assert all(len(set(left["file"][:SECTOR_BYTES])) == 1 for left in disk.left())


def test_writes_reach_the_disk_in_any_order(disk: Told) -> None:
    with_file(disk, whole("a", "b")).write(FILE, whole("x"))
    disk.write(FILE, whole("y"), SECTOR_BYTES)

    assert {whole(*pair) for pair in ("ab", "xb", "ay", "xy")} == {left["file"] for left in disk.left()}


def test_a_write_keeps_what_was_synced_in_its_sector(disk: Told) -> None:
    with_file(disk, b"kept").write(FILE, b"new", 4)

    assert {b"kept", b"keptnew"} <= {left["file"] for left in disk.left()}
    assert all(left["file"].startswith(b"kept") for left in disk.left())


def test_a_file_that_grew_may_hold_zeros(disk: Told) -> None:
    with_file(disk, b"").write(FILE, whole("x", "y"))

    assert {b"", whole("x", "\0"), whole("\0", "y"), whole("x", "y")} <= {left["file"] for left in disk.left()}


def test_a_write_during_a_sync_may_have_missed_it(disk: Told) -> None:
    with_file(disk, b"old")
    disk.begin_sync(FILE)
    disk.write(FILE, b"new")
    disk.end_sync(FILE)

    assert {b"old", b"new"} == {left["file"] for left in disk.left()}


def test_a_sync_that_only_began_promises_nothing(disk: Told) -> None:
    with_file(disk, b"old").write(FILE, b"new")
    disk.begin_sync(FILE)

    assert {b"old", b"new"} == {left["file"] for left in disk.left()}


def test_a_sync_of_another_file_promises_nothing(disk: Told) -> None:
    with_file(disk, b"old").write(FILE, b"new")
    disk.create(OTHER, "other")
    disk.sync(OTHER, ROOT)

    assert {b"old", b"new"} == {left["file"] for left in disk.left()}


def test_a_sync_that_succeeds_after_one_that_failed_promises_nothing(disk: Told) -> None:
    with_file(disk, b"old").write(FILE, b"new")
    disk.sync(FILE, error=5)
    disk.sync(FILE)

    assert {b"old", b"new"} == {left["file"] for left in disk.left()}


def test_what_is_written_again_after_a_failed_sync_counts_again(disk: Told) -> None:
    with_file(disk, b"old").write(FILE, b"new")
    disk.sync(FILE, error=5)
    disk.write(FILE, b"new")
    disk.sync(FILE)

    assert [{"file": b"new"}] == disk.left()


def test_a_truncation_takes_all_or_nothing(disk: Told) -> None:
    with_file(disk, whole("a", "b")).truncate(FILE, 0)
    disk.write(FILE, whole("x"))

    assert {whole("a", "b"), b"", whole("x"), whole("\0")} == {left["file"] for left in disk.left()}


def test_what_a_truncation_took_does_not_come_back_when_the_file_grows(disk: Told) -> None:
    with_file(disk, b"secret").truncate(FILE, 1)
    disk.truncate(FILE, 6)
    disk.sync(FILE)

    assert [{"file": b"s" + bytes(5)}] == disk.left()


def test_a_new_file_may_be_missing(disk: Told) -> None:
    disk.create(FILE, "file")

    assert [{}, {"file": b""}] == sorted(disk.left(), key=len)


def test_a_new_file_is_kept_by_its_own_sync_and_its_folders_with_it(disk: Told) -> None:
    disk.create(FOLDER, "folder", kind=stat.S_IFDIR | 0o755)
    disk.create(FILE, "file", FOLDER)
    disk.sync(FILE)

    assert [{"folder/file": b""}] == disk.left()


def test_a_strict_disk_keeps_a_new_file_by_its_directory_only(tmp_path: Path) -> None:
    disk = Told(tmp_path, strict=True)
    disk.create(FILE, "file")
    disk.sync(FILE)
    before = disk.left()
    disk.sync(ROOT)

    assert ([{}, {"file": b""}], [{"file": b""}]) == (sorted(before, key=len), disk.left())


def test_a_rename_has_happened_or_not_until_its_directory_is_synced(disk: Told) -> None:
    with_file(disk, b"old")
    disk.create(OTHER, "new")
    disk.write(OTHER, b"new")
    disk.sync(OTHER)
    disk.rename(OTHER, "new", "file")
    before = disk.left()
    disk.sync(ROOT)

    assert [{"file": b"new"}, {"file": b"old", "new": b"new"}] == sorted(before, key=len)
    assert [{"file": b"new"}] == disk.left()


def test_a_rename_to_another_directory_is_kept_by_that_one(disk: Told) -> None:
    with_file(disk, b"data").create(FOLDER, "folder", kind=stat.S_IFDIR | 0o755)
    disk.sync(FOLDER, ROOT)
    disk.rename(FILE, "file", "moved", new_folder=FOLDER)
    disk.sync(ROOT)
    before = disk.left()
    disk.sync(FOLDER)

    assert [{"file": b"data"}, {"folder/moved": b"data"}] == sorted(before, key=str)
    assert [{"folder/moved": b"data"}] == disk.left()


def test_a_file_that_was_unlinked_may_come_back(disk: Told) -> None:
    with_file(disk, b"data").unlink(FILE, "file")
    before = disk.left()
    disk.sync(ROOT)

    assert ([{}, {"file": b"data"}], [{}]) == (sorted(before, key=len), disk.left())


def test_a_number_that_is_used_again_is_another_file(disk: Told) -> None:
    with_file(disk, b"old").unlink(FILE, "file")
    disk.create(FILE, "next")
    disk.write(FILE, b"new")
    disk.sync(FILE)

    assert [{"next": b"new"}, {"file": b"old", "next": b"new"}] == sorted(disk.left(), key=len)
