"""The keys that open secrets: in a file beside the database, and in memory.

The file has a key on each line; what begins with # is a comment. The first key seals, each of them opens. It is read
whenever it is needed, so that a key which is brought along counts at once, and it is written whole or not at all. What is
sealed is a Fernet token (AES-128-CBC and HMAC-SHA256, compared in constant time).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runyard.adapters.files import write_secret
from runyard.domain.errors import SecretUnreadable, TooBusy
from runyard.ports.secrets import Reseal

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_FILE = "secrets.key"
KEY_BYTES = 32


class _Ring(Protocol):
    """Where the keys are, the newest first. `name` is for messages."""

    name: str

    def read(self) -> list[str]:
        """None at all before the first was written. Raises `SecretUnreadable`."""
        ...

    def write(self, keys: Sequence[str]) -> None:
        """Raises `TooBusy`."""
        ...


class _Vault:
    """A `Vault` over a ring of keys. Work on the ring is done on another thread, one after the other."""

    def __init__(self, ring: _Ring) -> None:
        self._ring = ring
        self.turn = asyncio.Lock()
        self._writing = asyncio.Lock()

    async def seal(self, value: str) -> bytes:
        async with self._writing:
            return await asyncio.to_thread(self._seal, value)

    async def open(self, sealed: bytes) -> str:
        return await asyncio.to_thread(self._open, sealed)

    async def key_count(self) -> int:
        return len(await asyncio.to_thread(self._ring.read))

    async def add_key(self) -> Reseal:
        async with self._writing:
            return await asyncio.to_thread(self._add_key)

    async def resealer(self) -> Reseal:
        return self._reseal_with(await asyncio.to_thread(self._ring.read))

    async def drop_old_keys(self) -> None:
        async with self._writing:
            await asyncio.to_thread(self._drop_old_keys)

    def _seal(self, value: str) -> bytes:
        keys = self._ring.read()
        if not keys:
            keys = [_new_key()]
            self._ring.write(keys)
        return _crypt(keys).encrypt(value.encode())

    def _open(self, sealed: bytes) -> str:
        from cryptography.fernet import InvalidToken

        keys = self._keys()
        try:
            return _crypt(keys).decrypt(sealed).decode()
        except InvalidToken:
            raise self._wrong() from None

    def _add_key(self) -> Reseal:
        keys = [_new_key(), *self._ring.read()]
        self._ring.write(keys)
        return self._reseal_with(keys)

    def _drop_old_keys(self) -> None:
        keys = self._ring.read()
        if len(keys) > 1:
            self._ring.write(keys[:1])

    def _reseal_with(self, keys: Sequence[str]) -> Reseal:
        from cryptography.fernet import InvalidToken

        def reseal(sealed: bytes) -> bytes:
            if not keys:
                raise self._missing()
            try:
                return _crypt(keys).rotate(sealed)
            except InvalidToken:
                raise self._wrong() from None

        return reseal

    def _keys(self) -> list[str]:
        keys = self._ring.read()
        if not keys:
            raise self._missing()
        return keys

    def _missing(self) -> SecretUnreadable:
        return SecretUnreadable(f"{self._ring.name} is missing")

    def _wrong(self) -> SecretUnreadable:
        return SecretUnreadable(f"no key in {self._ring.name} opens it")


class FileVault(_Vault):
    """Its keys are in the file `path`, mode 0600, which is made when something is sealed for the first time."""

    def __init__(self, path: Path) -> None:
        super().__init__(_FileRing(path))


class MemoryVault(_Vault):
    """Its keys end with the process."""

    def __init__(self) -> None:
        super().__init__(_MemoryRing())


class _FileRing:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)

    def read(self) -> list[str]:
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no key file"
            # The cause of the second would show what is in the file.
            raise SecretUnreadable(f"{self._path} cannot be read: {reason}") from None
        lines = [line.strip() for line in text.splitlines()]
        for number, line in enumerate(lines, 1):
            if line and not line.startswith("#") and not _is_key(line):
                raise SecretUnreadable(f"line {number} of {self._path} is no key")
        return [line for line in lines if line and not line.startswith("#")]

    def write(self, keys: Sequence[str]) -> None:
        try:
            write_secret(self._path, "\n".join(keys))
        except OSError as error:
            raise TooBusy(
                f"{self._path} cannot be written: {error.strerror}; make room for it, then try again"
            ) from error


class _MemoryRing:
    name = "memory"

    def __init__(self) -> None:
        self._keys: list[str] = []

    def read(self) -> list[str]:
        return list(self._keys)

    def write(self, keys: Sequence[str]) -> None:
        self._keys = list(keys)


def _crypt(keys: Sequence[str]) -> MultiFernet:
    from cryptography.fernet import Fernet, MultiFernet

    return MultiFernet([Fernet(key) for key in keys])


def _new_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def _is_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
