"""What a build gets to see: the files of a bundle, as a tar, with the Dockerfile that is sent in place of its own."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from runyard.adapters.runtimes.bundles import opened
from runyard.domain.errors import BuildFailed

DOCKERFILE_BYTES_MAX = 1 << 20
CANDIDATES_MAX = 10


def path_in_bundle(name: str) -> str:
    """Raises `BuildFailed` for what is outside of it."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise BuildFailed(f"the Dockerfile {name!r} must be a path inside the folder that is deployed")
    return str(path)


def dockerfile_in(archive: Path, digest: str, name: str) -> str:
    """Its text. Raises `BuildFailed` when the bundle has none of that name, or it is no text."""
    others: list[str] = []
    with opened(archive, digest) as members:
        for member, content in members:
            path = PurePosixPath(member.name)
            if content is not None and str(path) == name:
                return _text(content, name)
            if "dockerfile" in path.name.lower():
                others.append(str(path))
    there = ", ".join(sorted(others)[:CANDIDATES_MAX]) or "no file that is called so"
    raise BuildFailed(f"the bundle has no {name}; it has {there}; name one with --dockerfile")


def write_context(archive: Path, digest: str, name: str, dockerfile: str, target: IO[bytes]) -> None:
    """The bundle's files, with this text as the file `name`. Raises `BuildFailed`."""
    with opened(archive, digest) as members, tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            if content is not None and str(PurePosixPath(member.name)) == name:
                add(tar, member.name, dockerfile.encode())
            else:
                tar.addfile(member, content)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file of nobody in particular and no time, so that the same content is the same to the Engine's cache."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _text(content: IO[bytes], name: str) -> str:
    data = content.read(DOCKERFILE_BYTES_MAX + 1)
    if len(data) > DOCKERFILE_BYTES_MAX:
        raise BuildFailed(f"{name} is larger than {DOCKERFILE_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BuildFailed(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from error
