"""Who may call: API keys, kept as digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NewType

KeyId = NewType("KeyId", str)

KEY_PREFIX = "rpa_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as the platform remembers it. The secret is shown once, at creation; only its SHA-256 is kept."""

    id: KeyId
    name: str
    digest: bytes
    created_at: float
    revoked_at: float | None = None


def digest_of(secret: str) -> bytes:
    """SHA-256 of a 256-bit random secret: nothing to guess, so nothing to stretch (decision 16)."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
