"""What is said of a new release, until it is ready or has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from runyard.cli.output import note

if TYPE_CHECKING:
    from runyard.client.control import Control
    from runyard.wire import control as wire
    from runyard.wire.containers import Preparation

POLL_S = 0.5
LINES_MAX = "5000"


def follow_release(control: Control, deployed: wire.Endpoint, sleep: Callable[[float], None]) -> None:
    """Show the lines of the pull or build. Raises `click.ClickException` when it fails."""
    version, last = deployed.runyard.version, None
    while True:
        # How it stands is asked first: what was said before that is then read below.
        stands = _preparation(control, deployed)
        last = _show(control, deployed.id, version, last)
        if stands is None:
            note(f"release {version} was replaced by another, or deleted")
            return
        if stands.state == "FAILED":
            raise click.ClickException(f"release {version} cannot run: {stands.code}: {stands.message}")
        if stands.state == "READY":
            note(f"release {version} is ready")
            return
        sleep(POLL_S)


def _preparation(control: Control, deployed: wire.Endpoint) -> Preparation | None:
    """None: the endpoint has another release by now."""
    from msgspec import UNSET

    from runyard.wire.containers import Preparation

    endpoint = control.find(deployed.id)
    if endpoint is None or endpoint.runyard.version != deployed.runyard.version:
        return None
    return Preparation("PREPARING") if endpoint.runyard.preparation is UNSET else endpoint.runyard.preparation


def _show(control: Control, endpoint_id: str, version: int, last: str | None) -> str | None:
    """The lines since `last`, an event's id; returns that of the last line."""
    from runyard.domain.job import EndpointId
    from runyard.domain.worker import builder_id

    query = {"workerId": builder_id(EndpointId(endpoint_id), version), "follow": "false", "tail": LINES_MAX}
    for event_id, event in control.logs(endpoint_id, query, last_event_id=last):
        note(event.line)
        last = event_id
    return last
