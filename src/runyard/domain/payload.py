"""Payloads that are too large to be held with their job.

What is small lies in the job store, as bytes. What is larger is *spilled*: it lies outside, and the job names it.
"""

from __future__ import annotations

from typing import NamedTuple


class Spilled(NamedTuple):
    """A payload that lies outside the job store."""

    ref: str
    """Names it there; opaque, and never used again for another."""
    size: int
    """In bytes."""


Payload = bytes | Spilled
"""Opaque bytes of JSON, or where they are."""
