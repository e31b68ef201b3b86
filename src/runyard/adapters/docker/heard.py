"""A container's log as lines, each once, however often the Engine begins to tell it anew.

Each entry of a log has a time in nanoseconds and comes from one of two streams. A line longer than 16 KiB is several
entries of one time, one behind the other in their stream; all but the last of them have no line end. Entries are told in
the order in which they were written, but for this:

1. Whoever asks again, because the answer broke off, names a time. Times of the two streams are not quite in order, so it
   names one that is a little earlier than the last.
2. Engines before 23 begin a file anew when they meet its rotation at a bad moment.

So what was heard of late is remembered, by stream and time; what comes again is known, and left out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from runyard.adapters.runtimes.lines import LineSplitter

SECOND = 1_000_000_000
OVERLAP_NS = SECOND // 10
"""How much is asked for again."""
REMEMBERED_NS = SECOND
REMEMBERED_MAX = 16_384
"""Of each stream. Who writes faster than so many lines in `OVERLAP_NS` has less of an overlap."""
STREAMS = 1, 2


class Heard:
    """What was heard of one container. Lines that have begun but not ended are part of it."""

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        """`saved` as another has left it; None: nothing was heard."""
        saved = saved or {}
        self._last: int | None = saved.get("last")
        self._streams = {number: _Stream(saved.get(str(number), {})) for number in STREAMS}
        self._second = b"", 0
        self.entries = 0
        """How many were told, new or not."""

    @property
    def since(self) -> str:
        """From when on to ask for entries, as in `1795884783.109545628`; `0` for all."""
        at = self._since()
        return "0" if at is None else f"{at // SECOND}.{at % SECOND:09}"

    def begin(self) -> None:
        """What comes next is the answer to another question."""
        for stream in self._streams.values():
            stream.begin()

    def take(self, number: int, entry: bytes) -> list[str]:
        """The lines that this entry completes, which begins with its time; none when it is known already."""
        self.entries += 1
        time, _, text = entry.partition(b" ")
        at = self._nanoseconds(time)
        self._last = at
        stream = self._streams[2 if number == 2 else 1]
        return stream.splitter.feed(text) if stream.is_new(at, text) else []

    def end(self) -> list[str]:
        """The last lines, when no line ends came after them."""
        return [line for stream in self._streams.values() for line in stream.splitter.end()]

    def save(self) -> dict[str, Any]:
        """For another to go on from here, as JSON takes it."""
        since = self._since() or 0
        streams = {str(number): stream.save(since) for number, stream in self._streams.items()}
        return {"last": self._last, **streams}

    def _since(self) -> int | None:
        if self._last is None:
            return None
        return max(self._last - OVERLAP_NS, *(stream.forgotten_before for stream in self._streams.values()))

    def _nanoseconds(self, time: bytes) -> int:
        # Many lines are written in one second, and reading a date is slow.
        day_and_time, digits = time[:19], time[20:29]
        if not digits.isdigit():
            digits = _fraction(time)
        if day_and_time != self._second[0]:
            self._second = day_and_time, _seconds(time)
        return self._second[1] * SECOND + int(digits)


class _Stream:
    def __init__(self, saved: Mapping[str, Any]) -> None:
        self.splitter = LineSplitter(base64.b64decode(saved.get("rest", "")))
        self.forgotten_before = 0
        """Some entries from before this time may not be remembered."""
        self._counts: dict[int, int] = dict(saved.get("counts", ()))
        self._at: int | None = None
        self._first: bytes = b""
        self._nth = 0
        self._whole = True

    def begin(self) -> None:
        self._at = None

    def is_new(self, at: int, text: bytes) -> bool:
        if at != self._at or (self._whole and text == self._first):
            # The second is a file that is begun anew with the line that we have just heard.
            self._nth, self._at, self._first = 1, at, text
        else:
            self._nth += 1
        self._whole = text.endswith(b"\n")
        if self._nth <= self._counts.get(at, 0):
            return False
        self._counts[at] = self._nth
        self._forget(at)
        return True

    def save(self, since: int) -> dict[str, Any]:
        counts = [[at, count] for at, count in self._counts.items() if at >= since]
        return {"counts": counts, "rest": base64.b64encode(self.splitter.rest).decode()}

    def _forget(self, now: int) -> None:
        while (oldest := next(iter(self._counts))) < now - REMEMBERED_NS:
            del self._counts[oldest]
        if len(self._counts) > REMEMBERED_MAX:
            del self._counts[oldest]
            self.forgotten_before = oldest + 1


def _fraction(time: bytes) -> bytes:
    """Nine digits of a date as RFC 3339 has it, whatever comes behind them: not every Engine writes all nine."""
    _, _, rest = time[:29].partition(b".")
    return re.split(rb"\D", rest)[0].ljust(9, b"0")


def _seconds(time: bytes) -> int:
    """Unix seconds of such a date, without the fraction, for which Python's own are too coarse."""
    text = time.decode("ascii", errors="replace")
    zone = text[19:].lstrip(".0123456789").replace("Z", "+00:00")
    return int(datetime.fromisoformat(text[:19] + (zone or "+00:00")).astimezone(UTC).timestamp())
