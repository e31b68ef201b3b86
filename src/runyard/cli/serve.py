"""`runyard serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from runyard.config import Settings


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address of the user port.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="User port; 0 takes a free one.  [default: 8000]")
@click.option("--worker-port", type=click.IntRange(0, 65535), help="Worker port on loopback.  [default: a free one]")
@click.option("--data-dir", metavar="FOLDER", help="Where everything is kept.  [default: ~/.runyard]")
@click.option("--domain", metavar="NAME", help="Domain of load-balancing endpoints.  [default: localhost]")
@click.option("--store", metavar="STORE", help="Where jobs are kept: memory or embedded.  [default: memory]")
@click.option(
    "--durability", metavar="LEVEL", help="What acknowledged jobs survive: power or process.  [default: power]"
)
@click.option("--keeper", "seat", hidden=True, help="What a keeper gives to the server that it starts.")
def serve(seat: str | None, **flags: Any) -> None:
    """Run the platform until SIGTERM or Ctrl-C.

    The first start writes a key for the administrator to <data-dir>/admin.key. All settings can also be given as
    RUNYARD_* variables and in runyard.toml; flags win. A small keeper process holds the ports and the workers, and replaces
    the server behind them when it crashes or on `runyard restart`.
    """
    from runyard.adapters.backups import check_whole
    from runyard.config import load
    from runyard.domain.errors import BadRequest, RunyardError

    try:
        settings = load(flags)
        root = settings.make_root()
        check_whole(root)
    except BadRequest as error:
        raise click.UsageError(str(error)) from error
    if seat is None:
        _become_keeper(settings, {**flags, "data_dir": str(root)})
    try:
        _run(settings, seat)
    except RunyardError as error:
        raise click.ClickException(str(error)) from error


def _become_keeper(settings: Settings, flags: dict[str, Any]) -> NoReturn:
    """This process goes on as the keeper, which has nothing of the platform in its memory."""
    import json
    import os
    import sys
    from importlib.util import find_spec

    given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in flags.items() if value is not None]
    charge = {
        "python": sys.executable,
        "data_dir": flags["data_dir"],
        "host": settings.host,
        "port": settings.port,
        "worker_port": settings.worker_port,
        "flags": [word for pair in given for word in pair],
    }
    package = find_spec("runyard.keeper")
    assert package is not None
    assert package.submodule_search_locations is not None
    program = os.path.join(package.submodule_search_locations[0], "__main__.py")  # noqa: PTH118
    os.execv(sys.executable, [sys.executable, "-I", "-S", program, json.dumps(charge)])


def _run(settings: Settings, spec: str) -> None:
    import asyncio

    import uvloop

    from runyard import app
    from runyard.adapters.keeper import Seat
    from runyard.telemetry import set_up_logging

    seat = Seat.of(spec)
    set_up_logging()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.serve(settings, seat))
