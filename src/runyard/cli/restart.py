"""`runyard restart`."""

from __future__ import annotations

from pathlib import Path

import click

ANSWER_S_MAX = 150
"""More than a keeper gives the new server to come up and the old one to go."""


@click.command()
@click.option("--data-dir", metavar="FOLDER", help="Of the platform to restart.  [default: ~/.runyard]")
def restart(data_dir: str | None) -> None:
    """Replace the server of a platform on this machine, for an upgrade or new settings.

    The new server loads while the old one works. Then the old one answers what it holds and hands over; connections
    wait meanwhile and none is refused, workers go on with their jobs. If the new server does not start, the old one
    goes on and this says why. Jobs of the memory store end with the old server. Addresses, ports and the data directory
    stay until the platform is stopped and served anew.
    """
    from runyard.config import load
    from runyard.domain.errors import BadRequest

    try:
        root = load({"data_dir": data_dir}).root
    except BadRequest as error:
        raise click.ClickException(str(error)) from error
    answer = _ask_keeper(root)
    if "ok" not in answer:
        raise click.ClickException(answer.get("error", "the platform has stopped"))
    click.echo(f"a new server answers on {answer['ok']}")


def _ask_keeper(root: Path) -> dict[str, str]:
    import json
    import socket

    from runyard.keeper.ground import reachable

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S_MAX)
        try:
            with reachable(root) as folder:
                sock.connect(f"{folder}/keeper.sock")
            sock.sendall(b'{"do": "restart"}\n')
            line = sock.makefile("rb").readline()
        except OSError as error:
            raise click.ClickException(f"no platform serves from {root}: {error}") from error
    return json.loads(line or b"{}")
