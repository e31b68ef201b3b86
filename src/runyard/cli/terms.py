"""Terms of an endpoint's jobs: the flags that set them, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from runyard.wire import control as wire

_F = TypeVar("_F", bound=Callable[..., Any])

_WIRE_NAMES = {
    "retention": "retentionSeconds",
    "retention_sync": "retentionSyncSeconds",
    "ttl": "ttlSeconds",
    "ttl_scope": "ttlScope",
    "keep": "keepSeconds",
    "attempts_max": "attemptsMax",
}


def seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _option(flag: str, type: Any, help: str) -> Callable[[_F], _F]:
    return click.option(flag, type=type, help=f"{help}  [default: the platform's]")


_OPTIONS: tuple[Callable[..., Any], ...] = (
    _option("--retention", seconds, "Seconds that a job stays readable after its end."),
    _option("--retention-sync", seconds, "The same for runsync."),
    _option("--ttl", seconds, "Seconds that a job may exist."),
    _option("--ttl-scope", click.Choice(["all", "queue"]), "Whether they count also while it runs, or not."),
    _option("--keep", seconds, "Seconds that an ended job is kept behind its retention."),
    _option("--attempts-max", int, "Workers that may lose a job before it is FAILED."),
)


def term_options(command: _F) -> _F:
    """The flags that they are given by; each that is not given changes nothing."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_terms(flags: dict[str, Any]) -> dict[str, Any]:
    """What was given of them, taken out of `flags` and named as on the wire."""
    given = {wire_name: flags.pop(flag) for flag, wire_name in _WIRE_NAMES.items()}
    return {name: value for name, value in given.items() if value is not None}


def term_rows(jobs: wire.EndpointJobs) -> list[tuple[str, str, str]]:
    """Of each: its name, what holds, and who has set it."""
    return [
        (flag.replace("_", "-"), _text(getattr(jobs, name), name), "endpoint" if name in jobs.own else "platform")
        for flag, name in _WIRE_NAMES.items()
    ]


def _text(value: float | str, name: str) -> str:
    return f"{value:.15g}s" if name.endswith("Seconds") else str(value)
