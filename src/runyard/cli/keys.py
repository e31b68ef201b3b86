"""`runyard keys`: API keys of the platform."""

from __future__ import annotations

import click

from runyard.cli.output import json_option, note, print_json, print_table
from runyard.cli.platform import control


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@json_option
def create(name: str, as_json: bool) -> None:
    """Create a key and print its secret, which is shown this once."""
    created = control().create_key(name)
    if as_json:
        print_json(created)
        return
    note(f"key {created.id} ({created.name}); keep the secret, it is not shown again:")
    click.echo(created.key)


@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys that open the platform."""
    found = control().keys()
    if as_json:
        print_json({"keys": found})
        return
    print_table(("ID", "NAME", "CREATED"), [(key.id, key.name, key.createdAt) for key in found])


@keys.command()
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke a key: from now on it opens nothing."""
    control().revoke_key(key_id)
    if as_json:
        print_json({"id": key_id})
    else:
        note(f"revoked {key_id}")
