"""Small adapters behind which the control plane is tested: time and names one can predict, blobs in memory."""

import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from runyard.domain.account import KEY_PREFIX, KeyId
from runyard.domain.endpoint import ReleaseId
from runyard.domain.errors import BadRequest, NotFound, TooLarge
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.domain.secret import RegistryId

START = 1_800_000_000.0
"""2027-01-15T08:00:00Z"""


class SetClock:
    """Stands still until a test moves it."""

    def __init__(self, at: float = START) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class SetDisk:
    """As free as a test says; broken while `broken` is set."""

    def __init__(self, free: int = 1 << 40) -> None:
        self.free = free
        self.broken = False

    async def free_bytes(self) -> int:
        if self.broken:
            raise OSError("no such device")
        return self.free


class CountingIds:
    """`endpoint-1`, `release-1`, `endpoint-2`, ..."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def job(self, *, sync: bool) -> JobId:
        return JobId(self._next("sync" if sync else "job"))

    def endpoint(self) -> EndpointId:
        return EndpointId(self._next("endpoint"))

    def release(self) -> ReleaseId:
        return ReleaseId(self._next("release"))

    def worker(self) -> WorkerId:
        return WorkerId(self._next("worker"))

    def key(self) -> KeyId:
        return KeyId(self._next("key"))

    def registry(self) -> RegistryId:
        return RegistryId(self._next("registry"))

    def secret(self) -> str:
        return KEY_PREFIX + self._next("secret")

    def signing_key(self) -> bytes:
        return self._next("signing-key").encode().ljust(32)

    def _next(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}"


class MemoryBlobs:
    """Bytes by digest."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, digest: str, chunks: AsyncIterator[bytes], bytes_max: int) -> None:
        data = b""
        async for chunk in chunks:
            data += chunk
            if len(data) > bytes_max:
                raise TooLarge(f"the bundle is larger than {bytes_max} bytes")
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadRequest(f"the bytes are not those of {digest}")
        self.kept[digest] = data

    async def exists(self, digest: str) -> bool:
        return digest in self.kept

    async def path(self, digest: str) -> Path:
        raise NotFound(f"bundle {digest} is in memory only")

    def keep(self, data: bytes) -> str:
        """Keep it; returns its digest."""
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return digest
