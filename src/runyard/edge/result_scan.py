"""Reads a worker's result as it comes, however large, and holds no more than a piece of it.

A body is an object of which `output` may be endless. It is cut into pieces of about `PIECE_BYTES`, at commas between values
and within strings, never in an escape or a character. A piece alone is no JSON, but with the brackets that were open before
it, and closed after it, it is: so the decoder that checks small results checks pieces of large ones, and what it rejects is
mended piece by piece (decision 10). In place of values that are left out stands 0, so that a comma has one on either side:

    body     {"output": {"a": [1, 2, | 3, 4], "b": "long | string"}}
    checked  {"a": [1, 2,0]}     {"<":[0, 3, 4], "b": "long "}     {"<":" string"}

What the body says besides its output is small, and is read when all is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, auto

import msgspec
from msgspec import Raw

from runyard.edge.bodies import check_utf8, encode, mended, parse_worker_body, unreadable
from runyard.wire.jobs import WorkerBody

PIECE_BYTES = 128 * 1024
TOKEN_BYTES_MAX = 1 << 20
"""Where nothing can be cut for so long, as in a number of a million digits, it is no result that anybody wants."""
FIELD_BYTES_MAX = 1 << 20
"""Of an `error`; a longer one is cut."""
FIELDS_MAX = 1000
DEPTH_MAX = 1000
CUT = "... (cut here: the error is too long)"

_check = msgspec.json.Decoder(Raw).decode
_name = msgspec.json.Decoder(str).decode
_OPEN = re.compile(rb"[ \t\r\n]*(\S)")
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*(?=[^ \t\r\n])', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\r\n,"{}\[\]]+')
_SPACE = re.compile(rb"[ \t\r\n]*")
_TOKEN = re.compile(rb'"[^"]*"|[\[{]|[\]}]')
# Whole escapes only, and a high surrogate only with what may be its low one.
_CHARACTERS = re.compile(
    rb"(?:[^\"\\]++|\\u[dD][89abAB]..(?=.{6})|\\u(?![dD][89abAB])....|\\[^u])*+",
    re.DOTALL,
)
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")
# Keys that no handler's object has: mending must not take them for two of the same.
_BEFORE, _AFTER = b'"\\u0000<":', b'"\\u0000>":'
_COLLECTED = ("error", "stopPod", "status")


class _At(Enum):
    """Where the text that has not been looked at begins."""

    OPEN = auto()
    FIRST_KEY = auto()
    KEY = auto()
    VALUE = auto()
    FIELD_END = auto()
    END = auto()
    # Within the value of a field: at the bracket that opens it, and as a piece may begin.
    BRACKET = auto()
    BEHIND_COMMA = auto()
    BEHIND_VALUE = auto()
    STRING = auto()


class _Unreadable(Exception):
    pass


class ResultScan:
    """`feed` and `end` give the output's pieces as they are found; then `result` tells the rest."""

    def __init__(self) -> None:
        self._text = b""
        self._enough = PIECE_BYTES
        self._at = _At.OPEN
        self._stack = b""
        """The brackets that are open around what comes next, within the value of a field."""
        self._field = ""
        self._fields = 0
        self._collected: dict[str, list[bytes]] = {}
        self._cut = False
        self._problem: str | None = None
        self.has_output = False
        self._steps: dict[_At, Callable[[bytes], bytes | None]] = {
            _At.OPEN: self._open,
            _At.FIRST_KEY: self._key,
            _At.KEY: self._key,
            _At.VALUE: self._value,
            _At.FIELD_END: self._field_end,
            _At.END: self._nothing_more,
            _At.BRACKET: self._piece,
            _At.BEHIND_COMMA: self._piece,
            _At.BEHIND_VALUE: self._piece,
            _At.STRING: self._string,
        }

    def feed(self, data: bytes) -> Iterator[bytes]:
        """More of the body. Each step of the iterator takes a few milliseconds at most."""
        self._text += data
        yield from self._scan(final=False)

    def end(self) -> Iterator[bytes]:
        """The body is whole."""
        yield from self._scan(final=True)
        if self._problem is None and self._at is not _At.END:
            self._problem = "it ends too early"

    def result(self) -> WorkerBody:
        """All but the output, after `end`. An unreadable body is an `error`, as with `parse_worker_body`."""
        if self._problem is not None:
            return unreadable(self._problem)
        fields = (encode(name) + b":" + self._collected_text(name) for name in self._collected)
        return parse_worker_body(b"{" + b",".join(fields) + b"}")

    @property
    def readable(self) -> bool:
        return self._problem is None

    def _scan(self, *, final: bool) -> Iterator[bytes]:
        while self._problem is None and (len(self._text) >= self._enough or (final and self._text)):
            window = self._text[: self._enough]
            before = len(self._text), self._at
            try:
                found = self._steps[self._at](window)
                stuck = before == (len(self._text), self._at)
                if stuck and (self._enough > TOKEN_BYTES_MAX or (final and len(window) == len(self._text))):
                    raise _Unreadable("it ends too early, or has a number or a name of more than a megabyte")
            except _Unreadable as error:
                self._problem, self._text = str(error), b""
                return
            self._enough = self._enough + PIECE_BYTES if stuck else PIECE_BYTES
            if found:
                yield from self._said(found)
        if self._problem is not None:
            self._text = b""

    def _said(self, piece: bytes) -> Iterator[bytes]:
        """A piece of a field's value."""
        if self._field == "output":
            yield piece
        elif self._field in _COLLECTED and not self._cut:
            parts = self._collected.setdefault(self._field, [])
            parts.append(piece)
            self._cut = sum(map(len, parts)) > FIELD_BYTES_MAX

    def _collected_text(self, name: str) -> bytes:
        text = b"".join(self._collected[name])
        if len(text) <= FIELD_BYTES_MAX:
            return text
        # Pieces end between characters, so what there is of a string is one, but for its end.
        return encode((_name(text.removesuffix(b'"') + b'"') if text.startswith(b'"') else text.decode()) + CUT)

    # The fields of the body. Each step takes what it understands from the text.

    def _take(self, size: int, at: _At) -> None:
        self._text, self._at = self._text[size:], at

    def _open(self, window: bytes) -> None:
        if (match := _OPEN.match(window)) is not None:
            if match[1] != b"{":
                raise _Unreadable("it is no object")
            self._take(match.end(), _At.FIRST_KEY)

    def _key(self, window: bytes) -> None:
        if (match := _KEY.match(window)) is not None:
            self._fields += 1
            self._field = _decoded_name(match[1])
            twice = self.has_output if self._field == "output" else self._field in self._collected
            if twice or self._fields > FIELDS_MAX:
                raise _Unreadable(f"it has {self._field[:40]!r} twice, or more than {FIELDS_MAX} fields")
            self.has_output = self.has_output or self._field == "output"
            self._cut = False
            self._take(match.end(), _At.VALUE)
        elif self._at is _At.FIRST_KEY and (match := _OPEN.match(window)) is not None and match[1] == b"}":
            self._take(match.end(), _At.END)

    def _value(self, window: bytes) -> bytes | None:
        self._stack = b""
        if window[0] == 0x22:
            self._take(1, _At.STRING)
            return b'"'
        if window[0] in b"[{":
            self._at = _At.BRACKET
            return None
        match = _SCALAR.match(window)
        if match is None:
            raise _Unreadable(f"there is no value for {self._field[:40]!r}")
        if match.end() == len(window):
            return None
        self._take(match.end(), _At.FIELD_END)
        return _checked(b"", match[0], b"")

    def _field_end(self, window: bytes) -> None:
        if (match := _OPEN.match(window)) is not None:
            if match[1] not in (b",", b"}"):
                raise _Unreadable(f"something follows the value of {self._field[:40]!r}")
            self._take(match.end(), _At.KEY if match[1] == b"," else _At.END)

    def _nothing_more(self, window: bytes) -> None:
        match = _SPACE.match(window)
        if match is None or match.end() < len(window):
            raise _Unreadable("something follows the object")
        self._take(len(window), _At.END)

    # The value of a field

    def _string(self, window: bytes) -> bytes | None:
        """Within a string that is a value."""
        end = _without_escapes(window).find(b'"') + 1
        if end:
            piece = _checked(self._prefix(), window[:end], _closing(self._stack))
            self._take(end, _At.BEHIND_VALUE if self._stack else _At.FIELD_END)
            return piece
        end = _whole_characters(window, 0)
        if not end:
            return None
        piece = _checked(self._prefix(), window[:end], b'"' + _closing(self._stack))
        self._take(end, _At.STRING)
        return piece

    def _piece(self, window: bytes) -> bytes | None:
        """Within an array or an object."""
        plain = _without_escapes(window)
        if (end := self._end_of_value(plain)) is not None:
            piece = _checked(self._prefix(), window[:end], b"")
            self._take(end, _At.FIELD_END)
            return piece
        comma = _last_comma(plain)
        if comma >= 0:
            stack = _after(self._stack, plain[:comma])
            more = b",0" if stack.endswith(b"[") else b"," + _AFTER + b"0"
            piece = _checked(self._prefix(), window[:comma], more + _closing(stack)) + b","
            self._stack = stack
            self._take(comma + 1, _At.BEHIND_COMMA)
            return piece
        return self._begun_string(window, plain)

    def _begun_string(self, window: bytes, plain: bytes) -> bytes | None:
        """Up to within a string that is a value, and goes on."""
        if plain.count(b'"') % 2 == 0:
            return None
        quote = plain.rfind(b'"')
        stack = _after(self._stack, plain[:quote])
        before = plain[:quote].rstrip(b" \t\r\n")
        if stack.endswith(b"{") and not before.endswith(b":"):
            return None  # It is a key.
        end = _whole_characters(window, quote + 1)
        piece = _checked(self._prefix(), window[:end], b'"' + _closing(stack))
        self._stack = stack
        self._take(end, _At.STRING)
        return piece

    def _end_of_value(self, plain: bytes) -> int | None:
        """Where the array or object ends, if it does so here."""
        brackets = _net(_brackets(plain)[not self._stack :])
        closing = len(brackets) - len(brackets.lstrip(b"]}"))
        if closing < max(1, len(self._stack)):
            return None
        depth = len(self._stack)
        for token in _TOKEN.finditer(plain):
            if token[0] in (b"[", b"{"):
                depth += 1
            elif token[0] in (b"]", b"}"):
                depth -= 1
                if depth == 0:
                    return token.end()
        return None

    def _prefix(self) -> bytes:
        """What has to stand before the text for it to be JSON."""
        if self._at is _At.BRACKET:
            return b""
        if not self._stack:
            return b'"'
        outer = b"".join(b"[" if bracket == 0x5B else b"{" + _BEFORE for bracket in self._stack[:-1])
        inner = b"[" if self._stack.endswith(b"[") else b"{" + _BEFORE
        return outer + inner + {_At.STRING: b'"', _At.BEHIND_COMMA: b"0,", _At.BEHIND_VALUE: b"0"}[self._at]


def _checked(prefix: bytes, piece: bytes, suffix: bytes) -> bytes:
    """The piece as it is, or mended, if it is JSON with these around it."""
    text = prefix + piece + suffix
    try:
        _check(text)
        check_utf8(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            text = mended(text)
        except (ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
            raise _Unreadable(str(error)) from error
        return text[len(prefix) : len(text) - len(suffix)]
    return piece


def _decoded_name(name: bytes) -> str:
    return _name(_checked(b"", name, b""))


def _without_escapes(text: bytes) -> bytes:
    """As long as the text, but each `"` in it begins or ends a string. The text must not begin amid an escape."""
    return text.replace(b"\\\\", b"..").replace(b'\\"', b"..")


def _whole_characters(text: bytes, start: int) -> int:
    """Where a string that goes on behind the text can be cut."""
    match = _CHARACTERS.match(text, start)
    end = start if match is None else match.end()
    for back in range(1, min(4, end - start) + 1):
        byte = text[end - back]
        if byte >= 0xC0:  # The first of so many bytes: is the character whole?
            return end if back >= 2 + (byte >= 0xE0) + (byte >= 0xF0) else end - back
        if byte < 0x80:
            break
    return end


def _last_comma(plain: bytes) -> int:
    """The last comma that is not within a string; -1 when there is none."""
    end, inside = len(plain), plain.count(b'"') % 2 == 1
    while True:
        quote = plain.rfind(b'"', 0, end)
        if not inside:
            comma = plain.rfind(b",", quote + 1, end)
            if comma >= 0 or quote < 0:
                return comma
        end, inside = quote, not inside


def _brackets(plain: bytes) -> bytes:
    """All brackets that are not within strings."""
    return b"".join(plain.split(b'"')[::2]).translate(None, _NO_BRACKET)


def _net(brackets: bytes) -> bytes:
    """Without those that belong together: what is closed that was open before, then what stays open."""
    for _ in range(DEPTH_MAX):
        left = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(brackets):
            return left
        brackets = left
    raise _Unreadable("it is nested too deeply")


def _after(stack: bytes, plain: bytes) -> bytes:
    """What is open behind this text."""
    net = _net(_brackets(plain))
    opened = net.lstrip(b"]}")
    if b"]" in opened or b"}" in opened or len(net) - len(opened) > len(stack):
        raise _Unreadable("its brackets do not match")
    stack = stack[: len(stack) - (len(net) - len(opened))] + opened
    if len(stack) > DEPTH_MAX:
        raise _Unreadable("it is nested too deeply")
    return stack


def _closing(stack: bytes) -> bytes:
    return stack[::-1].translate(bytes.maketrans(b"[{", b"]}"))
