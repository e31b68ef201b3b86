"""What a bundle asks for, and what the builder answers: text in pip's requirements format, and uv's complaints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

DEFAULT_SDK = "runpod==1.12.0"
"""What a bundle gets that does not name the SDK itself: the release that the compatibility promise is about."""

REASON_LENGTH_MAX = 500

_OPTIONS = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links|--no-index)\b")
_SDK = re.compile(r"runpod\s*($|[\[=<>!~;@#,\s])|.*\brunpod-python\b", re.IGNORECASE)
_LOCAL = re.compile(r"(-e\s|--editable\b|\.|/|file:)|.*\s@\s*file:")


def requirements_file(bundle: Path, handler: str) -> PurePosixPath | None:
    """The bundle's requirements, as a path in it: at the root, next to the handler, or where worker images keep it."""
    folders = (PurePosixPath(), PurePosixPath(handler).parent, PurePosixPath("builder"))
    names = (folder / "requirements.txt" for folder in folders)
    return next((name for name in names if (bundle / name).is_file()), None)


def names_sdk(requirements: str) -> bool:
    """Whether one of the lines is the SDK, as a name with or without a version, or as its repository."""
    return any(_SDK.match(line) for line in _lines(requirements))


def has_local(requirements: str) -> bool:
    """Whether one of the lines is a path, whose content the text does not tell."""
    return any(_LOCAL.match(line) for line in _lines(requirements))


def lock_text(resolved: str, requirements: str) -> str:
    """The lock: exact pins, and where the bundle itself says that packages come from.

    Nothing is installed as editable: the sources that it would point to are gone when the worker runs.
    """
    options = [line for line in _lines(requirements) if _OPTIONS.match(line)]
    pins = [re.sub(r"^(-e|--editable)[\s=]+", "", line) for line in _lines(resolved)]
    return "".join(f"{line}\n" for line in (*options, *pins))


def reason(output: Sequence[str]) -> str:
    """The few words of uv's output that say what is wrong: the error, its causes, and how a build's own output ends."""
    start = next((number for number, line in enumerate(output) if line.startswith("error:")), len(output))
    told = [line.strip() for line in output[start:] if line.strip()]
    words = [line.partition(":")[2].strip() for line in told if line.startswith(("error:", "cause:"))]
    if any(line.startswith("[std") for line in told):
        words += [line for line in told if not line.startswith(("hint:", "error:", "cause:"))][-1:]
    return ": ".join(words)[:REASON_LENGTH_MAX] or _last(output)


def _last(output: Iterable[str]) -> str:
    return next((line.strip() for line in reversed(list(output)) if line.strip()), "it gave no reason")[
        :REASON_LENGTH_MAX
    ]


def _lines(text: str) -> list[str]:
    """The lines that say something, without comments, continued ones joined."""
    joined = re.sub(r"\\\r?\n", " ", text)
    return [line for raw in joined.splitlines() if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]
