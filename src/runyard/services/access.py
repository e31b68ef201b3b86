"""Who may call. Keys are 256-bit random and kept as SHA-256, so a caller is found by one look-up (decision 16)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from runyard.domain.account import ApiKey, digest_of
from runyard.domain.endpoint import check_name
from runyard.domain.errors import NotFound, Unauthorized
from runyard.ports.stores import ControlStore
from runyard.ports.system import Clock, Ids

ADMIN_KEY_NAME = "admin"


class Access:
    """All live keys in memory; `load` them before the first caller comes."""

    def __init__(self, control: ControlStore, clock: Clock, ids: Ids) -> None:
        self._control = control
        self._clock = clock
        self._ids = ids
        self._live: dict[bytes, ApiKey] = {}
        self.version = 0
        """Changes whenever a key ends: what was proven before counts no more."""

    async def load(self) -> None:
        self._live = {key.digest: key for key in await self._control.keys() if key.revoked_at is None}

    def authenticate(self, header: str | bytes | None) -> ApiKey:
        """The key in an `Authorization` header: bare, or after `Bearer` in any case (contract A.1).

        Raises `Unauthorized`, which does not say what the header held.
        """
        if not header:
            raise Unauthorized("no API key: send the header Authorization: Bearer <key>")
        text = header if isinstance(header, str) else header.decode("latin-1")
        secret = text[7:] if text[:7].lower() == "bearer " else text
        key = self._live.get(digest_of(secret.strip())) if secret.isascii() else None
        if key is None:
            raise Unauthorized("this API key is unknown or revoked")
        return key

    async def create(self, name: str) -> tuple[ApiKey, str]:
        """A new key and its secret, which nobody can ask for again."""
        check_name(name)
        secret = self._ids.secret()
        return await self._add(name, secret), secret

    def list(self) -> list[ApiKey]:
        """The live keys, oldest first."""
        return sorted(self._live.values(), key=lambda key: (key.created_at, key.id))

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key: from now on it opens nothing. Raises `NotFound`."""
        key = next((key for key in self._live.values() if key.id == key_id), None)
        if key is None:
            raise NotFound(f"there is no live API key {key_id!r}: see `runyard keys list`")
        now = self._clock.now()
        self._live.pop(key.digest, None)
        self.version += 1
        await self._control.revoke_key(key.id, now)
        return replace(key, revoked_at=now)

    async def ensure_admin_key(self, write: Callable[[str], None]) -> bool:
        """Where no live key exists, make one and have it written for the operator; True if that was so.

        It is written before the key is stored: if the platform dies in between, the next start finds no key and begins
        again. A file that someone took away stays away as long as a key lives.
        """
        if self._live:
            return False
        secret = self._ids.secret()
        await asyncio.to_thread(write, secret)
        await self._add(ADMIN_KEY_NAME, secret)
        return True

    async def _add(self, name: str, secret: str) -> ApiKey:
        key = ApiKey(id=self._ids.key(), name=name, digest=digest_of(secret), created_at=self._clock.now())
        await self._control.add_key(key)
        self._live[key.digest] = key
        return key
