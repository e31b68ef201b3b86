"""A server that listens for workers at FURTHER_WORKER_HOST, too, as a runtime with networks of its own has it do.

Only the first one asks for that, and notes it in the file FURTHER_OPENED: those after it have it from the keeper.
Run by the keeper in place of Python: `further.py -P -m runyard serve [FLAGS] --keeper SPEC`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click
import uvloop

from runyard import app
from runyard.adapters.keeper import Seat
from runyard.adapters.worker_ports import HeldWorkerPorts, Serve
from runyard.config import load
from runyard.telemetry import set_up_logging


class FurtherWorkerPorts(HeldWorkerPorts):
    """Opens one by itself, where a runtime would ask for it."""

    async def serve_with(self, serve: Serve) -> None:
        await super().serve_with(serve)
        for host in _wanted():
            await self.open(host)


@click.command()
@click.option("--data-dir")
@click.option("--host")
@click.option("--port", type=int)
@click.option("--keeper")
def serve(keeper: str, **flags: object) -> None:
    seat = Seat.of(keeper)
    set_up_logging()
    app.HeldWorkerPorts = FurtherWorkerPorts
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.serve(load(flags), seat))


def _wanted() -> list[str]:
    opened = Path(os.environ["FURTHER_OPENED"])
    if opened.exists():
        return []
    opened.touch()
    return [os.environ["FURTHER_WORKER_HOST"]]


if __name__ == "__main__":
    serve(sys.argv[sys.argv.index("serve") + 1 :])
