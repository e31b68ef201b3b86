"""What a release runs, as columns of a row."""

from __future__ import annotations

import json
import sqlite3

import msgspec

from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec


def run_row(run: RunSpec) -> dict[str, object]:
    return {
        "bundle": run.bundle,
        "handler": run.handler,
        "env": json.dumps(run.env),
        "container": None if run.container is None else msgspec.json.encode(run.container).decode(),
        "lock": run.lock,
    }


def run_of(row: sqlite3.Row) -> RunSpec:
    env: list[tuple[str, str]] = json.loads(row["env"])
    container: str | None = row["container"]
    return RunSpec(
        bundle=row["bundle"],
        handler=row["handler"],
        env=tuple((name, value) for name, value in env),
        container=None if container is None else msgspec.json.decode(container, type=ContainerSpec),
        lock=row["lock"],
    )
