"""Time, names, room and wake-ups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runyard.domain.account import KeyId
from runyard.domain.endpoint import ReleaseId
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.domain.secret import RegistryId


class Clock(Protocol):
    """Wall time, and waiting for it."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    """Fresh names and secrets. All are URL-safe and one path segment long."""

    def job(self, *, sync: bool) -> JobId:
        """A UUID; `sync-` stands before it for `runsync` (contract A.1)."""
        ...

    def endpoint(self) -> EndpointId: ...

    def release(self) -> ReleaseId: ...

    def worker(self) -> WorkerId: ...

    def key(self) -> KeyId: ...

    def registry(self) -> RegistryId: ...

    def secret(self) -> str:
        """256 random bits as text."""
        ...

    def signing_key(self) -> bytes:
        """256 random bits, to sign webhooks with."""
        ...


class Disk(Protocol):
    """Where the data directory is."""

    async def free_bytes(self) -> int:
        """Bytes that can still be written there, without what nobody but root may use. Raises `OSError`."""
        ...


Wake = Callable[[], None]


class Signals(Protocol):
    """Wake-ups between parts of the platform. Losing one costs latency, never correctness: re-read and re-check."""

    def subscribe(self, topic: str, wake: Wake) -> Callable[[], None]:
        """Call `wake` on each `fire(topic)` until the returned function is called. `wake` must be quick."""
        ...

    def fire(self, topic: str) -> None: ...
