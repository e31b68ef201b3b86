"""What tests of runtimes share: an observer that can be waited on, bundles, and packages made on the spot."""

import asyncio
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from runyard.adapters.blobs import FolderBlobs
from runyard.domain.endpoint import RunSpec
from runyard.domain.job import WorkerId
from runyard.domain.worker import Exit

WAIT_SECONDS_MAX = 30.0


class Listener:
    """A `RuntimeObserver` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[WorkerId, str]] = []
        self.exits: list[tuple[WorkerId, Exit]] = []
        self.story: list[str] = []
        self._changed = asyncio.Event()

    def worker_exited(self, worker_id: WorkerId, exit: Exit) -> None:
        self.exits.append((worker_id, exit))
        self._tell(f"{worker_id} ended: {exit}")

    def worker_said(self, worker_id: WorkerId, line: str) -> None:
        self.lines.append((worker_id, line))
        self._tell(f"{worker_id}: {line}")

    def said_by(self, worker_id: str) -> list[str]:
        return [line for speaker, line in self.lines if speaker == worker_id]

    async def said(self, worker_id: str, line: str) -> None:
        """Wait until a worker has said a line."""
        await self._until(lambda: line in self.said_by(worker_id))

    async def exited(self, worker_id: str) -> Exit:
        """Wait for a worker's end."""
        await self._until(lambda: any(ended == worker_id for ended, _ in self.exits))
        return next(exit for ended, exit in self.exits if ended == worker_id)

    def _tell(self, what: str) -> None:
        self.story.append(what)
        self._changed.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError("waited in vain; so far:\n" + "\n".join(self.story)) from None


def pack(files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A bundle: the same files give the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w|") as tar:
        for name, content in sorted(files.items()):
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return packed.getvalue()


async def upload(blobs: FolderBlobs, data: bytes) -> str:
    """Put a bundle; returns its digest."""
    digest = hashlib.sha256(data).hexdigest()
    await blobs.put(digest, chunked(data), bytes_max=1 << 30)
    return digest


async def chunked(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def a_run(
    blobs: FolderBlobs, files: Mapping[str, str | bytes], *, handler: str = "handler.py", lock: str | None = ""
) -> RunSpec:
    """A bundle that is uploaded. Its environment is empty unless `lock` is None, so that it needs no network."""
    return RunSpec(bundle=await upload(blobs, pack(files)), handler=handler, lock=lock)


def a_wheel(folder: Path, name: str, version: str, files: Mapping[str, str], requires: tuple[str, ...] = ()) -> Path:
    """A wheel with these files, in `folder`."""
    info = f"{name}-{version}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        *(f"Requires-Dist: {r}\n" for r in requires),
    ]
    whole = {
        **files,
        f"{info}/METADATA": "".join(metadata),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*whole, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**whole, f"{info}/RECORD": record}.items():
            archive.writestr(path, content)
    return wheel
