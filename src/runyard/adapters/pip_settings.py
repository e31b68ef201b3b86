"""The operator's pip settings, for uv, which does not read them.

Where packages come from is set up once on many machines, in pip's terms: an index of the company, a folder of wheels, a
certificate. pip's files and variables are read here as pip does it: each later source replaces a setting of an earlier
one. For `pip install`, in rising precedence: `[global]`, `[install]`, `PIP_*`; each over the files of all levels.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LISTS = {
    "find-links": "--find-links",
    "extra-index-url": "--extra-index-url",
    "trusted-host": "--allow-insecure-host",
    "no-binary": "--no-binary",
    "only-binary": "--only-binary",
}
"""Settings of many values, divided by white space, and uv's flag for each."""
COMMAS = frozenset({"no-binary", "only-binary"})
"""Those that commas may divide, too."""
TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


@dataclass(frozen=True, slots=True)
class UvSettings:
    """What to tell uv."""

    flags: tuple[str, ...] = ()
    """For resolving and for installing."""
    resolve_flags: tuple[str, ...] = ()
    """For resolving alone, besides."""
    constraints: tuple[str, ...] = ()
    """Files or URLs; for resolving alone."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    folders: tuple[Path, ...] = ()
    """Local folders that uv must be able to read."""


def read(
    environ: Mapping[str, str] = os.environ,
    home: Path | None = None,
    prefix: Path | None = None,
    etc: Path = Path("/etc"),
) -> dict[str, str]:
    """The settings of `pip install`, by name."""
    files = list(_files(environ, home or Path.home(), prefix or Path(sys.prefix), etc))
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        for file in files:
            settings |= _section(file, section)
    for name, value in environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE" and value:
            settings[_normal(name.removeprefix("PIP_"))] = value
    return settings


def for_uv(settings: Mapping[str, str]) -> UvSettings:
    """The same meaning in uv's words. What has none there (`user`, `progress-bar`...) is left out."""
    flags = [part for name, flag in LISTS.items() for value in _values(settings, name) for part in (flag, value)]
    if index := settings.get("index-url"):
        flags += ["--index-url", index]
    if _on(settings, "no-index"):
        flags.append("--no-index")
    # pip takes the best version of all indexes; uv by itself stops at the first index that has the name.
    flags.append("--index-strategy=unsafe-best-match")
    return UvSettings(
        flags=tuple(flags),
        resolve_flags=("--prerelease=allow",) if _on(settings, "pre") else (),
        constraints=tuple(_values(settings, "constraint")),
        env=dict(_env(settings)),
        folders=tuple(folder for value in _values(settings, "find-links") if (folder := Path(value)).is_dir()),
    )


def _files(environ: Mapping[str, str], home: Path, prefix: Path, etc: Path) -> Iterator[Path]:
    """In rising precedence: machine, user, environment, named one."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    machine = environ.get("XDG_CONFIG_DIRS") or str(etc / "xdg")
    yield from (Path(folder, "pip/pip.conf") for folder in machine.split(os.pathsep))
    yield etc / "pip.conf"
    yield home / ".pip/pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")
    yield prefix / "pip.conf"
    if named:
        yield Path(named)


def _section(file: Path, section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        # pip refuses to work with a broken file; a platform that runs already does better to go on.
        return {}
    return {_normal(name): value for name, value in parser.items(section)} if parser.has_section(section) else {}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "").lower() in TRUE


def _values(settings: Mapping[str, str], name: str) -> list[str]:
    """A setting of many values. `~` is the operator's home, which is not the one that a build has."""
    text = settings.get(name, "")
    values = (text.replace(",", " ") if name in COMMAS else text).split()
    return [str(Path(value).expanduser()) if value.startswith("~") else value for value in values]


def _env(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if cert := settings.get("cert"):
        yield "SSL_CERT_FILE", cert
    if client_cert := settings.get("client-cert"):
        yield "SSL_CLIENT_CERT", client_cert
    if proxy := settings.get("proxy"):
        yield "ALL_PROXY", proxy
    if timeout := settings.get("timeout", settings.get("default-timeout")):
        yield "UV_HTTP_TIMEOUT", timeout
