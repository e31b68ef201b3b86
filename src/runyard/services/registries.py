"""Credentials for registries of images. User and password are never shown again (contract G.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from runyard.domain.endpoint import check_name
from runyard.domain.errors import BadRequest, Conflict, NotFound, SecretUnreadable
from runyard.domain.secret import REGISTRIES_MAX, Credential, Registry, RegistryId, check_server, check_value
from runyard.ports.secrets import SecretStore, Vault
from runyard.ports.system import Clock, Ids

UsedBy = Callable[[RegistryId], Sequence[str]]
"""The names of the endpoints that pull their images with a credential."""


class Registries:
    """Credentials by id."""

    def __init__(self, store: SecretStore, vault: Vault, clock: Clock, ids: Ids, used_by: UsedBy) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._used_by = used_by

    async def list(self) -> list[Registry]:
        """Oldest first."""
        return await self._store.registries()

    async def get(self, registry_id: str) -> Registry:
        """Raises `NotFound`."""
        for registry in await self._store.registries():
            if registry.id == registry_id:
                return registry
        raise NotFound(f"there is no registry credential {registry_id[:80]!r}: see `runyard registries list`")

    async def create(self, name: str, username: str, password: str, server: str | None = None) -> Registry:
        """A new credential. Raises `BadRequest`, or `Conflict` when the name is taken or there are too many;
        `SecretUnreadable` and `TooBusy` when the keys cannot be read or written.
        """
        check_name(name)
        check_value(username)
        check_value(password)
        if ":" in username:
            raise BadRequest("username must not contain a colon: a registry would read what follows as the password")
        server = None if server is None else check_server(server)
        async with self._vault.turn:
            if len(await self._store.registries()) >= REGISTRIES_MAX:
                raise Conflict(
                    f"there are {REGISTRIES_MAX} registry credentials already: delete some that nothing uses"
                )
            registry = Registry(
                id=self._ids.registry(),
                name=name,
                server=server,
                sealed=await self._vault.seal(json.dumps([username, password])),
                created_at=self._clock.now(),
            )
            await self._store.add_registry(registry)
            return registry

    async def delete(self, registry_id: str) -> None:
        """Raises `NotFound`, or `BadRequest` while an endpoint uses it, as the contract has it."""
        registry = await self.get(registry_id)
        if users := self._used_by(registry.id):
            raise BadRequest(
                f"registry credential {registry.id} pulls the images of endpoint {', '.join(users[:10])}: give them another "
                "`registry` first"
            )
        await self._store.delete_registry(registry.id)

    async def check(self, registry_id: str) -> None:
        """Raises `BadRequest` when an endpoint cannot use this, since there is no such credential."""
        try:
            await self.get(registry_id)
        except NotFound as error:
            raise BadRequest(f"registry: {error.message}") from error

    async def credential(self, registry_id: str) -> Credential:
        """Raises `NotFound`, or `SecretUnreadable`."""
        registry = await self.get(registry_id)
        try:
            username, password = json.loads(await self._vault.open(registry.sealed))
        except SecretUnreadable as error:
            raise SecretUnreadable(
                f"registry credential {registry.name!r} cannot be read: {error.message}; bring back the key file, or delete "
                "the credential and create it again"
            ) from error
        return Credential(username=username, password=password, server=registry.server)
