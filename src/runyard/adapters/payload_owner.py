"""What a data directory notes of the buckets that its payloads went to: its name there, and the latest of them."""

from __future__ import annotations

import secrets
from pathlib import Path

from runyard.adapters.files import write_secret

_FILE = "payloads.owner"


def owner_in(root: Path, place: str) -> str:
    """Its name, which is made at first, and is the same at every place. `place` is noted as the latest."""
    owner, latest = _noted(root)
    owner = owner or secrets.token_hex(16)
    if latest != place:
        write_secret(root / _FILE, f"{owner} {place}")
    return owner


def place_in(root: Path) -> str | None:
    """The latest bucket and prefix that its payloads went to; None when they never went to any."""
    return _noted(root)[1]


def _noted(root: Path) -> tuple[str | None, str | None]:
    try:
        owner, place = (root / _FILE).read_text().split()
    except FileNotFoundError:
        return None, None
    return owner, place
