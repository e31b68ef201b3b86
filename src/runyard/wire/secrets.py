"""Bodies about secrets, our own routes in the manner of REST v2, and about registries (contract G.2).

What is write-only is not in what prints these either.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from runyard.wire.control import Text


class SetSecretRequest(msgspec.Struct, forbid_unknown_fields=True):
    value: Text

    def __repr__(self) -> str:
        return "SetSecretRequest(...)"


class Secret(msgspec.Struct):
    name: str
    createdAt: str
    updatedAt: str


class SecretList(msgspec.Struct):
    secrets: list[Secret]


class Rotated(msgspec.Struct):
    """How many secrets and registry credentials are under the new key."""

    secrets: int
    registries: int


class RegistryAdditions(msgspec.Struct, forbid_unknown_fields=True):
    """Our addition: the only server that gets the password, as it stands before the names of images. Without: any."""

    server: Text | UnsetType | None = UNSET


class CreateRegistryRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Text
    username: Text
    password: Text
    runyard: RegistryAdditions | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"CreateRegistryRequest(name={self.name!r}, ...)"


class RegistryRunyard(msgspec.Struct):
    server: str | None
    createdAt: str


class Registry(msgspec.Struct):
    id: str
    name: str
    runyard: RegistryRunyard


class RegistryList(msgspec.Struct):
    registries: list[Registry]


class DelegationList(msgspec.Struct):
    """There are none here: they are accounts at the hosted service that pull from AWS."""

    delegations: list[dict[str, Any]]
