"""Secrets and credentials of registries, sealed: in SQLite, and in memory."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from runyard.adapters.stores.sqlite import Tables
from runyard.domain.errors import Conflict
from runyard.domain.secret import FormerSecret, Registry, RegistryId, Secret
from runyard.ports.secrets import Reseal


class MemorySecrets:
    """A `SecretStore` in dictionaries: the port's meaning in its shortest form."""

    def __init__(self) -> None:
        self._secrets: dict[str, Secret] = {}
        self._former: dict[int, FormerSecret] = {}
        self._registries: dict[RegistryId, Registry] = {}
        self._numbers = itertools.count(1)

    async def secrets(self) -> list[Secret]:
        return sorted(self._secrets.values(), key=lambda secret: secret.name)

    async def set_secret(self, name: str, sealed: bytes, now: float, *, keep_former: bool) -> Secret:
        was = self._secrets.get(name)
        self._keep_former(was, now, keep_former)
        created_at = now if was is None else was.created_at
        self._secrets[name] = Secret(name=name, sealed=sealed, created_at=created_at, updated_at=now)
        return self._secrets[name]

    async def delete_secret(self, name: str, now: float, *, keep_former: bool) -> bool:
        was = self._secrets.pop(name, None)
        self._keep_former(was, now, keep_former)
        return was is not None

    async def former_secrets(self) -> list[FormerSecret]:
        return list(self._former.values())

    async def forget_former(self, ids: Collection[int]) -> None:
        for id in ids:
            self._former.pop(id, None)

    async def registries(self) -> list[Registry]:
        return sorted(self._registries.values(), key=lambda registry: (registry.created_at, registry.id))

    async def add_registry(self, registry: Registry) -> None:
        if registry.id in self._registries or any(registry.name == other.name for other in self._registries.values()):
            raise _taken(registry)
        self._registries[registry.id] = registry

    async def delete_registry(self, registry_id: RegistryId) -> bool:
        return self._registries.pop(registry_id, None) is not None

    async def reseal(self, again: Reseal) -> None:
        secrets = {name: replace(secret, sealed=again(secret.sealed)) for name, secret in self._secrets.items()}
        former = {id: replace(secret, sealed=again(secret.sealed)) for id, secret in self._former.items()}
        registries = {id: replace(one, sealed=again(one.sealed)) for id, one in self._registries.items()}
        self._secrets, self._former, self._registries = secrets, former, registries

    async def close(self) -> None:
        """Nothing to do."""

    def _keep_former(self, was: Secret | None, now: float, keep: bool) -> None:
        if was is not None and keep:
            id = next(self._numbers)
            self._former[id] = FormerSecret(id=id, name=was.name, sealed=was.sealed, replaced_at=now)


class SqliteSecrets:
    """A `SecretStore` in the file `path`, which may hold other tables."""

    def __init__(self, path: Path) -> None:
        self._tables = Tables(path, "secrets")

    async def close(self) -> None:
        await self._tables.close()

    async def secrets(self) -> list[Secret]:
        return [Secret(**dict(row)) for row in await self._tables.fetch("secrets")]

    async def set_secret(self, name: str, sealed: bytes, now: float, *, keep_former: bool) -> Secret:
        def keep() -> sqlite3.Row:
            if keep_former:
                self._tables.execute("keep_former", name=name, now=now)
            (row,) = self._tables.execute("set_secret", name=name, sealed=sealed, now=now).fetchall()
            return row

        return Secret(**dict(await self._tables.transact(keep)))

    async def delete_secret(self, name: str, now: float, *, keep_former: bool) -> bool:
        def delete() -> bool:
            if keep_former:
                self._tables.execute("keep_former", name=name, now=now)
            return self._tables.execute("delete_secret", name=name).rowcount > 0

        return await self._tables.transact(delete)

    async def former_secrets(self) -> list[FormerSecret]:
        return [FormerSecret(**dict(row)) for row in await self._tables.fetch("former_secrets")]

    async def forget_former(self, ids: Collection[int]) -> None:
        def forget() -> None:
            for id in ids:
                self._tables.execute("forget_former", id=id)

        await self._tables.transact(forget)

    async def registries(self) -> list[Registry]:
        return [Registry(**dict(row)) for row in await self._tables.fetch("registries")]

    async def add_registry(self, registry: Registry) -> None:
        row = {
            "id": registry.id,
            "name": registry.name,
            "server": registry.server,
            "sealed": registry.sealed,
            "created_at": registry.created_at,
        }
        try:
            await self._tables.transact(lambda: self._tables.execute("add_registry", **row))
        except sqlite3.IntegrityError as error:
            raise _taken(registry) from error

    async def delete_registry(self, registry_id: RegistryId) -> bool:
        return await self._tables.transact(lambda: self._tables.execute("delete_registry", id=registry_id).rowcount > 0)

    async def reseal(self, again: Reseal) -> None:
        def reseal() -> None:
            for rows, query, key in (
                ("secrets", "reseal_secret", "name"),
                ("former_secrets", "reseal_former", "id"),
                ("registries", "reseal_registry", "id"),
            ):
                for row in self._tables.execute(rows).fetchall():
                    self._tables.execute(query, **{key: row[key], "sealed": again(row["sealed"])})

        await self._tables.transact(reseal)


def _taken(registry: Registry) -> Conflict:
    return Conflict(
        f"a registry credential named {registry.name!r} exists already: choose another name, or delete that one first"
    )
