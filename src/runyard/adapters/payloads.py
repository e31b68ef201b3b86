"""Payloads as files of one folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from runyard.adapters.files import publish, sync, write_all
from runyard.adapters.payload_names import job_in, name_for
from runyard.domain.errors import NotFound, TooBusy
from runyard.domain.job import EndpointId, JobId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Kept

THREADS = 2
"""As many disks are waited for at once; more would not make one faster."""
_PART = ".part"
_T = TypeVar("_T")


class FolderPayloads:
    """One file for each.

    The folder is this object's alone: it is made private (0700), and what was never whole is cleared away. `synced`: what is
    kept survives a power failure; without, it survives the end of any process. `emptied`: nothing of before is wanted.
    """

    def __init__(self, root: Path, *, synced: bool = True, emptied: bool = False) -> None:
        self._root = root
        self._synced = synced
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payloads")
        self._forgetting = asyncio.Lock()
        """Two at once would each look like a backup to the other."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if synced:
            sync(root.parent)  # Its own name is to last as those in it do.
        for file in root.glob("*" if emptied else f"*{_PART}"):
            file.unlink(missing_ok=True)

    async def begin(self, endpoint_id: EndpointId, job_id: JobId) -> FolderDraft:
        ref = name_for(endpoint_id, job_id)
        place = self._root / ref
        draft = self._root / (ref + _PART)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = await self.aside(lambda: _or_busy(lambda: os.open(draft, flags, 0o600)))
        return FolderDraft(self, file, draft, place, synced=self._synced)

    async def open(self, payload: Spilled) -> FileReading:
        return FileReading(self, await self.aside(lambda: _opened(self._place(payload.ref), payload)), payload)

    async def kept(self) -> list[Kept]:
        files = await self.aside(lambda: list(self._root.iterdir()))
        return [Kept(file.name, *job) for file in files if (job := job_in(file.name)) is not None]

    async def forget(self, refs: Sequence[str]) -> None:
        def unlink() -> None:
            with _locked(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB):
                for ref in refs:
                    self._place(ref).unlink(missing_ok=True)

        try:
            async with self._forgetting:
                await self.aside(unlink)
        except BlockingIOError as error:
            raise TooBusy("a backup is being made; they are removed after it") from error

    async def aside(self, work: Callable[[], _T]) -> _T:
        """Do what may wait for the disk on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _place(self, ref: str) -> Path:
        if job_in(ref) is None:
            raise NotFound(
                f"a payload lies at {ref}, which is not in the data directory: set payloads to where that is, to read it"
            )
        return self._root / ref


class FolderDraft:
    """A file that is being written."""

    def __init__(self, folder: FolderPayloads, file: int, draft: Path, place: Path, *, synced: bool) -> None:
        self._folder = folder
        self._file = file
        self._draft = draft
        self._place = place
        self._synced = synced
        self._size = 0
        self._open = True
        self.spoiled = False

    async def write(self, piece: bytes) -> None:
        await self._folder.aside(lambda: _or_busy(lambda: write_all(self._file, piece, self._size)))
        self._size += len(piece)

    async def keep(self) -> Spilled:
        try:
            await self._folder.aside(lambda: _or_busy(self._publish))
        except TooBusy:
            self.spoiled = True  # What a failed sync should have written may be lost, though the next one succeeds.
            raise
        return Spilled(self._place.name, self._size)

    async def drop(self) -> None:
        if self._open:
            await self._folder.aside(self._discard)

    def _publish(self) -> None:
        if self._synced:
            publish(self._file, self._draft, self._place)
        else:
            self._draft.replace(self._place)
        self._close()

    def _discard(self) -> None:
        try:
            self._close()
        finally:
            self._draft.unlink(missing_ok=True)

    def _close(self) -> None:
        self._open = False
        os.close(self._file)


class FileReading:
    """A file that is being read. Open, it stays even when its name is gone."""

    def __init__(self, folder: FolderPayloads, file: int, payload: Spilled) -> None:
        self._folder = folder
        self._file = file
        self._payload = payload
        self._left = payload.size

    async def read(self, size: int) -> bytes:
        try:
            data = await self._folder.aside(lambda: os.read(self._file, min(size, self._left)))
        except OSError as error:
            raise _unreadable(self._payload, error) from error
        self._left -= len(data)
        return data

    async def close(self) -> None:
        await self._folder.aside(lambda: os.close(self._file))


@contextmanager
def nothing_forgotten(root: Path) -> Generator[None]:
    """For as long as this is open, by whatever process: what is kept in this folder stays. It waits for who is removing."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(root: Path, how: int) -> Generator[None]:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, how)
        yield
    finally:
        os.close(folder)


def _opened(place: Path, payload: Spilled) -> int:
    try:
        file = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(_missing(payload)) from error
    except OSError as error:
        raise _unreadable(payload, error) from error
    if os.fstat(file).st_size != payload.size:
        os.close(file)
        raise NotFound(_missing(payload))
    return file


def _missing(payload: Spilled) -> str:
    return (
        f"a payload of {payload.size} bytes, payloads/{payload.ref}, is not in the data directory any more; if that was "
        "restored from a copy, restore its folder payloads as well"
    )


def _unreadable(payload: Spilled, error: OSError) -> TooBusy:
    return TooBusy(
        f"a payload of {payload.size} bytes, payloads/{payload.ref}, cannot be read just now ({error.strerror}); see to the "
        "disk of the data directory, then try again"
    )


def _or_busy(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except OSError as error:
        raise TooBusy(f"the payload cannot be written ({error.strerror}); free disk space, then try again") from error
