"""`runyard serve`."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address of the user port.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="User port; 0 takes a free one.  [default: 8000]")
@click.option("--worker-port", type=click.IntRange(0, 65535), help="Worker port on loopback.  [default: a free one]")
@click.option("--data-dir", metavar="FOLDER", help="Where everything is kept.  [default: ~/.runyard]")
@click.option("--domain", metavar="NAME", help="Domain of load-balancing endpoints.  [default: localhost]")
@click.option("--store", metavar="STORE", help="Where jobs are kept.  [default: memory]")
def serve(**flags: Any) -> None:
    """Run the platform until SIGTERM or Ctrl-C.

    The first start writes a key for the administrator to <data-dir>/admin.key. All settings can also be given as
    RUNYARD_* variables and in runyard.toml; flags win.
    """
    from runyard.config import load
    from runyard.domain.errors import BadRequest, RunyardError
    from runyard.telemetry import set_up_logging

    try:
        settings = load(flags)
    except BadRequest as error:
        raise click.UsageError(str(error)) from error
    set_up_logging()
    try:
        _run(settings)
    except RunyardError as error:
        raise click.ClickException(str(error)) from error


def _run(settings: Any) -> None:
    import asyncio

    import uvloop

    from runyard import app

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.serve(settings, lambda url: click.echo(f"runyard ready on {url}")))
