"""Secrets: set, named in environments, never shown.

The store keeps values sealed, the vault has the keys. A value goes to workers alone, when they start. One that is replaced
or deleted while workers have it is kept as long as they live: a platform process that adopts them has to know what their
lines must not show.

A rotation has three steps: a new key, everything sealed anew in one transaction, old keys dropped. After a crash between
them all opens still, and the next start finishes what is left.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import Conflict, NotFound, RunyardError, SecretMissing, SecretUnreadable
from runyard.domain.secret import (
    FORMER_MAX,
    SECRETS_MAX,
    Env,
    FormerSecret,
    Registry,
    Secret,
    check_secret_name,
    check_value,
    references,
)
from runyard.domain.worker import Worker
from runyard.ports.secrets import SecretStore, Vault
from runyard.ports.system import Clock

log = logging.getLogger("runyard.secrets")

NAMES_SHOWN_MAX = 10


class EndpointBook(Protocol):
    """The endpoints as they are now."""

    def list(self) -> list[Endpoint]: ...


class Secrets:
    """`load` it before the first worker starts."""

    def __init__(
        self,
        store: SecretStore,
        vault: Vault,
        endpoints: EndpointBook,
        workers: Callable[[], Iterable[Worker]],
        clock: Clock,
    ) -> None:
        """`workers` gives those that are alive."""
        self._store = store
        self._vault = vault
        self._endpoints = endpoints
        self._workers = workers
        self._clock = clock
        self.changed: Callable[[], None] = lambda: None
        """Called when starts may work that have failed for a secret."""

    async def load(self) -> None:
        """Finish a rotation that was interrupted, and log what cannot be read. The platform starts in any case."""
        if unreadable := await self._unreadable():
            log.error("%s", unreadable.message)
            return
        try:
            async with self._vault.turn:
                if await self._vault.key_count() > 1:
                    await self._store.reseal(await self._vault.resealer())
                    await self._vault.drop_old_keys()
        except RunyardError as error:
            log.warning("a rotation of the key of secrets is not finished: %s", error.message)

    async def list(self) -> list[Secret]:
        """By name."""
        return await self._store.secrets()

    async def set(self, name: str, value: str) -> tuple[Secret, bool]:
        """Keep a secret; True if it is new. Workers that start from now on get this value. Raises `BadRequest`; `Conflict`
        when there are too many; `SecretUnreadable` and `TooBusy` when the keys cannot be read or written.
        """
        check_secret_name(name)
        check_value(value)
        async with self._vault.turn:
            secrets = {secret.name: secret for secret in await self._store.secrets()}
            was = secrets.get(name)
            if was is None and len(secrets) >= SECRETS_MAX:
                raise Conflict(f"there are {SECRETS_MAX} secrets already: delete some that nothing uses")
            keep = was is not None and not await self._is(was, value) and self._has_users(name)
            if keep:
                await self._check_former(name)
            sealed = await self._vault.seal(value)
            kept = await self._store.set_secret(name, sealed, self._clock.now(), keep_former=keep)
        self.changed()
        return kept, was is None

    async def delete(self, name: str) -> None:
        """Raises `NotFound`, or `Conflict` while the release that an endpoint runs names it."""
        async with self._vault.turn:
            if all(secret.name != name for secret in await self._store.secrets()):
                raise NotFound(f"there is no secret {name[:80]!r}: see `runyard secrets list`")
            users = [
                endpoint.name for endpoint in self._endpoints.list() if name in references(endpoint.release.run.env)
            ]
            if users:
                raise Conflict(
                    f"secret {name!r} is in the environment of endpoint {_some(users)}: deploy without it first, or set "
                    "it to another value"
                )
            keep = self._has_users(name)
            if keep:
                await self._check_former(name)
            await self._store.delete_secret(name, self._clock.now(), keep_former=keep)

    async def rotate(self) -> tuple[int, int]:
        """Replace the key, and seal everything anew; returns how many secrets and registry credentials there are. Raises
        `SecretUnreadable`, having changed nothing, when some do not open with the keys there are.
        """
        async with self._vault.turn:
            if unreadable := await self._unreadable():
                raise unreadable
            await self._store.reseal(await self._vault.add_key())
            await self._vault.drop_old_keys()
            return len(await self._store.secrets()), len(await self._store.registries())

    # For workers

    async def values(self, env: Env) -> dict[str, str]:
        """Of all secrets that an environment names. Raises `SecretMissing` or `SecretUnreadable`."""
        wanted = references(env)
        if not wanted:
            return {}
        secrets = {secret.name: secret for secret in await self._store.secrets()}
        for name, variable in wanted.items():
            if name not in secrets:
                raise SecretMissing(
                    f"there is no secret {name!r}, and the variable {variable} asks for it: `runyard secrets set {name}`",
                    secret=name,
                    variable=variable,
                )
        return {name: await self._open(secrets[name]) for name in wanted}

    async def ever(self, env: Env) -> list[tuple[str, str]]:
        """Names and all values that workers with this environment may have been started with. Raises `SecretUnreadable`."""
        wanted = references(env)
        if not wanted:
            return []
        kept = [*await self._store.secrets(), *await self._store.former_secrets()]
        return [(secret.name, await self._open(secret)) for secret in kept if secret.name in wanted]

    async def forget_former(self) -> None:
        """Delete former values that no worker has any more."""
        former = await self._store.former_secrets()
        if former:
            used = [(worker.created_at, references(worker.release.run.env)) for worker in self._workers()]
            gone = [secret.id for secret in former if not _has(secret, used)]
            if gone:
                await self._store.forget_former(gone)

    def _has_users(self, name: str) -> bool:
        return any(name in references(worker.release.run.env) for worker in self._workers())

    async def _check_former(self, name: str) -> None:
        await self.forget_former()
        if sum(secret.name == name for secret in await self._store.former_secrets()) >= FORMER_MAX:
            raise Conflict(
                f"secret {name!r} was changed {FORMER_MAX} times while workers that have older values live: deploy their "
                "endpoints again, then try again"
            )

    async def _is(self, secret: Secret, value: str) -> bool:
        try:
            return hmac.compare_digest((await self._vault.open(secret.sealed)).encode(), value.encode())
        except SecretUnreadable:
            return False

    async def _open(self, secret: Secret | FormerSecret) -> str:
        try:
            return await self._vault.open(secret.sealed)
        except SecretUnreadable as error:
            raise SecretUnreadable(
                f"secret {secret.name!r} cannot be read: {error.message}; bring back the key file, or set the secret again"
            ) from error

    async def _unreadable(self) -> SecretUnreadable | None:
        """What does not open, and why."""
        secrets, registries = (
            [*await self._store.secrets(), *await self._store.former_secrets()],
            await self._store.registries(),
        )
        names: dict[str, None] = {}
        reason = ""
        for what, sealed in ((_title(one), one.sealed) for one in (*secrets, *registries)):
            try:
                await self._vault.open(sealed)
            except SecretUnreadable as error:
                names[what], reason = None, error.message
        if not names:
            return None
        return SecretUnreadable(
            f"{_some(list(names))} cannot be read: {reason}; bring back the key file of the platform that has kept them, or "
            "set them again"
        )


def _has(secret: FormerSecret, used: Iterable[tuple[float, dict[str, str]]]) -> bool:
    return any(created_at <= secret.replaced_at and secret.name in names for created_at, names in used)


def _title(one: Secret | FormerSecret | Registry) -> str:
    return f"registry credential {one.name!r}" if isinstance(one, Registry) else f"secret {one.name!r}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    return shown if len(names) <= NAMES_SHOWN_MAX else f"{shown} and {len(names) - NAMES_SHOWN_MAX} more"
