"""`runyard backup` and `runyard restore`: a platform's data directory, on the machine where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runyard.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from runyard.adapters.backups import Manifest

_data_dir = click.option("--data-dir", metavar="FOLDER", help="Of the platform.  [default: ~/.runyard]")


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@_data_dir
@json_option
def backup(target: Path, data_dir: str | None, as_json: bool) -> None:
    """Copy a platform's data into the new folder TARGET, while it runs or not.

    The copy is of one moment: every job, result, endpoint and bundle that was acknowledged before the command started is
    in it. No API key is, so that a backup does not open the platform; payloads, environment variables of releases and the
    secrets that webhooks are signed with are. Secrets are in it encrypted, without the key: keep a copy of secrets.key
    elsewhere. Of environments and of the volume nothing is copied, nor of a bucket where large inputs and results lie: it
    is named.
    """
    import time

    from runyard import __version__
    from runyard.adapters.backups import back_up
    from runyard.domain.errors import RunyardError

    try:
        manifest = back_up(_root(data_dir), target.absolute(), now=time.time(), version=__version__)
    except RunyardError as error:
        raise click.ClickException(error.message) from error
    _tell(manifest, "backup", target.absolute(), as_json)


@click.command()
@click.argument("backup", type=click.Path(path_type=Path))
@_data_dir
@json_option
def restore(backup: Path, data_dir: str | None, as_json: bool) -> None:
    """Make an empty data directory from BACKUP, then `runyard serve` it.

    The backup is checked before anything of it is used. A directory that has anything in it is refused, and so is one from
    which a platform serves. A new administrator's key is written to admin.key; those that the platform had go on.
    """
    import os
    import time

    from runyard.adapters.backups import restore as restored
    from runyard.adapters.backups import sealed_in
    from runyard.adapters.system import RandomIds
    from runyard.adapters.vault import KEY_FILE
    from runyard.domain.errors import RunyardError
    from runyard.keeper.ground import claim

    root, ids = _root(data_dir), RandomIds()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        claimed = claim(root)
        try:
            manifest = restored(backup.absolute(), root, now=time.time(), key=lambda: (ids.key(), ids.secret()))
        finally:
            os.close(claimed)
    except OSError as error:
        raise click.ClickException(f"cannot use {root} as data directory: {error.strerror}") from error
    except RunyardError as error:
        raise click.ClickException(error.message) from error
    _tell(manifest, "data_dir", root, as_json)
    note(f"a new administrator's key is in {root / 'admin.key'}")
    secrets, registries = sealed_in(root)
    if (secrets or registries) and not (root / KEY_FILE).exists():
        note(
            f"{secrets} secrets and {registries} registry credentials cannot be read without the key file of the platform "
            f"that was backed up: copy it to {root / KEY_FILE}, or set them again"
        )


def _root(data_dir: str | None) -> Path:
    from runyard.config import load
    from runyard.domain.errors import BadRequest

    try:
        return load({"data_dir": data_dir}).root
    except BadRequest as error:
        raise click.UsageError(str(error)) from error


def _tell(manifest: Manifest, what: str, where: Path, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                what: str(where),
                "made_at": manifest.made_at,
                "version": manifest.version,
                "schema": manifest.schema,
                "database_bytes": manifest.database_bytes,
                "blobs": len(manifest.blobs),
                "payloads": len(manifest.payloads),
                "bucket": manifest.bucket,
                "bytes": manifest.total_bytes,
            }
        )
    else:
        click.echo(
            f"{where}: data of {manifest.made_at}, {manifest.total_bytes / 1e6:.1f} MB, {len(manifest.blobs)} bundles, "
            f"{len(manifest.payloads)} large inputs and results; checked"
        )
    if manifest.bucket is not None:
        note(f"what lies in {manifest.bucket} is not in the backup")
