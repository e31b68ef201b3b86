"""Files that must be whole and on disk when we say so."""

from __future__ import annotations

import os
from pathlib import Path


def write_secret(path: Path, secret: str) -> None:
    """Write it, mode 0600, in place of what was there: the file is replaced as a whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # Of a start that died here; its mode and owner may be anything.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
        file.flush()
        publish(file.fileno(), draft, path)


def replace_text(path: Path, text: str) -> None:
    """Write it, for its owner's folder, in place of what was there: whole or not at all, and perhaps not on disk yet."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text)
    draft.replace(path)


def publish(file: int, draft: Path, path: Path) -> None:
    """Give a written file its name: it never points at bytes that a crash can lose, nor does a crash take it away again."""
    os.fsync(file)
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(file: int, data: bytes | bytearray, at: int) -> None:
    """At its place, so that it can be tried again after a part of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
