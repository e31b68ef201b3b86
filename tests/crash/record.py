"""What is known afterwards: what clients were told, what handlers wrote down, and what was done to whom.

All times are `time.monotonic()`, which every process of the machine reads from the same clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


class End(NamedTuple):
    """A terminal state as an answer showed it; `output` is the error where there is one."""

    status: str
    output: object


@dataclass
class Ticket:
    """One job that was acknowledged, as its client knows it."""

    id: str
    path: str
    """Of its endpoint."""
    token: str
    fails: bool
    generates: bool
    sent_at: float
    keep_s: float
    """How long after its end the platform promises to show it."""
    cancels: list[float] = field(default_factory=list)
    """When a cancel was sent, answered or not."""
    retries: list[float] = field(default_factory=list)
    """When a retry was sent, answered or not."""
    promised_retries: list[float] = field(default_factory=list)
    """When those were sent that were acknowledged."""
    ends: list[tuple[float, End]] = field(default_factory=list)
    """The end as each answer has shown it, with when it was asked for; a retry clears nothing."""
    chunks: list[object] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Answers that said there is no such job."""

    @property
    def expected(self) -> object:
        """The output of a job that completes."""
        return [f"{self.token} {piece}" for piece in range(3)] if self.generates else self.token


class Fault(NamedTuple):
    """What was done, and to which worker, by death or by a broken connection; None: to every one."""

    at: float
    kind: str
    worker: str | None = None


class Line(NamedTuple):
    """Of the handlers' log."""

    at: float
    event: str
    job_id: str
    worker: str
    pid: int


@dataclass(frozen=True)
class Facts:
    """All of it."""

    tickets: tuple[Ticket, ...]
    lines: tuple[Line, ...]
    faults: tuple[Fault, ...]
    """Those that take a worker or its connections: others excuse nothing."""
    final: dict[str, End | None]
    """Each acknowledged job as the platform showed it when all was quiet: None where it is not there."""
    read_at: float
    """When that was."""


def parse(text: str) -> tuple[Line, ...]:
    return tuple(Line(float(at), event, job_id, worker, int(pid)) for at, event, job_id, worker, pid in _rows(text))


def _rows(text: str) -> Iterable[list[str]]:
    return (line.split() for line in text.splitlines())
