"""What the facts show: pure, so that its own tests need no platform.

1. *Lost*: a job was acknowledged, and is missing before its time, has not ended, has ended otherwise than its handler and
   its client had it end, or has become something else after a client had seen it ended.
2. *Double*: a handler started twice for a job though nobody asked for a retry and the worker that had it neither died nor
   lost a connection between the hand-over and the second start.
3. *Excused*: a second start after such a loss: what a job may do, and what keeps it from being lost.
4. *Spent*: a job that has lost three workers and ended FAILED, as is promised. It needs three such losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.crash.record import TERMINAL, End, Facts, Line, Ticket

HANDED_OVER_S = 1.0
"""A worker has had a job for at most this long when its handler starts."""
ATTEMPTS_MAX = 3
SPENT = "no attempt is left"


@dataclass(frozen=True)
class Verdict:
    """`lost` and `double` have a story for each job and each second start; `started` counts starts of handlers."""

    acknowledged: int
    started: int
    lost: tuple[str, ...]
    double: tuple[str, ...]
    excused: int
    spent: int

    @property
    def held(self) -> bool:
        return not self.lost and not self.double

    def __str__(self) -> str:
        return (
            f"acknowledged={self.acknowledged} started={self.started} excused={self.excused} spent={self.spent} "
            f"lost={len(self.lost)} double={len(self.double)}"
        )


def judge(facts: Facts) -> Verdict:
    starts: dict[str, list[Line]] = defaultdict(list)
    for line in sorted(facts.lines):
        if line.event == "start":
            starts[line.job_id].append(line)
    tickets = {ticket.id: ticket for ticket in facts.tickets}
    again = [pair for id, lines in starts.items() for pair in pairwise(lines) if not _retried(tickets.get(id), *pair)]
    double = [pair for pair in again if not _taken_away(facts, *pair)]
    broken = {id: list(_broken_promises(facts, ticket, starts[id])) for id, ticket in tickets.items()}
    return Verdict(
        acknowledged=len(tickets),
        started=sum(map(len, starts.values())),
        lost=tuple(_story(facts, id, tickets.get(id), problems) for id, problems in broken.items() if problems),
        double=tuple(_story(facts, id, tickets.get(id), ["its handler started twice"]) for id in _jobs_of(double)),
        excused=len(again) - len(double),
        spent=sum(1 for end in facts.final.values() if end is not None and SPENT in str(end.output)),
    )


def _jobs_of(pairs: Iterable[tuple[Line, Line]]) -> list[str]:
    return [first.job_id for first, _ in pairs]


def _retried(ticket: Ticket | None, first: Line, second: Line) -> bool:
    return ticket is not None and any(first.at < at < second.at for at in ticket.retries)


def _taken_away(facts: Facts, first: Line, second: Line) -> bool:
    return any(
        first.at - HANDED_OVER_S <= fault.at <= second.at and fault.worker in (None, first.worker)
        for fault in facts.faults
    )


def _broken_promises(facts: Facts, ticket: Ticket, starts: list[Line]) -> Iterator[str]:
    shown, final = list(ticket.ends), facts.final.get(ticket.id)
    yield from ticket.missing
    if final is not None and final.status not in TERMINAL:
        yield f"it was {final.status} when all was quiet"
    elif final is not None:
        shown.append((facts.read_at, final))
    elif facts.read_at < ticket.sent_at + ticket.keep_s or not shown:
        yield "it was not there when all was quiet"
    for (at, end), (later, other) in pairwise(shown):
        if end != other and not any(at <= sent < later for sent in ticket.retries):
            yield f"it was shown as {end}, and later as {other}"
    yield from filter(None, (_wrong(facts, ticket, end) for _, end in shown))
    for sent in ticket.promised_retries:
        if not any(start.at > sent for start in starts) and final is not None and final.status == "FAILED":
            yield f"a retry sent at {sent:.3f} was acknowledged, and its handler never started"
    if strange := [chunk for chunk in ticket.chunks if not str(chunk).startswith(f"{ticket.token} ")]:
        yield f"its stream brought pieces of others: {strange}"


def _wrong(facts: Facts, ticket: Ticket, end: End) -> str | None:
    """What is wrong with an end of this job: one that neither its handler nor its client has asked for."""
    match end.status:
        case "COMPLETED" if not ticket.fails and end.output == ticket.expected:
            return None
        case "FAILED" if ticket.fails and f"asked to fail: {ticket.token}" in str(end.output):
            return None
        case "FAILED" if SPENT in str(end.output):
            losses = sum(1 for fault in facts.faults if fault.at >= ticket.sent_at)
            return None if losses >= ATTEMPTS_MAX else f"it was given up after {losses} losses of workers: {end.output}"
        case "CANCELLED" if ticket.cancels:
            return None
        case _:
            return f"it ended as {end.status} with {end.output!r}"


def _story(facts: Facts, job_id: str, ticket: Ticket | None, problems: Iterable[str]) -> str:
    """What is wrong with a job, and what happened while it lived."""
    lines = [(line.at, f"{line.event} on {line.worker}") for line in facts.lines if line.job_id == job_id]
    if ticket is not None:
        lines += [
            (ticket.sent_at, f"submitted with {ticket.token}"),
            *((at, f"shown as {end}") for at, end in ticket.ends),
        ]
        lines += [*((at, "cancel sent") for at in ticket.cancels), *((at, "retry sent") for at in ticket.retries)]
    times = [at for at, _ in lines]
    faults = [fault for fault in facts.faults if min(times) - 2 < fault.at < max(times) + 2]
    told = sorted([*lines, *((at, f"{kind} {worker or ''}") for at, kind, worker in faults)])
    return "\n    ".join([f"{job_id}: {'; '.join(problems)}", *(f"{at:.3f} {what}" for at, what in told)])
