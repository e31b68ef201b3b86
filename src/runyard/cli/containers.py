"""Flags of `runyard deploy` that only containers have, and what they are on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([mg])(?:i?b)?\Z", re.IGNORECASE)
_MB = {"m": 1, "g": 1024}
_BUILDING = ("build_args",)


class Size(click.ParamType[int]):
    """Memory as in 512m or 1.5g, in MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.match(str(value).strip())
        if match is None or (size := int(float(match[1]) * _MB[match[2].lower()])) < 1:
            self.fail(f"{value!r} is no size: write it as in 512m or 2g", param, ctx)
        return size


_OPTIONS = (
    click.option(
        "--dockerfile", metavar="FILE", help="Build the image by this file of the folder.  [default: Dockerfile]"
    ),
    click.option(
        "--build-arg", "build_args", multiple=True, metavar="K=V", help="Build argument; repeatable, replaces them all."
    ),
    click.option("--entrypoint", metavar="WORDS", help="In place of the image's entry point; '' is the image's."),
    click.option("--args", metavar="WORDS", help="What the entry point is given; '' is what the image says."),
    click.option("--disk", type=click.IntRange(1), metavar="GB", help="Disk that a container may fill."),
    click.option("--memory", type=Size(), metavar="SIZE", help="Memory of a container, as in 512m or 2g."),
    click.option("--cpus", type=click.FloatRange(0.01), help="CPUs of a container, as in 1.5."),
    click.option("--shm", type=Size(), metavar="SIZE", help="Shared memory (/dev/shm) of a container."),
    click.option("--pids", type=click.IntRange(1), help="Processes and threads of a container."),
    click.option(
        "--port", "ports", multiple=True, metavar="PORT", help="Port, as in 8000/http; repeatable, replaces them all."
    ),
    click.option("--registry", metavar="CREDENTIAL", help="Registry credential (an id or a name); '' is none."),
)
_FLAGS = {"build_args": "--build-arg", "ports": "--port"}
NAMES = ("build_args", "entrypoint", "args", "disk", "memory", "cpus", "shm", "pids", "ports", "registry")


def container_options(command: _F) -> _F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_container(flags: dict[str, Any]) -> dict[str, Any]:
    """Those that were given, taken out of `flags`."""
    values = {name: flags.pop(name) for name in NAMES}
    return {name: value for name, value in values.items() if value not in (None, ())}


def refuse(given: dict[str, Any], why: str, *, building_only: bool = False) -> None:
    """Raises `click.UsageError` if any was given, of all or of those about building."""
    for name in given:
        if not building_only or name in _BUILDING:
            raise click.UsageError(f"{_FLAGS.get(name, f'--{name}')}: {why}")


def container_body(given: dict[str, Any], registry_id: Callable[[str], str]) -> dict[str, Any]:
    """The fields of a create or update body; `registry_id` finds the id of a credential by its id or name."""
    body: dict[str, Any] = {name: given[name] for name in ("args", "disk") if name in given}
    if "ports" in given:
        body["ports"] = list(given["ports"])
    if "registry" in given:
        body["registry"] = registry_id(given["registry"]) if given["registry"] else None
    ours: dict[str, Any] = {}
    if "build_args" in given:
        ours["buildArgs"] = pairs("--build-arg", given["build_args"])
    if "entrypoint" in given:
        ours["entrypoint"] = _words("--entrypoint", given["entrypoint"])
    limits = {"cpus": "cpus", "memory": "memoryMb", "shm": "shmMb", "pids": "pids"}
    if named := {limits[name]: given[name] for name in limits if name in given}:
        ours["limits"] = named
    return body | ({"runyard": ours} if ours else {})


def pairs(flag: str, given: tuple[str, ...]) -> dict[str, str]:
    """Raises `click.UsageError` for one that is not NAME=VALUE."""
    split = [pair.partition("=") for pair in given]
    if wrong := next((pair for pair, (name, sign, _) in zip(given, split, strict=True) if not (name and sign)), None):
        raise click.UsageError(f"{flag} {wrong}: write it as NAME=VALUE")
    return {name: value for name, _, value in split}


def _words(flag: str, text: str) -> list[str]:
    from runyard.domain.container import split_words
    from runyard.domain.errors import BadRequest

    try:
        return list(split_words(flag, text))
    except BadRequest as error:
        raise click.UsageError(error.message) from error
