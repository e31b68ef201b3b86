"""`runyard registries`: credentials for registries of images."""

from __future__ import annotations

import click

from runyard.cli.output import json_option, note, print_json, print_table
from runyard.cli.platform import control
from runyard.cli.secrets import read_hidden


@click.group()
def registries() -> None:
    """Add, list and delete credentials for registries of images."""


@registries.command()
@click.argument("name")
@click.option("--username", required=True, metavar="USER", help="Who logs in.")
@click.option("--server", metavar="HOST[:PORT]", help="The only registry that gets the password.  [default: any]")
@json_option
def add(name: str, username: str, server: str | None, as_json: bool) -> None:
    """Add a credential and print its id: the password is asked for, or comes on standard input.

    It pulls the images of endpoints that name it as their registry.
    """
    added = control().create_registry(name, username, read_hidden("Password"), server)
    if as_json:
        print_json(added)
    else:
        click.echo(added.id)


@registries.command("list")
@json_option
def list_registries(as_json: bool) -> None:
    """List the credentials, without users and passwords: nothing shows these."""
    found = control().registries()
    if as_json:
        print_json(found)
        return
    rows = [(one.id, one.name, one.runyard.server or "any", one.runyard.createdAt) for one in found.registries]
    print_table(("ID", "NAME", "SERVER", "CREATED"), rows)


@registries.command()
@click.argument("registry_id", metavar="ID")
@json_option
def delete(registry_id: str, as_json: bool) -> None:
    """Delete a credential; refused while an endpoint uses it."""
    control().delete_registry(registry_id)
    if as_json:
        print_json({"id": registry_id})
    else:
        note(f"deleted {registry_id}")
