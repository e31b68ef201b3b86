"""Copies of a data directory that can be trusted, and the way back.

A backup is a folder: `control.db` (endpoints, keys' digests, workers' records, jobs with their results, webhooks that are
owed and the secrets that sign them), `blobs/` (bundles), `payloads/` (large inputs and results) and `backup.json`, which
says what belongs to it.

1. The database is copied as it is at one moment, while others write to it. Blobs and payloads are copied after it: they
   never change, and are there before the database names them. Payloads go when it does not name them any more, which
   may be while they are copied: so from before that moment on none is removed until all are copied.
2. What is made has another name until all of it is on disk and has been checked, so that half a backup is never taken for
   one, nor half a restored data directory for a whole one.
3. A backup does not open the platform: no API key is in it, only digests. Restoring makes a new key for the administrator.
   Nor does it open the secrets that are sealed in the database: their key file is not in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from runyard.adapters.files import sync, write_secret
from runyard.adapters.payload_names import job_in
from runyard.adapters.payload_owner import place_in
from runyard.adapters.payloads import nothing_forgotten
from runyard.adapters.stores.sqlite import SQL, migrations_in, named_queries, open_database, transaction
from runyard.adapters.vault import KEY_FILE
from runyard.domain.account import digest_of
from runyard.domain.errors import BadRequest, Conflict, RunyardError

FORMAT = 2
"""1: without payloads."""
DATABASE, BLOBS, PAYLOADS, ADMIN_KEY, MANIFEST = "control.db", "blobs", "payloads", "admin.key", "backup.json"
RESTORING = "restoring"
"""In a data directory: what is being restored into it, or was when that was interrupted."""
COPY_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_OF_NO_IMPORTANCE = {"keeper.lock", "lost+found", RESTORING, KEY_FILE}


class PayloadFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is in a backup. `schema` is the database's; `database` its SHA-256; `blobs` has the bytes of each.

    `bucket` is where large inputs and results lie, or have lain, that are not in it.
    """

    format: int
    made_at: str
    version: str
    schema: int
    database: str
    database_bytes: int
    blobs: dict[str, int]
    payloads: dict[str, PayloadFile] = msgspec.field(default_factory=dict[str, PayloadFile])
    bucket: str | None = None

    @property
    def total_bytes(self) -> int:
        payloads = sum(file.bytes for file in self.payloads.values())
        return self.database_bytes + sum(self.blobs.values()) + payloads


def back_up(root: Path, target: Path, *, now: float, version: str) -> Manifest:
    """Copy the data directory `root`, in use or not, into the new folder `target`, for its owner alone.

    Raises `BadRequest` where there is nothing to copy, `Conflict` when `target` exists, `RunyardError` when the copy cannot
    be made or what is copied is damaged; then there is no `target`.
    """
    if not (root / DATABASE).is_file():
        raise BadRequest(f"{root} is no data directory of a platform: name it with --data-dir")
    if target.exists():
        raise Conflict(f"{target} exists: name a folder that does not, for no backup replaces another")
    if target.is_relative_to(root):
        raise BadRequest(f"{target} is inside the data directory: name a folder elsewhere, on another disk if you can")
    with _speaking_of(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            with _nothing_forgotten(root / PAYLOADS):
                _snapshot(root / DATABASE, draft / DATABASE)
                payloads = _copy_payloads(root / PAYLOADS, draft / PAYLOADS)
            blobs = _copy_blobs(root / BLOBS, draft / BLOBS)
            manifest = Manifest(
                format=FORMAT,
                made_at=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
                version=version,
                schema=_check_database(draft / DATABASE),
                database=_sha256(draft / DATABASE),
                database_bytes=(draft / DATABASE).stat().st_size,
                blobs=blobs,
                payloads=payloads,
                bucket=place_in(root),
            )
            _write(draft / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
            sync(draft)
            draft.rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return manifest


def restore(backup: Path, root: Path, *, now: float, key: Callable[[], tuple[str, str]]) -> Manifest:
    """Make the empty data directory `root` from a backup; `key` gives the id and secret of its new administrator's key.

    The caller holds the claim on `root`. Everything is checked before anything is there under its name. Raises `BadRequest`
    for what is no backup, or is newer than this version, `Conflict` when `root` is not empty, `RunyardError` for damage.
    """
    manifest = _manifest_of(backup)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    draft = root / RESTORING
    if (
        draft.exists() and not (root / DATABASE).exists()
    ):  # A restore was interrupted: nobody has served from here since.
        for name in (BLOBS, PAYLOADS):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / ADMIN_KEY).unlink(missing_ok=True)
    if there := sorted({entry.name for entry in root.iterdir()} - _OF_NO_IMPORTANCE):
        raise Conflict(f"{root} is not empty (it has {', '.join(there[:3])}): move it away, or name another --data-dir")
    shutil.rmtree(draft, ignore_errors=True)
    with _speaking_of(root):
        draft.mkdir(mode=0o700)
        for name in (BLOBS, PAYLOADS):
            (draft / name).mkdir(mode=0o700)
        for file, digest in _files(manifest):
            if _copy(backup / file, draft / file) != digest:
                raise RunyardError(f"{backup / file} is damaged (its SHA-256 is another): restore another backup")
        _check_database(draft / DATABASE)
        _add_key(draft, *key(), now)
        for name in (BLOBS, PAYLOADS):
            sync(draft / name)
        # The database last: with it, this is a data directory.
        for name in (BLOBS, PAYLOADS, ADMIN_KEY, DATABASE):
            (draft / name).rename(root / name)
            sync(root)
        shutil.rmtree(draft)
    return manifest


def sealed_in(root: Path) -> tuple[int, int]:
    """How many secrets and registry credentials a restored data directory has that open with the key file alone."""
    with closing(sqlite3.connect(f"{(root / DATABASE).as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute("select (select count() from secrets), (select count() from registries)").fetchone()


def check_whole(root: Path) -> None:
    """Raises `BadRequest` for a data directory that is being restored, or that a restore has left halfway."""
    if (root / RESTORING).exists() and not (root / DATABASE).exists():
        raise BadRequest(f"a restore into {root} runs, or was interrupted: wait for it, or run `runyard restore` again")


def _manifest_of(backup: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise BadRequest(f"{backup} is no backup: {os.strerror(error.errno or 0)} ({MANIFEST})") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"{backup / MANIFEST} cannot be read: {error}; restore another backup, or upgrade") from error
    newest = max(migrations_in())
    if manifest.format > FORMAT or manifest.schema > newest:
        raise BadRequest(
            f"{backup} was made by a newer Runyard ({manifest.version}, schema {manifest.schema}; this one knows {newest}): "
            "upgrade, then restore"
        )
    odd = [name for name in manifest.blobs if not _DIGEST.match(name)]
    odd += [name for name in manifest.payloads if job_in(name) is None]
    if odd:
        raise BadRequest(f"{backup / MANIFEST} names files that are none: {odd[0][:80]!r}; restore another backup")
    return manifest


def _files(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """All of a backup, and the SHA-256 of each."""
    yield Path(DATABASE), manifest.database
    for name in manifest.blobs:
        yield Path(BLOBS, name), name
    for name, file in manifest.payloads.items():
        yield Path(PAYLOADS, name), file.sha256


def _snapshot(source: Path, copy: Path) -> None:
    """As of one moment, without what was deleted. Writers go on; only the log beside the source grows meanwhile."""
    with closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True, isolation_level=None)) as connection:
        connection.execute("pragma busy_timeout = 30000")
        connection.execute("vacuum into ?", (str(copy),))
    copy.chmod(0o600)
    sync(copy)


def _copy_blobs(source: Path, copies: Path) -> dict[str, int]:
    """All that are whole: one that is being uploaded is not."""
    copies.mkdir(mode=0o700)
    sizes: dict[str, int] = {}
    for file in sorted(source.iterdir() if source.is_dir() else ()):
        if _DIGEST.match(file.name):
            if _copy(file, copies / file.name) != file.name:
                raise RunyardError(f"bundle {file} is damaged: remove it, deploy its endpoint again, then back up")
            sizes[file.name] = (copies / file.name).stat().st_size
    sync(copies)
    return sizes


def _nothing_forgotten(payloads: Path) -> AbstractContextManager[None]:
    return nothing_forgotten(payloads) if payloads.is_dir() else nullcontext()  # An older platform has made none.


def _copy_payloads(source: Path, copies: Path) -> dict[str, PayloadFile]:
    """All that are whole. Some are no job's any more: what restores will find that out."""
    copies.mkdir(mode=0o700)
    copied: dict[str, PayloadFile] = {}
    for file in sorted(source.iterdir() if source.is_dir() else ()):
        if job_in(file.name) is not None:
            digest = _copy(file, copies / file.name)
            copied[file.name] = PayloadFile(bytes=(copies / file.name).stat().st_size, sha256=digest)
    sync(copies)
    return copied


def _check_database(path: Path) -> int:
    """Its schema's number, if it is whole."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        found = [row[0] for row in connection.execute("pragma integrity_check(3)")]
        if found != ["ok"]:
            raise RunyardError(f"the database is damaged ({'; '.join(found)[:300]}): use another backup")
        return connection.execute("select max(number) from schema_version").fetchone()[0]


def _add_key(draft: Path, key_id: str, secret: str, now: float) -> None:
    """So that whoever restores gets in, though the backup opens nothing. Brings the schema up to date as well."""
    write_secret(draft / ADMIN_KEY, secret)
    values = {"id": key_id, "name": "admin", "digest": digest_of(secret), "created_at": now, "revoked_at": None}
    with closing(open_database(draft / DATABASE)) as database:
        with transaction(database):
            database.execute(named_queries(SQL / "control.sql")["add_key"], values)
        database.execute("pragma wal_checkpoint(truncate)")
    for log in ("-wal", "-shm"):
        (draft / f"{DATABASE}{log}").unlink(missing_ok=True)  # Empty, and they would not move with the file.


def _copy(source: Path, target: Path) -> str:
    """A synced copy, for its owner alone; its SHA-256."""
    seen = hashlib.sha256()
    with source.open("rb") as data, _new_file(target) as file:
        for chunk in iter(lambda: data.read(COPY_BYTES), b""):
            seen.update(chunk)
            file.write(chunk)
    return seen.hexdigest()


def _write(path: Path, data: bytes) -> None:
    with _new_file(path) as file:
        file.write(data)


@contextmanager
def _new_file(path: Path) -> Generator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _speaking_of(place: Path) -> Generator[None]:
    """What the operating system or SQLite refuses becomes an error that says where."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise RunyardError(f"cannot make {place}: {error}") from error
