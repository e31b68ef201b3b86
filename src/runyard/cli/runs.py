"""How an endpoint runs, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runyard.wire import control as wire


def run_rows(endpoint: wire.Endpoint) -> Iterator[tuple[str, str]]:
    """Name and value of all that is set."""
    ours = endpoint.runyard
    rows = (
        ("image", endpoint.image or ""),
        ("exactly", ours.imageDigest or ""),
        ("dockerfile", ours.dockerfile or ""),
        ("handler", ours.handler or ""),
        ("entrypoint", _line(ours.entrypoint or [])),
        ("args", endpoint.args),
        ("limits", _limits(endpoint)),
        ("ports", ", ".join(endpoint.ports)),
        ("registry", endpoint.registry or ""),
        ("release", _preparation(endpoint)),
    )
    return ((name, value) for name, value in rows if value)


def _line(words: list[str]) -> str:
    import shlex

    return shlex.join(words)


def _limits(endpoint: wire.Endpoint) -> str:
    limits = endpoint.runyard.limits or None
    said = (
        ("cpus", "", limits and limits.cpus),
        ("memory", "m", limits and limits.memoryMb),
        ("shm", "m", limits and limits.shmMb),
        ("pids", "", limits and limits.pids),
        ("disk", "g", endpoint.disk or None),
    )
    return ", ".join(f"{name} {value:g}{unit}" for name, unit, value in said if value is not None)


def _preparation(endpoint: wire.Endpoint) -> str:
    if not endpoint.runyard.preparation:
        return ""
    preparation = endpoint.runyard.preparation
    evidence = ": ".join(part for part in (preparation.code, preparation.message) if part)
    return f"{preparation.state}, {evidence}" if evidence else preparation.state
