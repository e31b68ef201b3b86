"""A Dockerfile's text, read as the Engine reads it, and added to.

Only as much is understood as it takes to know where an instruction ends: the parser directive `escape`, lines that go on
on the next one with comments and empty lines between, and here-documents. What looks like one but never ends is none: the
Engine will say what it thinks of it. Lines are only ever added, so that what their owner wrote stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

SCRATCH = "scratch"
PREDEFINED_ARGS = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
"""Build arguments that need no ARG."""
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"(?:^|(?<=\s))\d*<<(-?)([\"']?)([A-Za-z_][\w.]*)\2(?=\s|$)")
_WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})
_FROM = re.compile(r"(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*", re.IGNORECASE)
_COPY_FROM = re.compile(r"(?:^|\s)--from=(\S+)")
_ARG = re.compile(r"([A-Za-z_]\w*)(?:=(.*))?", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-+])([^}]*))?\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Instruction:
    """`text` is what follows the word, on one line; `last` is the index of its last line."""

    word: str
    text: str
    last: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What a FROM begins. `base` is None where an earlier stage is gone on with; `image` is the FROM's own word, with the
    variables in it replaced where their values are known.
    """

    image: str
    name: str | None
    base: int | None
    last: int
    """The index of the FROM's last line."""

    @property
    def from_nothing(self) -> bool:
        return self.base is None and self.image.lower() == SCRATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Altered:
    """A Dockerfile with additions."""

    text: str
    added: tuple[bool, ...]
    """Of each instruction, whether it is one of ours."""
    origins: tuple[int, ...]
    """Of each line, the number of the line that it was, or that it comes after; counted from 1."""

    def line_before(self, number: int) -> int:
        """Which line of the original is meant by this one."""
        return self.origins[number - 1] if 0 < number <= len(self.origins) else number


def instructions(text: str) -> list[Instruction]:
    lines = text.removeprefix("\ufeff").split("\n")
    escape = _escape(lines)
    going_on = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
    found: list[Instruction] = []
    at = 0
    while at < len(lines):
        if _is_nothing(lines[at]):
            at += 1
            continue
        whole, last = _logical(lines, at, going_on, escape)
        word, rest = [*whole.split(maxsplit=1), ""][:2]
        word = word.upper()
        if word in _WITH_HEREDOCS:
            last = _end_of_heredocs(lines, rest, last)
        found.append(Instruction(word, rest.strip(), last))
        at = last + 1
    return found


def stages(text: str, args: Mapping[str, str]) -> list[Stage]:
    """With these build arguments, which win over defaults that stand before the first FROM."""
    values: dict[str, str] = {}
    found: list[Stage] = []
    for each in instructions(text):
        if each.word == "ARG" and not found:
            _declare(values, each.text, args)
        elif each.word == "FROM" and (match := _FROM.fullmatch(each.text)):
            image = _filled(match[1], values)
            earlier = [number for number, stage in enumerate(found) if stage.name == image.lower()]
            name = match[2] and match[2].lower()
            found.append(Stage(image, name, earlier[-1] if earlier else None, each.last))
    return found


def images_of(text: str, args: Mapping[str, str]) -> list[str]:
    """The images that a build of it needs, each once: what it starts from and what it copies from. One whose name has
    variables without a value is left out.
    """
    there = stages(text, args)
    names = {stage.name for stage in there} | {str(number) for number in range(len(there))}
    wanted = [stage.image for stage in there if stage.base is None]
    for each in instructions(text):
        if each.word == "COPY":
            wanted += [image for image in _COPY_FROM.findall(each.text) if image.lower() not in names]
    return [image for image in dict.fromkeys(wanted) if image.lower() != SCRATCH and "$" not in image]


def with_lines(
    text: str,
    args: Mapping[str, str],
    *,
    first: Sequence[str] = (),
    trust: Sequence[str] = (),
    declared: Collection[str] = (),
) -> Altered:
    """After each FROM: `first` where an image is started from, and `trust` unless that is `scratch`; a stage that goes on
    with another has them from that one. In every stage that can run something ARG for the `declared` names.
    """
    there = stages(text, args)
    arguments = [f"ARG {name}" for name in declared if name not in PREDEFINED_ARGS]
    additions: dict[int, list[str]] = {}
    trusting: list[bool] = []
    for stage in there:
        has = stage.base is not None and trusting[stage.base]
        adds = not has and not stage.from_nothing
        trusting.append(has or adds)
        additions[stage.last] = [
            *(first if stage.base is None else ()),
            *(trust if adds else ()),
            *(() if stage.from_nothing else arguments),
        ]
    return _inserted(text, additions)


def _inserted(text: str, additions: Mapping[int, Sequence[str]]) -> Altered:
    lines: list[str] = []
    origins: list[int] = []
    for number, line in enumerate(text.split("\n")):
        new = additions.get(number, ())
        lines += [line, *new]
        origins += [number + 1] * (1 + len(new))
    added: list[bool] = []
    for each in instructions(text):
        added += [False, *(True for _ in additions.get(each.last, ()))]
    return Altered(text="\n".join(lines), added=tuple(added), origins=tuple(origins))


def _escape(lines: Sequence[str]) -> str:
    """Directives are comments before all else."""
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape" and match[2] in ("\\", "`"):
            return match[2]
    return "\\"


def _is_nothing(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _logical(lines: Sequence[str], at: int, going_on: re.Pattern[str], escape: str) -> tuple[str, int]:
    """The instruction that begins on this line, on one line, and the index of its last one."""
    parts: list[str] = []
    last = at
    for number in range(at, len(lines)):
        line = lines[number].rstrip("\r")
        if number > at and _is_nothing(line):
            continue
        last = number
        if not going_on.search(line):
            parts.append(line)
            break
        parts.append(line.rstrip(" \t").removesuffix(escape))
    return "".join(parts), last


def _end_of_heredocs(lines: Sequence[str], text: str, last: int) -> int:
    for dash, _, name in _HEREDOC.findall(text):
        for number in range(last + 1, len(lines)):
            line = lines[number].rstrip("\r")
            if (line.lstrip("\t") if dash else line) == name:
                last = number
                break
        else:
            break
    return last


def _declare(values: dict[str, str], text: str, args: Mapping[str, str]) -> None:
    for word in _words(text):
        match = _ARG.fullmatch(word)
        if match is None:
            continue
        if match[1] in args:
            values[match[1]] = args[match[1]]
        elif match[2] is not None:
            values[match[1]] = _filled(match[2].strip("\"'"), values)


def _words(text: str) -> Iterator[str]:
    """Split at blanks outside of quotes."""
    return iter(re.findall(r"(?:[^\s\"']|\"[^\"]*\"|'[^']*')+", text))


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Variables replaced; those without a value stay as they are."""

    def value(match: re.Match[str]) -> str:
        name, how, other = match[1] or match[4], match[2], match[3]
        known = values.get(name, "")
        if how == "+":
            return other if known else ""
        return known or (other if how == "-" else match[0])

    return _VARIABLE.sub(value, text)
