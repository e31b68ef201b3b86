"""Answers for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

GAP = "  "
CUT = "…"


def json_option(command: _F) -> _F:
    """`--json`, which every command has that answers something."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON, for programs.")(command)


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    import msgspec

    click.echo(msgspec.json.encode(value))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they must be; the last one may run on."""
    for line in table_lines(header, rows):
        click.echo(line)


def table_lines(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def note(message: str) -> None:
    """A line for people, on stderr, so that stdout holds the answer alone."""
    click.echo(message, err=True)


def seconds(milliseconds: int | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.1f}s"


def cut(text: str, length: int) -> str:
    """The first line, at most `length` characters of it."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= length else line[: length - 1] + CUT


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
