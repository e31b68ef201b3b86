"""What `runyard deploy TARGET` names: sources that run as processes, a folder that an image is built of, or an image.

1. What is there as a file or folder is that. A folder with a Dockerfile is built, unless it is to run as a process.
2. What is not there, and reads as an image reference, is an image. What begins with `./`, `../`, `/` or `~`, or ends like a
   folder or a Python file, never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

DOCKERFILE = "Dockerfile"
_STARTS, _ENDS = ("./", "../", "/", "~"), ("/", ".py")


@dataclass(frozen=True, slots=True)
class Sources:
    """A handler's file or its folder, to run as a process."""

    path: Path


@dataclass(frozen=True, slots=True)
class Build:
    """A folder, and the file in it that says how an image is built."""

    path: Path
    dockerfile: str


@dataclass(frozen=True, slots=True)
class Image:
    reference: str


Target = Sources | Build | Image


def target_of(text: str, runtime: str | None, dockerfile: str | None) -> Target:
    """`runtime` and `dockerfile` are the flags. Raises `click.UsageError` for what cannot be deployed so."""
    if runtime == "process" and dockerfile is not None:
        raise click.UsageError("--dockerfile is for containers: leave it out, or --runtime process")
    if not text:
        raise click.UsageError("TARGET is empty: name a handler's file, a folder or an image; `.` is this folder")
    path = Path(text)
    if not path.exists():
        return _image(text, runtime)
    if path.is_dir():
        return _folder(path.resolve(), text, runtime, dockerfile)
    if path.suffix != ".py":
        raise click.UsageError(f"{text} is not a Python file: name a handler's file or a folder")
    if runtime == "docker" or dockerfile is not None:
        raise click.UsageError(
            f"{text} is a file, and containers are made of a folder with a Dockerfile: name the folder"
        )
    return Sources(path.resolve())


def _image(text: str, runtime: str | None) -> Image:
    from runyard.domain.container import check_image
    from runyard.domain.errors import BadRequest

    missing = f"there is no file or folder {text}"
    if text in (".", "..") or text.startswith(_STARTS) or text.endswith(_ENDS):
        raise click.UsageError(missing)
    try:
        check_image(text)
    except BadRequest:
        raise click.UsageError(
            f"{missing}, and it is no image reference either: those read [HOST/]NAME[:TAG][@sha256:...]"
        ) from None
    if runtime == "process":
        raise click.UsageError(f"{missing}, and as an image it runs as a container: leave out --runtime process")
    return Image(text)


def _folder(path: Path, text: str, runtime: str | None, dockerfile: str | None) -> Sources | Build:
    if dockerfile is not None:
        return Build(path, _in_folder(path, text, dockerfile))
    there = (path / DOCKERFILE).is_file()
    if runtime == "docker" and not there:
        raise click.UsageError(
            f"{text} has no {DOCKERFILE}: write one, or name it with --dockerfile; --runtime process runs the handler "
            "without"
        )
    return Build(path, DOCKERFILE) if there and runtime != "process" else Sources(path)


def _in_folder(path: Path, text: str, dockerfile: str) -> str:
    """From the folder, or as docker has it from where one is."""
    for file in (path / dockerfile, Path(dockerfile)):
        if file.is_file() and (found := file.resolve()).is_relative_to(path):
            return found.relative_to(path).as_posix()
    raise click.UsageError(f"--dockerfile {dockerfile}: {text} has no such file, and it must be one of that folder")
