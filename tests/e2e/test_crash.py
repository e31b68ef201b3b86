"""A short run of `make crash`: every kind of fault once, and a store that forgets, which must be found out."""

from __future__ import annotations

from pathlib import Path

from tests.crash.faults import DECK
from tests.crash.rig import run

KINDS = tuple(dict.fromkeys(DECK))
SEED = 3


def test_no_acknowledged_job_is_lost_and_none_is_done_twice(tmp_path: Path) -> None:
    done = run(tmp_path, rounds=len(KINDS), seed=SEED, deck=KINDS)

    assert done.verdict.held, "\n".join((f"seed {SEED}", *done.verdict.lost, *done.verdict.double))
    assert done.verdict.acknowledged > 20
    assert done.broken > 0, "nothing broke"


def test_a_store_that_forgets_is_found_out(tmp_path: Path) -> None:
    done = run(tmp_path, rounds=2, seed=SEED, deck=("kill server", "kill server"), store="memory")

    assert done.verdict.lost
