"""Which files of a folder belong to a bundle: all but what its `.gitignore` and `.runpodignore` files leave out.

They are read in every folder, with git's rules: the last pattern that matches decides, deeper files overrule higher ones,
and nothing comes back from a folder that is left out. In one folder `.runpodignore` comes last, so that `!weights/` there
brings in what git does not keep. Some folders never belong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".runpodignore")
NEVER = frozenset({".git", "__pycache__", ".venv"})


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one folder; `base` is its path from the root, with a slash at its end unless it is the root."""

    base: str
    spec: GitIgnoreSpec


class Filter(Protocol):
    """Leaves out more, by paths from the root."""

    def leaves_out(self, path: str) -> bool: ...

    def leaves_out_all_of(self, folder: str) -> bool: ...


def files_of(root: Path, also: Filter | None = None) -> Iterator[tuple[str, Path]]:
    """Regular files and symbolic links as (path from the root, path), in a fixed order.

    Sockets, pipes and devices are passed over; links come as they are and are not entered. Raises `ValueError` for a
    pattern that cannot be read.
    """
    for name, path in _walk(root, "", (), also):
        if also is None or not also.leaves_out(name):
            yield name, path


def _walk(folder: Path, base: str, above: tuple[_Rules, ...], also: Filter | None) -> Iterator[tuple[str, Path]]:
    rules = above + _rules_in(folder, base)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = base + entry.name
        is_folder = entry.is_dir() and not entry.is_symlink()
        if entry.name in NEVER or _left_out(name + "/" if is_folder else name, rules):
            continue
        if is_folder:
            if also is None or not also.leaves_out_all_of(name):
                yield from _walk(entry, name + "/", rules, also)
        elif entry.is_file() or entry.is_symlink():
            yield name, entry


def _rules_in(folder: Path, base: str) -> tuple[_Rules, ...]:
    lines: list[str] = []
    for name in IGNORE_FILES:
        file = folder / name
        if file.is_file():
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
    return (_Rules(base, GitIgnoreSpec.from_lines(lines)),) if lines else ()


def _left_out(name: str, rules: tuple[_Rules, ...]) -> bool:
    for rule in reversed(rules):
        verdict = rule.spec.check_file(name.removeprefix(rule.base)).include
        if verdict is not None:
            return verdict
    return False
