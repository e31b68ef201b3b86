"""A room: the private folder in which one process lives, gone when it ends.

<room>/           root's, so that the tenant cannot change what is noted about it
    work/         the process starts here
    home/  tmp/   HOME, and TMPDIR or /tmp
    stage/        where its view of the disk is built (isolation.py)
    process       who runs here (leftovers.py);  mounts, environ: how it is started
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT_LENGTH_MAX = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """Paths of one room, and whose it is: a uid when the platform isolates, else None."""

    path: Path
    uid: int | None

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def home(self) -> Path:
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        return self.path / "tmp"

    @property
    def stage(self) -> Path:
        return self.path / "stage"


def furnish(room: Room, sources: Path | None = None) -> None:
    """Make the room, its `work` a copy of `sources`. What an earlier tenant of the same name left is removed first."""
    remove(room)
    make_open(room.path)
    room.stage.mkdir()
    for folder in (room.home, room.tmp):
        folder.mkdir()
    if sources is None:
        room.work.mkdir()
    else:
        # A copy, not links: what a worker writes must not reach the next one. Times are kept, so bytecode stays good.
        shutil.copytree(sources, room.work, symlinks=True)
    for folder in (room.work, room.home, room.tmp):
        hand_over(folder, room.uid)


def make_open(folder: Path) -> None:
    """Make a folder that all may pass and read, whatever the platform's umask; who gets there is settled above it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)


def hand_over(folder: Path, uid: int | None) -> None:
    """Give a folder and all that is in it to a user; links are given, not followed."""
    if uid is None:
        return
    for path in _all_in(folder):
        os.chown(path, uid, uid, follow_symlinks=False)


def seal(folder: Path) -> None:
    """Take a folder back from whoever built it: root's from now on, readable for all, writable for none but root."""
    for path in _all_in(folder):
        os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def write_to(room: Room, name: str, data: bytes) -> None:
    """Leave a file for the tenant in its `work`, before it moves in: later, the name may be a link that it has laid."""
    path = room.work / name
    path.write_bytes(data)
    hand_over(path, room.uid)


def read_from(room: Room, name: str) -> str:
    """What a tenant wrote into a file of its `work`. No link is followed and no pipe waited for, as it may lay traps."""
    handle = os.open(room.work / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
        return file.read(TEXT_LENGTH_MAX)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def remove(room: Room) -> None:
    """Delete the room; says in the log what cannot be deleted."""
    if not room.path.exists():
        return
    shutil.rmtree(room.path, ignore_errors=True)
    if room.path.exists():
        # The tenant may have taken its own right to write away.
        for path in _all_in(room.path):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(room.path, ignore_errors=True)
    if room.path.exists():
        log.warning("cannot delete %s; it is tried again at the next start", room.path)


def _all_in(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)
