"""Docker's rules of what stays out of a build: `.dockerignore` at the root of the folder, or `NAME.dockerignore` beside the
Dockerfile, which then counts alone.

They are not git's. Patterns hold from the root of the folder; a slash in front changes nothing; `*` and `?` stay within one
name, and `**` goes over any number of folders. What lies in a folder that matches is left out, too, but `!` brings it back,
also from there. The last pattern that matches decides.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCKERIGNORE = ".dockerignore"
_SPECIAL = re.compile(r"[*?\[\\]")
_IN_CLASS, _ESCAPED = re.compile(r"[\[&|~]"), r"\\\g<0>"
"""What Python would take for more than itself there."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    matching: re.Pattern[str]
    brings_back: bool


class Dockerignore:
    """The patterns of one folder."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Raises `ValueError` for a pattern that cannot be read."""
        self._patterns = tuple(_pattern(line) for line in map(_cleaned, lines) if line)
        self._brings_back = any(pattern.brings_back for pattern in self._patterns)

    @classmethod
    def of(cls, folder: Path, dockerfile: str) -> Dockerignore:
        """What the folder's file says, if it has one. Raises `ValueError`."""
        for file in (folder / f"{dockerfile}{DOCKERIGNORE}", folder / DOCKERIGNORE):
            if file.is_file():
                return cls(file.read_text(encoding="utf-8-sig", errors="replace").splitlines())
        return cls(())

    def leaves_out(self, path: str) -> bool:
        """Of a file, by its path from the root."""
        parts = path.split("/")
        paths = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        out = False
        for pattern in self._patterns:
            if any(map(pattern.matching.fullmatch, paths)):
                out = not pattern.brings_back
        return out

    def leaves_out_all_of(self, folder: str) -> bool:
        """Nothing in this folder can come back."""
        return not self._brings_back and self.leaves_out(folder)


def _cleaned(line: str) -> str:
    """The pattern, with its `!`, as Docker takes it; empty for none."""
    if line.startswith("#"):
        return ""
    text = line.strip()
    sign = "!" if text.startswith("!") else ""
    text = text.removeprefix(sign).strip()
    if not text:
        if sign:
            raise ValueError(f"{line!r}: a ! without a pattern")
        return ""
    text = posixpath.normpath(text).lstrip("/")
    return sign + text if text else ""


def _pattern(text: str) -> _Pattern:
    brings_back = text.startswith("!")
    pattern = text.removeprefix("!") if brings_back else text
    try:
        return _Pattern(re.compile(_expression(pattern), re.DOTALL), brings_back)
    except re.error as error:
        raise ValueError(f"{text!r}: {error}") from error


def _expression(pattern: str) -> str:
    """As moby's patternmatcher has it, which is Go's `filepath.Match` with `**`."""
    said, at = "", 0
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*" and pattern[at : at + 1] == "*":
            first, slash = at == 1, pattern[at + 1 : at + 2] == "/"
            at += 1 + slash
            anything = at >= len(pattern) or (first and not slash and not _SPECIAL.search(pattern, at))
            said += ".*" if anything else "(?:.*/)?"
        elif one in "*?":
            said += "[^/]*" if one == "*" else "[^/]"
        elif one == "\\":
            said += re.escape(pattern[at : at + 1]) or r"\\"
            at += 1
        elif one == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise ValueError(f"{pattern!r}: a [ without a ]")
            said += f"[{_IN_CLASS.sub(_ESCAPED, pattern[at:end])}]"
            at = end + 1
        else:
            said += re.escape(one)
    return said
