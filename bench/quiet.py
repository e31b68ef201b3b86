"""Tells rounds that had the machine for themselves from those that shared it with somebody's compiler."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

import uvloop

from bench import load

SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
OTHERS_MAX = 0.03
"""Cores that all else on the machine may use during a round; a round that was disturbed more is run again."""
TRIES_MAX = 12

_TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """What all but `ours`, and what those have started, use of the machine from now on."""

    def __init__(self, ours: Collection[int]) -> None:
        self._pids = ours
        self._busy, self._ours, self._start = _busy_s(), _used_s(ours), time.monotonic()

    def share(self) -> float:
        """In cores: 0.5 is one core half the time."""
        busy, ours = _busy_s() - self._busy, _used_s(self._pids) - self._ours
        return (busy - ours) / (time.monotonic() - self._start)


def quiet_round(url: str, key: str, connections: int, *, also: Collection[int] = ()) -> load.Sample:
    """A round that nobody disturbed; after many tries, the one that was disturbed least. Processes that take part without
    being this one's children are named in `also`.
    """
    tried: list[load.Sample] = []
    while not tried or (tried[-1].others > OTHERS_MAX and len(tried) < TRIES_MAX):
        others = Others({os.getpid(), *also})
        tried.append(uvloop.run(load.run(url, key, connections=connections, seconds=SECONDS)))
        tried[-1].others = others.share()
    return min(tried, key=lambda sample: sample.others)


def _busy_s() -> float:
    """CPU seconds that all cores have not been idle, those the hypervisor stole among them."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _used_s(ours: Collection[int]) -> float:
    """CPU seconds of these processes and all that they have started."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # It has just ended.
        pid = int(path.parent.name)
        parents[pid], used[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid not in ours:
            pid = parents.get(pid, 0)
        return pid in ours

    return sum(ticks for pid, ticks in used.items() if is_ours(pid)) / _TICKS
