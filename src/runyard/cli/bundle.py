"""Packs sources into a bundle: a tar.gz of which every byte follows from the files' names, contents and x-bits.

So the same sources have the same digest wherever and whenever they are packed, and travel once (decision 6).
"""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from runyard.cli.dockerignore import Dockerignore
from runyard.cli.ignore import files_of

BUNDLE_BYTES_MAX = 200 << 20
FILES_MAX = 50_000
LARGEST_SHOWN = 10
HANDLER_FILES = ("handler.py", "rp_handler.py", "src/handler.py")
REQUIREMENTS = "requirements.txt"

Files = tuple[tuple[str, Path], ...]
"""By path in the bundle."""
Progress = Callable[[int, int], None]
"""Takes how much is done, and how much there is."""


class CannotPack(Exception):
    """These sources make no bundle; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What to pack, and which of the files is the handler."""

    files: Files
    handler: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed bundle; `digest` is its SHA-256 in hex."""

    digest: str
    size: int


def gather(target: Path, handler: str | None) -> Sources:
    """The sources at `target`: a handler file, with the requirements beside it, or a folder. Raises `CannotPack`."""
    if target.is_file():
        if handler is not None and handler != target.name:
            raise CannotPack(f"--handler {handler} is not {target.name}: leave it out, or deploy the folder")
        beside = target.with_name(REQUIREMENTS)
        files = [(target.name, target), *([(REQUIREMENTS, beside)] if beside.is_file() else [])]
        return Sources(_checked(sorted(files)), target.name)
    if not target.is_dir():
        raise CannotPack(f"{target} is neither a file nor a folder")
    try:
        files = list(files_of(target))
    except ValueError as error:
        raise CannotPack(f"an ignore file in {target} has a pattern that cannot be read: {error}") from error
    _check_links(target, files)
    return Sources(_checked(files), _handler_in(files, handler, target))


def gather_context(folder: Path, dockerfile: str) -> Files:
    """What an image is built of: the files at `folder`, of which `dockerfile` is one, whatever is left out."""
    try:
        left_out = Dockerignore.of(folder, dockerfile)
        files = dict(files_of(folder, left_out))
    except ValueError as error:
        raise CannotPack(f"an ignore file in {folder} has a pattern that cannot be read: {error}") from error
    files[dockerfile] = folder / dockerfile
    packed = sorted(files.items())
    _check_links(folder, packed)
    return _checked(packed)


def pack(sources: Files, out: IO[bytes], progress: Progress, bytes_max: int = BUNDLE_BYTES_MAX) -> Bundle:
    """Write the bundle. Raises `CannotPack`, naming the largest files, when it would be larger than `bytes_max`."""
    limited = _Limited(out, bytes_max)
    try:
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=limited, compresslevel=6, mtime=0) as zipped,  # pyright: ignore
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for number, (name, path) in enumerate(sources):
                progress(number, len(sources))
                _add(tar, name, path)
    except _Full:
        raise CannotPack(_too_large(sources, bytes_max)) from None
    except OSError as error:
        raise CannotPack(f"cannot read the sources: {error}") from error
    progress(len(sources), len(sources))
    return Bundle(limited.digest.hexdigest(), limited.size)


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    with path.open("rb") as file:
        status = path.stat()
        info.size = status.st_size
        info.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        tar.addfile(info, file)


def _checked(files: Sequence[tuple[str, Path]]) -> Files:
    if len(files) > FILES_MAX:
        raise CannotPack(f"there are {len(files)} files, and a bundle holds {FILES_MAX}: list some in .runpodignore")
    return tuple(files)


def _handler_in(files: Sequence[tuple[str, Path]], asked: str | None, folder: Path) -> str:
    names = {name for name, _ in files}
    wanted = HANDLER_FILES if asked is None else (str(PurePosixPath(asked)),)
    found = next((name for name in wanted if name in names), None)
    if found is not None:
        return found
    if asked is None:
        raise CannotPack(f"{folder} has none of {', '.join(HANDLER_FILES)}: name the handler's file with --handler")
    if not (folder / asked).resolve().is_relative_to(folder.resolve()):
        raise CannotPack(f"--handler {asked} is outside {folder}: it must be a file of the folder that is deployed")
    there = " It is there, but an ignore file leaves it out." if (folder / asked).is_file() else ""
    raise CannotPack(f"{folder} has no file {asked} to pack.{there}")


def _check_links(root: Path, files: Sequence[tuple[str, Path]]) -> None:
    """A bundle has no links: one to a file of the folder is packed as that file, any other is refused."""
    base = root.resolve()
    for name, path in files:
        if path.is_symlink() and not _leads_to_file_in(base, path):
            raise CannotPack(
                f"{name} is a link, and not to a file of this folder: put a copy there, or list it in .runpodignore"
            )


def _leads_to_file_in(base: Path, link: Path) -> bool:
    try:
        return link.is_file() and link.resolve().is_relative_to(base)
    except (OSError, RuntimeError):  # It leads to itself, or where we may not look.
        return False


def _too_large(sources: Files, bytes_max: int) -> str:
    sizes = sorted(((path.stat().st_size, name) for name, path in sources), reverse=True)[:LARGEST_SHOWN]
    largest = "\n".join(f"  {size / 1e6:10.1f} MB  {name}" for size, name in sizes)
    return (
        f"the bundle would be larger than {bytes_max >> 20} MB. Its largest files:\n{largest}\n"
        "List what is not needed in .runpodignore, and have the handler download its models"
    )


class _Full(Exception):
    """More bytes than allowed."""


class _Limited:
    """A binary file that counts and hashes what goes through."""

    def __init__(self, out: IO[bytes], bytes_max: int) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._out = out
        self._bytes_max = bytes_max

    def write(self, data: bytes) -> int:
        self.size += len(data)
        if self.size > self._bytes_max:
            raise _Full
        self.digest.update(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()
