"""Bars, and whether they are met."""

from __future__ import annotations

import json
import os
import platform as machine
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise about speed: `value` must be at most, or at least, `limit`."""

    name: str
    value: float
    limit: float
    unit: str
    at_most: bool = True
    detail: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign, verdict = ("<=" if self.at_most else ">="), ("met" if self.met else "MISSED")
        return (
            f"{self.name:<58} {self.value:>9.3g} {self.unit:<6} bar {sign} {self.limit:<6g} {verdict:<7} {self.detail}"
        )


def write(bars: list[Bar], raw: dict[str, Any]) -> Path:
    """All that was measured, with the commit and the load it was measured under."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], check=True, capture_output=True, text=True
    ).stdout.strip()
    record = {
        "at": now.isoformat(timespec="seconds"),
        "commit": commit,
        "python": machine.python_version(),
        "kernel": machine.release(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "bars": [asdict(bar) | {"met": bar.met} for bar in bars],
        "raw": raw,
    }
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(record, indent=1))
    return path
