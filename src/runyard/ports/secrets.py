"""Where secrets are kept, and who can open them: two things, so that neither is enough to read one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from runyard.domain.secret import Credential, FormerSecret, Registry, RegistryId, Secret

Reseal = Callable[[bytes], bytes]
"""Takes what is sealed, and gives the same sealed with the newest key. Raises `SecretUnreadable`."""

Credentials = Callable[[str], Awaitable[Credential]]
"""The registry credential of an id. Raises `NotFound`, or `SecretUnreadable`."""


class SecretStore(Protocol):
    """Secrets and credentials of registries, sealed. Every method is atomic; what a call has returned is durable."""

    async def secrets(self) -> list[Secret]:
        """By name."""
        ...

    async def set_secret(self, name: str, sealed: bytes, now: float, *, keep_former: bool) -> Secret:
        """Keep a secret, new or with a new value; the value before becomes a former one if that is to be kept."""
        ...

    async def delete_secret(self, name: str, now: float, *, keep_former: bool) -> bool:
        """As `set_secret` for its last value; False when there is no such secret."""
        ...

    async def former_secrets(self) -> list[FormerSecret]:
        """The first replaced first."""
        ...

    async def forget_former(self, ids: Collection[int]) -> None: ...

    async def registries(self) -> list[Registry]:
        """Oldest first."""
        ...

    async def add_registry(self, registry: Registry) -> None:
        """Raises `Conflict` when the name or the id is taken."""
        ...

    async def delete_registry(self, registry_id: RegistryId) -> bool:
        """False when there is no such credential."""
        ...

    async def reseal(self, again: Reseal) -> None:
        """Replace all that is sealed, of secrets, former ones and registries, by what `again` makes of it: all of it, or
        nothing when that raises. It is called from another thread.
        """
        ...

    async def close(self) -> None:
        """Nothing is asked of it after this."""
        ...


class Vault(Protocol):
    """Seals, and opens what was sealed. It has no key until it seals for the first time; then it keeps them."""

    @property
    def turn(self) -> asyncio.Lock:
        """Held by who seals until that is stored, and by who rotates keys: what is stored late would have lost its key."""
        ...

    async def seal(self, value: str) -> bytes:
        """With the newest key. Raises `SecretUnreadable` when the keys cannot be read, `TooBusy` when a new one cannot be
        written.
        """
        ...

    async def open(self, sealed: bytes) -> str:
        """Raises `SecretUnreadable`, which says what is the matter with the keys and not what they should have opened."""
        ...

    async def key_count(self) -> int:
        """More than one: a rotation is not finished. Raises `SecretUnreadable`."""
        ...

    async def add_key(self) -> Reseal:
        """From now on a new key seals; those before it still open what they have sealed. Raises as `seal`."""
        ...

    async def resealer(self) -> Reseal:
        """For the keys that there are. Raises `SecretUnreadable`."""
        ...

    async def drop_old_keys(self) -> None:
        """Forget all keys but the newest. Raises as `seal`."""
        ...
