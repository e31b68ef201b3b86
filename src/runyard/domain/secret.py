"""Secrets: values that stand outside of code and settings, and are named in them.

A value of an environment variable names one as `{{ RUNPOD_SECRET_name }}` (contract E.1, F115), in exactly this form, with
any blanks inside the braces, alone or beside other text. What has another form is text like any other. A worker gets the
value; nobody else ever does, so what workers and builders say is redacted (`Redactor`) before it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NewType
from urllib.parse import quote, quote_plus

from runyard.domain.errors import BadRequest

RegistryId = NewType("RegistryId", str)
Env = tuple[tuple[str, str], ...]

NAME_LENGTH_MAX = 128
VALUE_BYTES_MAX = 64 * 1024
SECRETS_MAX = 1000
REGISTRIES_MAX = 1000
FORMER_MAX = 100
"""Former values of one secret that workers may still have."""
REDACTED_LENGTH_MIN = 6
"""Characters. What is shorter stands in lines by chance, and redacting it would tell more than it hides."""

_NAME = rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{NAME_LENGTH_MAX - 1}}}"
_REFERENCE = re.compile(rf"\{{\{{[ \t]*RUNPOD_SECRET_({_NAME})[ \t]*\}}\}}")
_QUOTES = "\"'"
_SERVER = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
    r"(?::\d{1,5})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret as it is kept: `sealed` opens with the platform's key alone. `updated_at` is when its value was last set."""

    name: str
    sealed: bytes = field(repr=False)
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerSecret:
    """A value that a secret had until `replaced_at`, kept while workers may have it in their environment."""

    id: int
    name: str
    sealed: bytes = field(repr=False)
    replaced_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Who we are to a registry of images; user and password are in `sealed`. `server` None means any registry."""

    id: RegistryId
    name: str
    server: str | None
    sealed: bytes = field(repr=False)
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a runtime logs in to a registry with. It may be sent to `server` alone; None: to whichever has the image."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    server: str | None


def check_secret_name(name: str) -> None:
    """Raises `BadRequest`."""
    if not re.fullmatch(_NAME, name):
        raise BadRequest(
            f"the name of a secret has 1 to {NAME_LENGTH_MAX} of A-Z a-z 0-9 _ . - and begins with a letter, a digit or _; "
            f"not {name[:80]!r}"
        )


def check_value(value: str) -> None:
    """It must be able to stand in an environment. Raises `BadRequest`, which says nothing about what it is."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadRequest("the value of a secret must be UTF-8 text") from None  # The cause would show it.
    if not 0 < size <= VALUE_BYTES_MAX:
        raise BadRequest(f"the value of a secret has 1 to {VALUE_BYTES_MAX} bytes, not {size}")
    if "\0" in value:
        raise BadRequest("the value of a secret contains a NUL character")


def check_server(server: str) -> str:
    """The server of a registry as images name it: `HOST` or `HOST:PORT`, in lower case. Raises `BadRequest`."""
    if not _SERVER.fullmatch(server) or len(server) > NAME_LENGTH_MAX:
        raise BadRequest(
            f"server must be HOST or HOST:PORT, as in the names of the registry's images, not {server[:80]!r}; leave it out "
            "for any registry"
        )
    return server.lower()


def references(env: Env) -> dict[str, str]:
    """The secrets that an environment names, each with the first variable that does."""
    found: dict[str, str] = {}
    for variable, value in env:
        for name in _REFERENCE.findall(value) if "{{" in value else ():
            found.setdefault(name, variable)
    return found


def filled(env: Env, values: Mapping[str, str]) -> dict[str, str]:
    """The environment with the values of all secrets that it names; what they hold is not looked into again."""
    return {name: _REFERENCE.sub(lambda found: values[found[1]], value) for name, value in env}


class Redactor:
    """Replaces values of secrets by `[secret name]`, line by line where they have several lines, and as they look escaped in
    JSON, in Python's `repr` and in URLs. It guards against slips: a handler that wants to tell a secret finds a way.
    """

    def __init__(self, values: Iterable[tuple[str, str]] = ()) -> None:
        """`values` are names and what is not to be shown."""
        forms = {form: name for name, value in sorted(values) for form in _forms(value)}
        # The longest first: one that is a part of another would leave the rest of that.
        self._marks = [(form, f"[secret {forms[form]}]") for form in sorted(forms, key=len, reverse=True)]

    def __call__(self, line: str) -> str:
        for form, mark in self._marks:
            if form in line:
                line = line.replace(form, mark)
        return line


def _forms(value: str) -> Iterator[str]:
    for piece in {value.strip(), *(line.strip() for line in value.splitlines())}:
        if len(piece) >= REDACTED_LENGTH_MIN:
            escaped = json.dumps(piece)[1:-1]
            yield piece
            yield escaped
            yield json.dumps(escaped)[1:-1]  # JSON in a log line that is JSON.
            yield json.dumps(piece, ensure_ascii=False)[1:-1]
            yield repr(piece)[1:-1]
            yield repr(f"{piece}{_QUOTES}")[1 : -1 - len(repr(_QUOTES)[1:-1])]  # Beside text that has quotes.
            yield repr(piece.encode())[2:-1]
            yield quote(piece, safe="")
            yield quote(piece)  # As by default: slashes stay.
            yield quote_plus(piece)
