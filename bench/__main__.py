"""`make bench`: measure the queue data plane and say which bars are met. Exits 1 when one is missed.

`python -m bench --publish` also makes the record the one that docs/reference/performance.md is written from.

Servers run on one core; load, workers and this process on another. Rounds of the platform and of its peer take turns, so
that both see the same machine, and are run again when others used it; what counts is the ratio of their medians.
"""

from __future__ import annotations

import os
import shutil
import sys
from statistics import median

from bench import containers, lasting, load, quiet
from bench.bars import Bar, write
from bench.polls import idle_sdk_polls, parked_polls, pick_up
from bench.quiet import quiet_round
from bench.servers import HERE, LOAD_CORE, Platform, fastapi, platform

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def main() -> int:
    os.sched_setaffinity(0, {LOAD_CORE})
    raw: dict[str, object] = {"rounds": ROUNDS, "seconds": quiet.SECONDS}
    with platform() as runyard:
        bars = [*round_trips(runyard, raw), *pick_up(runyard, raw), *parked_polls(runyard, raw)]
    with platform() as runyard:
        bars += idle_sdk_polls(runyard, raw)
    bars += [*lasting.round_trips(raw, ROUNDS), *lasting.at_depth(raw, ROUNDS), *lasting.restarts(raw)]
    bars += containers.measure(raw, ROUNDS)
    for bar in bars:
        print(bar)
    record = write(bars, raw)
    print(f"raw results: {record}")
    if "--publish" in sys.argv:
        shutil.copyfile(record, HERE.parent / "docs/reference/performance.json")
    return 0 if all(bar.met for bar in bars) else 1


def round_trips(runyard: Platform, raw: dict[str, object]) -> list[Bar]:
    """`runsync` of a no-op job through a bare-protocol worker, against FastAPI called directly."""
    endpoint = runyard.deploy("raw", HERE / "raw_worker" / "handler.py", {"BENCH_CORE": str(LOAD_CORE)})
    runyard.wait_until_ready(endpoint)
    samples: dict[str, list[load.Sample]] = {}
    with fastapi() as peer:
        for _ in range(ROUNDS):
            for connections in (1, 64):
                for name, url in (("fastapi", peer), ("runyard", f"{runyard.url}/v2/{endpoint}/runsync")):
                    sample = quiet_round(url, runyard.key, connections)
                    samples.setdefault(f"{name} c{connections}", []).append(sample)
    raw["round_trips"] = {name: [sample.record() for sample in taken] for name, taken in samples.items()}
    p50 = {name: median(s.p50_us for s in taken) for name, taken in samples.items()}
    rate = {name: median(s.per_second for s in taken) for name, taken in samples.items()}
    failed = sum(s.failed for taken in samples.values() for s in taken)
    return [
        Bar(
            "runsync p50 at 1 connection / FastAPI called directly",
            p50["runyard c1"] / p50["fastapi c1"],
            1.1,
            "x",
            detail=f"{p50['runyard c1']:.0f} us / {p50['fastapi c1']:.0f} us",
        ),
        Bar(
            "runsync requests/s at 64 connections / FastAPI called directly",
            rate["runyard c64"] / rate["fastapi c64"],
            2.0,
            "x",
            at_most=False,
            detail=f"{rate['runyard c64']:.0f}/s / {rate['fastapi c64']:.0f}/s",
        ),
        Bar("answers that were not 2xx", failed, 0, ""),
    ]


if __name__ == "__main__":
    sys.exit(main())
