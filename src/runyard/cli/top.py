"""`runyard top`: all endpoints at a glance."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from runyard.cli.output import cut, json_option, print_json, table_lines
from runyard.cli.platform import control

EVERY_S = 2.0
REASON_LENGTH = 60
HEADER = ("NAME", "ID", "QUEUED", "RUNNING", "DONE", "FAILED", "WORKERS", "BUSY", "STARTING", "MAX", "WAITING FOR")


@click.command()
@click.option("--once", is_flag=True, help="Show it once and end; so it is without a terminal.")
@json_option
def top(once: bool, as_json: bool) -> None:
    """Show queues and workers of all endpoints, again and again until Ctrl-C."""
    if as_json:
        print_json({"endpoints": _snapshot()})
        return
    once = once or not sys.stdout.isatty()
    while True:
        lines = table_lines(HEADER, [_row(entry) for entry in _snapshot()])
        if not once:
            click.clear()
        click.echo("\n".join(lines))
        if once:
            return
        time.sleep(EVERY_S)


def _snapshot() -> list[dict[str, Any]]:
    import msgspec

    found: list[dict[str, Any]] = []
    for endpoint in control().endpoints():
        health: dict[str, Any] = msgspec.to_builtins(control().health(endpoint.id))
        extra: dict[str, Any] = msgspec.to_builtins(endpoint.runyard)
        found.append(
            {
                "id": endpoint.id,
                "name": endpoint.name,
                "workersMax": endpoint.workers.max,
                **health,
                "queueReason": extra.get("queueReason"),
            }
        )
    return found


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    jobs, workers, reason = entry["jobs"], entry["workers"], entry["queueReason"]
    return (
        entry["name"],
        entry["id"],
        jobs["inQueue"],
        jobs["inProgress"],
        jobs["completed"],
        jobs["failed"],
        workers["ready"],
        workers["running"],
        workers["initializing"],
        entry["workersMax"],
        cut(f"{reason['code']}: {reason['message']}", REASON_LENGTH) if reason and jobs["inQueue"] else "",
    )
