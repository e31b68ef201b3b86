"""`runyard secrets`: values that workers get and nobody sees."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runyard.cli.output import json_option, note, print_json, print_table
from runyard.cli.platform import control


@click.group()
def secrets() -> None:
    """Set, list and delete secrets, and rotate the key that they are encrypted with.

    A value of a worker's environment variable names one as {{ RUNPOD_SECRET_name }}.
    """


@secrets.command("set")
@click.argument("name")
@click.option(
    "--from-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Its value is what is in FILE.",
)
@json_option
def set_secret(name: str, from_file: Path | None, as_json: bool) -> None:
    """Set the secret NAME: its value is asked for, or comes on standard input.

    One line end at its end does not belong to it. Workers that start from now on get the new value.
    """
    kept = control().set_secret(name, read_hidden("Value", from_file))
    if as_json:
        print_json(kept)
    else:
        note(f"set {kept.name}; in --env it is {{{{ RUNPOD_SECRET_{kept.name} }}}}")


@secrets.command("list")
@json_option
def list_secrets(as_json: bool) -> None:
    """List the secrets, without their values: nothing shows these."""
    found = control().secrets()
    if as_json:
        print_json(found)
        return
    rows = [(secret.name, secret.createdAt, secret.updatedAt) for secret in found.secrets]
    print_table(("NAME", "CREATED", "SET"), rows)


@secrets.command()
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete the secret NAME; refused while an endpoint's environment names it."""
    control().delete_secret(name)
    if as_json:
        print_json({"name": name})
    else:
        note(f"deleted {name}")


@secrets.command("rotate-key")
@json_option
def rotate_key(as_json: bool) -> None:
    """Make a new key, encrypt all secrets and registry credentials with it, and forget the old one.

    What is in backups made before opens with the old key only: keep a copy of it as long as you keep them.
    """
    rotated = control().rotate_secrets()
    if as_json:
        print_json(rotated)
    else:
        note(f"{rotated.secrets} secrets and {rotated.registries} registry credentials are under a new key")


def read_hidden(what: str, file: Path | None = None) -> str:
    """A value that is no argument, since those stand in the list of processes: from the file, from standard input if that
    is no terminal, else asked for without an echo. One line end at its end is dropped.
    """
    if file is None and sys.stdin.isatty():
        return click.prompt(what, hide_input=True, err=True)
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        value = data.decode()
    except UnicodeDecodeError:
        raise click.ClickException(f"the {what.lower()} is not UTF-8 text") from None  # The cause would show it.
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise click.ClickException(f"the {what.lower()} is empty")
    return value
