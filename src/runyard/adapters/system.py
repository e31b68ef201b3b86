"""The real clock and real chance."""

from __future__ import annotations

import asyncio
import os
import secrets
import time

from runyard.domain.account import KEY_PREFIX, KeyId
from runyard.domain.endpoint import ReleaseId
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.domain.webhook import SECRET_BYTES

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class SystemClock:
    """Unix time as the system has it."""

    now = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class LoopClock:
    """The event loop's clock, shifted to `start` Unix seconds: tests that move the loop's time move this one with it."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._start = start

    def now(self) -> float:
        return self._start + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RandomIds:
    """Names from the operating system's randomness, which is asked for in large pieces: it is a system call each time."""

    def __init__(self) -> None:
        self._uuids: list[str] = []

    def job(self, *, sync: bool) -> JobId:
        if not self._uuids:
            self._uuids = _uuids(256)
        name = self._uuids.pop()
        return JobId(f"sync-{name}-u1" if sync else f"{name}-u1")

    def endpoint(self) -> EndpointId:
        return EndpointId(_word(14))

    def release(self) -> ReleaseId:
        return ReleaseId(_word(14))

    def worker(self) -> WorkerId:
        return WorkerId(_word(14))

    def key(self) -> KeyId:
        return KeyId(_word(14))

    def secret(self) -> str:
        return KEY_PREFIX + secrets.token_urlsafe(32)

    def signing_key(self) -> bytes:
        return os.urandom(SECRET_BYTES)


def _uuids(count: int) -> list[str]:
    """Random UUIDs, in their form if not their every bit."""
    pool = os.urandom(16 * count).hex()
    raws = (pool[at : at + 32] for at in range(0, len(pool), 32))
    return [f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}" for raw in raws]


def _word(length: int) -> str:
    """Starts with a letter, so that it is never taken for a number or an option."""
    return secrets.choice(_ALPHABET[:26]) + "".join(secrets.choice(_ALPHABET) for _ in range(length - 1))
