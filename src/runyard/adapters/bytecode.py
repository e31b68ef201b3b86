"""Bytecode for new environments, taken from older ones where the source is the very same file.

Compiling costs more than all else in a build whose packages are in the cache. Files that the fetcher installs are links
to its cache, so environments that have a release of a package in common share its files; then they can share what was
compiled from them. Nobody but the fetcher can have such a file, so no bytecode of strangers gets in this way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from runyard.adapters.runtimes import rooms

FEW = 200
"""So many files are compiled one by one; for more, going through all of them with all cores is quicker."""

_SUFFIX = f".{sys.implementation.cache_tag}.pyc"


def to_compile(place: Path, donors: Sequence[Path], uid: int | None) -> list[Path]:
    """What is left to compile in the environment `place` after taking what `donors` have; folders are compiled whole."""
    missing = [source for folder, names in _sources(place) for source in _take(place, folder, names, donors, uid)]
    return missing if len(missing) <= FEW else [place / "lib"]


def _sources(place: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, folders, files in os.walk(place / "lib"):
        with suppress(ValueError):
            folders.remove("__pycache__")
        if names := [name for name in files if name.endswith(".py")]:
            yield os.path.relpath(folder, place), names


def _take(place: Path, folder: str, names: Sequence[str], donors: Sequence[Path], uid: int | None) -> Iterator[Path]:
    """Take the bytecode of one folder's sources; yields the sources that nobody has it of."""
    own = place / folder / "__pycache__"
    for name in names:
        source, bytecode = place / folder / name, name.removesuffix(".py") + _SUFFIX
        for donor in donors:
            if _same(source, donor / folder / name) and _link(donor / folder / "__pycache__" / bytecode, own, uid):
                break
        else:
            yield source


def _link(bytecode: Path, folder: Path, uid: int | None) -> bool:
    with suppress(FileNotFoundError):
        if not folder.exists():
            folder.mkdir()
            rooms.hand_over(folder, uid)
        (folder / bytecode.name).hardlink_to(bytecode)
        return True
    return False


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
