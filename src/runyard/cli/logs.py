"""`runyard logs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from runyard.cli.output import json_option, print_json
from runyard.cli.platform import control, endpoint_named

if TYPE_CHECKING:
    from runyard.wire.control import LogEvent

RECONNECT_S = 1.0
TAIL_MAX = 5000


@click.command()
@click.argument("endpoint")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.option("--job", metavar="ID", help="Only lines about this job.")
@click.option("--worker", metavar="ID", help="Only lines of this worker.")
@click.option("--source", type=click.Choice(["container", "system"]), help="The worker's own words, or the platform's.")
@click.option(
    "--tail", type=click.IntRange(0, TAIL_MAX), default=100, show_default=True, help="Begin so many lines back."
)
@click.option("--since", metavar="TIME", help="Begin at this time (RFC 3339).")
@json_option
def logs(endpoint: str, follow: bool, as_json: bool, **choice: Any) -> None:
    """Show what the workers of ENDPOINT (an id or a name) have said, stopped ones too."""
    names = {"job": "jobId", "worker": "workerId"}
    query = {names.get(name, name): str(value) for name, value in choice.items() if value is not None}
    found = endpoint_named(endpoint)
    events = following(found.id, query, time.sleep) if follow else _reading(found.id, query)
    for event in events:
        if as_json:
            print_json(event)
        else:
            click.echo(line_text(event))


def line_text(event: LogEvent) -> str:
    """`time worker line`; what the SDK says as JSON is shown as people say it."""
    return f"{event.ts}  {event.workerId}  {_plain(event.line)}"


def _reading(endpoint_id: str, query: dict[str, str]) -> Iterator[LogEvent]:
    return (event for _, event in control().logs(endpoint_id, query | {"follow": "false"}))


def following(endpoint_id: str, query: dict[str, str], sleep: Callable[[float], None]) -> Iterator[LogEvent]:
    """Goes on where it was when the connection breaks; ends when the platform says no, or never answered."""
    from runyard.client.errors import ApiError, ClientError

    last: str | None = None
    connected = False
    while True:
        try:
            for event_id, event in control().logs(endpoint_id, query, last_event_id=last):
                last = event_id
                yield event
            connected = True
        except ApiError:
            raise
        except ClientError:
            if last is None and not connected:
                raise
        sleep(RECONNECT_S)


def _plain(line: str) -> str:
    if not line.startswith('{"requestId":'):
        return line
    import msgspec

    try:
        said = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return line
    words = (said.get("level"), said.get("requestId"), said.get("message"))
    return " ".join(str(word) for word in words if word)
