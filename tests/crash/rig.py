"""A run: load, a fault each round, quiet, and the facts."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tests.crash.clients import Client, Target, end_of
from tests.crash.faults import Faults, deal
from tests.crash.ground import Ground
from tests.crash.record import TERMINAL, End, Facts, Ticket
from tests.crash.verdict import Verdict, judge
from tests.e2e.keeping import BUILD_S_MAX, until

CLIENTS = 6
SETTLE_S_MAX = 90.0
"""From the last fault on, within which every job must have ended."""
LULL_S = (0.05, 1.0)
"""Between two faults."""


class Run(NamedTuple):
    verdict: Verdict
    kinds: Counter[str]
    broken: int
    refused: int


def run(
    folder: Path,
    *,
    rounds: int,
    seed: int,
    store: str = "embedded",
    deck: Sequence[str] = (),
    say: Callable[[str], object] = lambda line: None,
) -> Run:
    """`deck`: these faults, instead of those that the seed deals."""
    ground = Ground(folder, store=store)
    clients: list[Client] = []
    try:
        targets = [ground.deploy("plain", 2), ground.deploy("generating", 1, GENERATES="1")]
        until(lambda: len(ground.workers()) == 3, BUILD_S_MAX)
        clients += [Client(n, seed, ground.port, ground.key, targets, settle_s=SETTLE_S_MAX) for n in range(CLIENTS)]
        chance = random.Random(seed)
        faults = Faults(ground, clients, chance)
        kinds = list(deck) or list(islice(deal(chance), rounds))
        for client in clients:
            client.start()
        for number, kind in enumerate(kinds, 1):
            time.sleep(chance.uniform(*LULL_S))
            began = time.monotonic()
            faults.happen(kind)
            say(f"{number}/{len(kinds)} {kind}: {time.monotonic() - began:.1f} s")
        facts = gather(ground, clients, faults, targets)
        ground.stop()
    finally:
        for client in clients:
            client.leave()
        ground.close()
    return Run(judge(facts), Counter(kinds), sum(c.broken for c in clients), sum(c.refused for c in clients))


def gather(ground: Ground, clients: list[Client], faults: Faults, targets: list[Target]) -> Facts:
    """Let everything come to rest, then look at every job that was acknowledged."""
    for client in clients:
        client.over.set()
    for client in clients:
        client.join()
        if client.failure is not None:
            raise client.failure
    read_at = time.monotonic()
    tickets = tuple(ticket for client in clients for ticket in client.tickets)
    final = {ticket.id: shown(ground, ticket) for ticket in tickets}
    until(lambda: all(at_rest(ground, target) for target in targets), SETTLE_S_MAX)
    return Facts(tickets=tickets, lines=ground.lines(), faults=tuple(faults.done), final=final, read_at=read_at)


def shown(ground: Ground, ticket: Ticket) -> End | None:
    """Where jobs are that have expired, too: reading them all takes a while."""
    reply = ground.get(f"{ticket.path}/requests/{ticket.id}")
    if reply.status_code == 404:
        return None
    body = reply.raise_for_status().json()
    return end_of(body) if body["status"] in TERMINAL else End(body["status"], None)


def at_rest(ground: Ground, target: Target) -> bool:
    """No job waits or runs, not even one whose acknowledgement was lost on the way."""
    jobs = ground.get(f"{target.path}/health").json()["jobs"]
    return jobs["inQueue"] == jobs["inProgress"] == 0
