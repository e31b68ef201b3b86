"""The real clock and real chance."""

from __future__ import annotations

import asyncio
import os
import secrets
import time

from runyard.domain.account import KEY_PREFIX, KeyId
from runyard.domain.endpoint import ReleaseId
from runyard.domain.job import EndpointId, JobId, WorkerId

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
        self._pool = ""
        self._at = 0

    def job(self, *, sync: bool) -> JobId:
        if self._at == len(self._pool):
            self._pool, self._at = os.urandom(4096).hex(), 0
        raw = self._pool[self._at : self._at + 32]
        self._at += 32
        name = f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}-u1"  # The form of a random UUID.
        return JobId(f"sync-{name}" if sync else name)

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


def _word(length: int) -> str:
    """Starts with a letter, so that it is never taken for a number or an option."""
    return secrets.choice(_ALPHABET[:26]) + "".join(secrets.choice(_ALPHABET) for _ in range(length - 1))
