"""The real clock and real chance."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import time
from collections.abc import Callable

from runyard.domain.account import KEY_PREFIX, KeyId
from runyard.domain.endpoint import ReleaseId
from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.domain.secret import RegistryId
from runyard.domain.webhook import SECRET_BYTES

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def within_hard_limit(kind: int, wanted: int) -> int:
    """So much of a resource (`resource.RLIMIT_...`), or as much as this process may have."""
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


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
    """Names from the operating system's randomness, which is asked for in large pieces: it is a system call each time.

    Those of jobs begin with the time, so that jobs of one time lie together wherever they are found by name: an index that
    is written to in a thousand places at once costs a store more than its jobs.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._chances: list[str] = []

    def job(self, *, sync: bool) -> JobId:
        if not self._chances:
            self._chances = _chances(256)
        at = int(self._now() * 1000)
        name = f"{at >> 16:08x}-{at & 0xFFFF:04x}-{self._chances.pop()}-u1"
        return JobId(f"sync-{name}" if sync else name)

    def endpoint(self) -> EndpointId:
        return EndpointId(_word(14))

    def release(self) -> ReleaseId:
        return ReleaseId(_word(14))

    def worker(self) -> WorkerId:
        return WorkerId(_word(14))

    def key(self) -> KeyId:
        return KeyId(_word(14))

    def registry(self) -> RegistryId:
        return RegistryId(_word(14))

    def secret(self) -> str:
        return KEY_PREFIX + secrets.token_urlsafe(32)

    def signing_key(self) -> bytes:
        return os.urandom(SECRET_BYTES)


def _chances(count: int) -> list[str]:
    """What is random of UUIDs of version 7."""
    pool = os.urandom(10 * count).hex()
    raws = (pool[at : at + 20] for at in range(0, len(pool), 20))
    return [f"7{raw[:3]}-a{raw[4:7]}-{raw[7:19]}" for raw in raws]


def _word(length: int) -> str:
    """Starts with a letter, so that it is never taken for a number or an option."""
    return secrets.choice(_ALPHABET[:26]) + "".join(secrets.choice(_ALPHABET) for _ in range(length - 1))
