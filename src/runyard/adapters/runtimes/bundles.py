"""Source bundles, unpacked once for each digest and shared from then on, read-only by custom: workers get copies."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import IO

from runyard.adapters.locks import KeyedLocks
from runyard.domain.errors import BuildFailed
from runyard.ports.stores import Blobs

UNPACKED_BYTES_MAX = 4 << 30
"""All that comes out of the compression, headers included. A model of some size fits; a bomb does not."""
FILES_MAX = 50_000
CANDIDATES_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """An unpacked bundle, and the file in it to run."""

    digest: str
    path: Path
    handler: str


class Bundles:
    """Bundles of `blobs` under `root`. A folder is there whole or not at all."""

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._root = root
        self._blobs = blobs
        self._locks = KeyedLocks()

    async def unpack(self, digest: str, handler: str) -> Sources:
        """Raises `BuildFailed` when the bundle cannot be read or has no such handler, `NotFound` without a bundle."""
        sources = self.find(digest, handler)
        async with self._locks.held(digest):
            if not sources.path.exists():
                await asyncio.to_thread(_unpack, await self._blobs.path(digest), sources.path)
        await asyncio.to_thread(_check_handler, sources)
        return sources

    def find(self, digest: str, handler: str) -> Sources:
        """Where the bundle is, once it is unpacked."""
        return Sources(digest=digest, path=self._root / digest, handler=handler)


class _Limited(RawIOBase):
    """Refuses to read on after so many bytes."""

    def __init__(self, source: gzip.GzipFile, limit: int) -> None:
        self._source = source
        self._left = limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BuildFailed(f"the bundle is larger than {UNPACKED_BYTES_MAX} bytes when unpacked")
        return data


def _unpack(archive: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        with opened(archive, target.name) as members:
            for member, content in members:
                _extract(member, content, place / member.name)
            place.chmod(0o755)
            place.rename(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def opened(archive: Path, digest: str) -> Generator[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]]:
    """The files and folders of a bundle, one after the other: a file's contents can be read until the next one is asked
    for. Raises `BuildFailed`, also for what goes wrong with what is read.
    """
    try:
        with gzip.open(archive) as source, tarfile.open(fileobj=_Limited(source, UNPACKED_BYTES_MAX), mode="r|") as tar:
            yield _members(tar)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, OSError, ValueError) as error:
        raise BuildFailed(f"bundle {digest} cannot be unpacked: {error}; deploy it again") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    for number, member in enumerate(tar, 1):
        _check_member(member, number)
        yield member, tar.extractfile(member)


def _check_member(member: tarfile.TarInfo, number: int) -> None:
    """Files and folders inside the bundle, so many of them.

    Stricter than tarfile's `data` filter, which Debian 12's Python lacks, and which Pythons before mid-2025 let links
    lead around. Without links there is nothing to lead.
    """
    if number > FILES_MAX:
        raise BuildFailed(f"the bundle has more than {FILES_MAX} files")
    if not (member.isreg() or member.isdir()):
        raise BuildFailed(f"the bundle has {member.name!r}, which is neither file nor folder; pack what it points to")
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise BuildFailed(f"the bundle has {member.name!r}, which is outside of it; names must be relative and plain")


def _extract(member: tarfile.TarInfo, content: IO[bytes] | None, path: Path) -> None:
    """Contents, times, and whether it can be executed; whose it was stays behind."""
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (member.mtime, member.mtime))


def _check_handler(sources: Sources) -> None:
    name = PurePosixPath(sources.handler)
    if not name.is_absolute() and ".." not in name.parts and (sources.path / name).is_file():
        return
    found = sorted(path.relative_to(sources.path).as_posix() for path in sources.path.rglob("*.py"))
    candidates = ", ".join(sorted(found, key=_unlikely)[:CANDIDATES_MAX]) or "no Python file at all"
    raise BuildFailed(
        f"the bundle has no handler file {sources.handler!r}; it has {candidates}; name one with --handler"
    )


def _unlikely(path: str) -> tuple[bool, int, str]:
    """Sorts what is called a handler and lies near the root before the rest."""
    return "handler" not in PurePosixPath(path).name, path.count("/"), path
