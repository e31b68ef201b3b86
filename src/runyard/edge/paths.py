"""Paths of hot routes."""

from __future__ import annotations

from urllib.parse import unquote


def segments(path: bytes) -> list[str]:
    """The path's segments, percent-decoded one by one: `%2F` stays inside its segment."""
    parts = path.decode("latin-1").split("/")[1:]
    return [unquote(part) for part in parts] if b"%" in path else parts
