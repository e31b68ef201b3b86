"""`make crash N=200`: kill, cut and restart a platform under load, and see whether a job is lost or done twice.

`python -m tests.crash --rounds N --seed S [--store memory]` prints one line and, for what is wrong, a story each; exit
status 1 then. A round is one fault. `--keep FOLDER` leaves the data directory and both logs there.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.rig import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--store", default="embedded")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    print(f"seed={asked.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runyard-crash-") as fleeting:
        folder = asked.keep or Path(fleeting)
        folder.mkdir(parents=True, exist_ok=True)
        done = run(folder, rounds=asked.rounds, seed=asked.seed, store=asked.store, say=_progress)
    for problem in (*done.verdict.lost, *done.verdict.double):
        print(problem)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(done.kinds.items()))
    print(f"faults: {kinds}; {done.broken} requests without an answer, {done.refused} refused")
    print(f"rounds={asked.rounds} seed={asked.seed} seconds={time.monotonic() - began:.0f} {done.verdict}")
    return 0 if done.verdict.held else 1


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
