"""Blobs as files of one folder, each named by its SHA-256."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from runyard.adapters.files import publish, write_all
from runyard.domain.errors import BadRequest, NotFound, TooBusy, TooLarge

WRITE_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class FolderBlobs:
    """A blob is there whole, synced to disk and verified, or not at all. Putting it again changes nothing.

    The folder is this object's alone: it is made private (0700), and what an interrupted `put` left is cleared away.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in root.glob("*.part"):
            part.unlink(missing_ok=True)

    async def put(self, digest: str, chunks: AsyncIterator[bytes], bytes_max: int) -> None:
        target = self._place(digest)
        handle, name = tempfile.mkstemp(suffix=".part", dir=self._root)
        part = Path(name)
        try:
            await _receive(digest, chunks, bytes_max, handle)
            await asyncio.to_thread(publish, handle, part, target)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TooBusy(f"the disk has no room for bundle {digest}; free disk space, then try again") from error
        finally:
            os.close(handle)
            await asyncio.to_thread(part.unlink, missing_ok=True)

    async def exists(self, digest: str) -> bool:
        return self._place(digest).exists()

    async def path(self, digest: str) -> Path:
        place = self._place(digest)
        if not place.exists():
            raise NotFound(f"there is no bundle {digest}; upload it first")
        return place

    def _place(self, digest: str) -> Path:
        if not _DIGEST.match(digest):
            raise BadRequest(f"{digest!r} is not a SHA-256 in lower-case hex")
        return self._root / digest


async def _receive(digest: str, chunks: AsyncIterator[bytes], bytes_max: int, file: int) -> None:
    """Write the chunks through to disk, hashing on the way; in a thread, a megabyte at a time."""
    seen, size, waiting = hashlib.sha256(), 0, bytearray()

    def write() -> None:
        seen.update(waiting)
        write_all(file, bytes(waiting), size - len(waiting))
        waiting.clear()

    async for chunk in chunks:
        size += len(chunk)
        if size > bytes_max:
            raise TooLarge(f"bundle {digest} is larger than the limit of {bytes_max} bytes")
        waiting += chunk
        if len(waiting) >= WRITE_BYTES:
            await asyncio.to_thread(write)
    await asyncio.to_thread(write)
    if seen.hexdigest() != digest:
        raise BadRequest(f"the body's SHA-256 is {seen.hexdigest()}, not {digest}; upload it again")
