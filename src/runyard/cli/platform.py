"""The platform that a command talks to, and the endpoint it talks about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runyard.client.control import Control
    from runyard.client.sync import Endpoint
    from runyard.wire import control as wire

KEY_VARIABLE = "RUNYARD_API_KEY"


def control() -> Control:
    """The control plane at RUNYARD_URL; one connection per process, kept as the command line's object."""
    root = click.get_current_context().find_root()
    if root.obj is None:
        from runyard.client.control import Control
        from runyard.client.settings import address
        from runyard.client.sync import Connection

        root.obj = Control(Connection(address(api_key=_api_key())))
    return root.obj


def endpoint_named(id_or_name: str) -> wire.Endpoint:
    """Exits with a line that lists what there is, if there is none of that id or name."""
    found = control().find(id_or_name)
    if found is None:
        names = ", ".join(sorted(endpoint.name for endpoint in control().endpoints())) or "none"
        raise click.ClickException(f"there is no endpoint {id_or_name!r}; endpoints: {names}")
    return found


def queue_of(id_or_name: str) -> Endpoint:
    """The data plane of an endpoint."""
    from runyard.client.sync import Endpoint

    return Endpoint(endpoint_named(id_or_name).id, connection=control().connection)


def key_source() -> str:
    """Where the API key came from, for people whose key is refused."""
    if os.environ.get(KEY_VARIABLE):
        return KEY_VARIABLE
    file = _admin_key_file()
    return str(file) if file.is_file() else f"nowhere: set {KEY_VARIABLE}, or run this where {file} is"


def _api_key() -> str | None:
    if os.environ.get(KEY_VARIABLE):
        return None  # The client reads it.
    try:
        return _admin_key_file().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _admin_key_file() -> Path:
    """`<data-dir>/admin.key`, by the same settings that `runyard serve` reads."""
    from runyard.config import load
    from runyard.domain.errors import RunyardError

    try:
        return load({}).root / "admin.key"
    except RunyardError as error:
        raise click.ClickException(str(error)) from error
