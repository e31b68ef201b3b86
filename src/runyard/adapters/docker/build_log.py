"""What the classic builder says, made into lines for people: steps in their own numbers, without its bookkeeping."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runyard.adapters.runtimes.lines import LineSplitter

TAIL_LINES = 20
STEP_LENGTH_MAX = 160
_STEP = re.compile(r"STEP (\d+)/(\d+) ?: (.*)", re.IGNORECASE | re.DOTALL)
_COLOURS = re.compile(r"\x1b\[(?:91|0)m")
"""The Engine paints standard error red."""
_BOOKKEEPING = re.compile(
    r" ---> [0-9a-f]{12}| ---> Running in [0-9a-f]{12}| ---> ?|Removing intermediate container [0-9a-f]{12}|"
    r"Successfully (?:built|tagged) \S+|\s*"
)
_CACHED = " ---> Using cache"
_EXIT = re.compile(r"The command '.*' returned a non-zero code: (\d+)", re.DOTALL)
_NEEDS_BUILDKIT = re.compile(r"requires BuildKit|unknown instruction: \S+|--(?:mount|network|security|link|chmod)\b")
_HINT = (
    ". Runyard builds with the Engine's classic builder: if this is meant for BuildKit, build the image elsewhere, and "
    "deploy that"
)
_LINE = re.compile(r"(parse error (?:on )?line )(\d+)")


class BuildLog:
    """`added` says of each instruction that is sent whether it is ours: those are neither shown nor counted."""

    def __init__(self, added: Sequence[bool]) -> None:
        self._added = added
        self._splitter = LineSplitter()
        self._hidden = False
        self._step = ""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The last lines that the build itself wrote."""

    def take(self, message: Mapping[str, Any]) -> list[str]:
        text = _COLOURS.sub("", str(message.get("stream", "")))
        return [line for said in self._splitter.feed(text.encode()) if (line := self._line(said)) is not None]

    def end(self) -> list[str]:
        return [line for said in self._splitter.end() if (line := self._line(said)) is not None]

    @property
    def where(self) -> str:
        """As in `at step 2 of 3: RUN make`; empty before the first step."""
        return f" at {self._step}" if self._step else ""

    def _line(self, said: str) -> str | None:
        if step := _STEP.fullmatch(said):
            return self._begin(int(step[1]), int(step[2]), step[3])
        if said == _CACHED:
            return None if self._hidden else f"{self._step.partition(':')[0]} is unchanged"
        if self._hidden or _BOOKKEEPING.fullmatch(said):
            return None
        self.tail.append(said)
        return said

    def _begin(self, number: int, total: int, text: str) -> str | None:
        self._hidden = False
        if total == len(self._added):
            self._hidden = self._added[number - 1]
            number, total = self._added[:number].count(False), self._added.count(False)
        if self._hidden:
            return None
        self.tail.clear()
        text = text if len(text) <= STEP_LENGTH_MAX else f"{text[:STEP_LENGTH_MAX]}…"
        self._step = f"step {number} of {total}: {text}"
        return f"building {self._step}"


def failure(message: str, where: str, line_of: Callable[[int], int]) -> str:
    """What went wrong, from the Engine's words; `line_of` says which line of the original a number means."""
    if exit := _EXIT.search(message):
        killed = " (killed, as a rule for want of memory)" if exit[1] == "137" else ""
        return f"the build failed{where}: exit code {exit[1]}{killed}"
    said = _LINE.sub(lambda match: f"{match[1]}{line_of(int(match[2]))}", message)
    return f"the build failed{where}: {said}{_HINT if _NEEDS_BUILDKIT.search(message) else ''}"
