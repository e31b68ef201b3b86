"""A result read in pieces amounts to what it would amount to if it were read whole."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.edge import result_scan
from runyard.edge.bodies import error_of, parse_worker_body
from runyard.edge.result_scan import ResultScan
from runyard.wire.jobs import WorkerBody

TEXT = st.text('a"\\/,:{}[] \né漢\U0001f600\x7f', max_size=30) | st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=40,
)


def scanned(body: bytes, step: int) -> tuple[bytes | None, WorkerBody, ResultScan]:
    """The output, and what else it says, of a body that comes `step` bytes at a time."""
    scan = ResultScan()
    pieces: list[bytes] = []
    for start in range(0, len(body), step):
        pieces += scan.feed(body[start : start + step])
    pieces += scan.end()
    return (b"".join(pieces) if scan.has_output else None), scan.result(), scan


@pytest.fixture(autouse=True, params=[6, 40])
def small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short texts are cut, and everywhere. Within each test the size stays."""
    monkeypatch.setattr(result_scan, "PIECE_BYTES", request.param)
    monkeypatch.setattr(result_scan, "TOKEN_BYTES_MAX", 4096)


def dumped(value: Any, *, ascii: bool, indent: int | None) -> bytes:
    return json.dumps(value, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")


@given(VALUES, st.booleans(), st.sampled_from([None, 1]), st.integers(1, 60), st.booleans())
def test_a_well_formed_output_comes_out_byte_for_byte(
    value: Any, ascii: bool, indent: int | None, step: int, first: bool
) -> None:
    others = {"stopPod": True, "x": [value], "error": {"of": "note"}}
    body = dumped({"output": value, **others} if first else {**others, "output": value}, ascii=ascii, indent=indent)
    whole = parse_worker_body(body)
    if isinstance(whole.output, msgspec.UnsetType) or bytes(whole.output) not in body:
        return  # It has lone surrogates, and is mended.
    output, rest, scan = scanned(body, step)

    assert scan.readable
    assert bytes(whole.output) == output
    assert (True, '{"of":"note"}') == (rest.stopPod, (error_of(rest) or "").replace(" ", "").replace("\n", ""))


@given(VALUES, st.data(), st.integers(1, 60))
def test_a_damaged_body_is_read_as_it_would_be_whole(value: Any, data: st.DataObject, step: int) -> None:
    body = bytearray(json.dumps({"output": value}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", *(b"%c" % c for c in b'[]{},:"\\0a\xe9 ')])
        )
        if not body:
            return
    whole = parse_worker_body(bytes(body))
    output, rest, scan = scanned(bytes(body), step)

    if "cannot be read" in (error_of(whole) or ""):
        assert "cannot be read" in (error_of(rest) or "")
    elif scan.readable:  # It may be stricter: it does not take two outputs.
        want = None if isinstance(whole.output, msgspec.UnsetType) else json.loads(bytes(whole.output))
        assert want == (None if output is None else json.loads(output))


@pytest.mark.parametrize(
    ("sent", "mended"),
    [
        ("[1, NaN, -Infinity, Infinity, 2]", "[1, null, null, null, 2]"),
        ('{"a": NaN, "b": {"c": [NaN]}, "\\u0000<": 1}', '{"a": null, "b": {"c": [null]}, "\\u0000<": 1}'),
        ("NaN", "null"),
        ('"\\ud83d\\ude00\\ud83d\\ude00\\ud83d"', '"\U0001f600\U0001f600\ufffd"'),
        ('["\\ud83d", "\\\\ud83d\\\\", "\\ude00\\ud83d\\ude00"]', '["\ufffd", "\\\\ud83d\\\\", "\ufffd\U0001f600"]'),
    ],
)
@pytest.mark.parametrize("step", [1, 5, 100])
def test_what_strict_json_rejects_is_mended(sent: str, mended: str, step: int) -> None:
    output, _, scan = scanned(f'{{"output": {sent}, "x": NaN}}'.encode(), step)

    assert scan.readable
    assert json.loads(mended) == json.loads(output or b"")


@pytest.mark.parametrize("text", ["é漢\U0001f600" * 99, "\\" * 99, '\\"' * 99, "\x00" * 99, "a" * 500])
@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("form", ["%s", "[%s]", '{"k": %s}', '[{"k": [1, %s, 2]}]'])
def test_a_string_of_many_pieces_is_never_cut_within_a_character(text: str, ascii: bool, form: str) -> None:
    sent = (form % json.dumps(text, ensure_ascii=ascii)).encode()
    for step in (1, 7, 64):
        output, _, scan = scanned(b'{"output": ' + sent + b"}", step)
        assert (True, sent) == (scan.readable, output)


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    output, _, scan = scanned(b'{"output": ["' + b"ab\xff\xfecd" * 30 + b'", "\xe9"]}', 8)

    assert scan.readable
    assert ["ab\ufffd\ufffdcd" * 30, "\ufffd"] == json.loads(output or b"")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[1]", "no object"),
        (b"", "too early"),
        (b"{", "too early"),
        (b'{"output": ', "too early"),
        (b'{"output": [1', "too early"),
        (b'{"output": "a', "too early"),
        (b'{"output": 1', "too early"),
        (b'{"output": ,', "no value"),
        (b'{"output": 1 2}', "follows the value"),
        (b'{"output": 1} x', "follows the object"),
        (b'{"output": [1,]}', ""),
        (b'{"output": [,1]}', ""),
        (b'{"output": [1,,2]}', ""),
        (b'{"output": {"a":1,}}', ""),
        (b'{"output": [,' + b"1," * 99 + b"1]}", ""),
        (b'{"output": [1,,' + b"1," * 99 + b"1]}", ""),
        (b'{"output": [[1,2],,' + b"1," * 99 + b"1]}", ""),
        (b'{"output": [,' + b"1" * 99 + b",1]}", ""),
        (b'{"output": {,"' + b"a" * 99 + b'":1,"a":1}}', ""),
        (b'{"output": {,' + b'"a":1,' * 99 + b'"a":1}}', ""),
        (b'{"output": {"a":1,,' + b'"a":1,' * 99 + b'"a":1}}', ""),
        (b'{"output": {"a":1,' + b'"a",' * 99 + b'"a":1}}', ""),
        (b'{"output": [' + b"1," * 99 + b"1}}", ""),
        (b'{"output": [' + b'"a" "b",' * 99 + b"1]}", ""),
        (b'{"output": ["' + b"a" * 99 + b'" "b", 1]}', ""),
        (b'{"output": ["' + b"a" * 99 + b'": 1]}', ""),
        (b'{"output": {"a"}}', ""),
        (b'{"output": [1}]', ""),
        (b'{"output": 1,}', "too early"),
        (b'{"output": 1, "output": 2}', "twice"),
        (b'{"output": ' + b"[" * 1100 + b"]" * 1100 + b"}", ""),
        (b'{"output": [' + b"1" * 9000 + b"]}", ""),
        (b"{" + b",".join(b'"f%d":1' % n for n in range(1001)) + b"}", "1000 fields"),
        (b'{"stopPod": "x", "output": 1}', ""),
    ],
)
@pytest.mark.parametrize("step", [1, 50, 100_000])
def test_what_is_no_result_is_an_error(body: bytes, why: str, step: int) -> None:
    _, rest, _ = scanned(body, step)

    assert "the worker sent a result that cannot be read as JSON (" in (error_of(rest) or "")
    assert why in (error_of(rest) or "")


def test_a_long_error_is_cut_between_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_scan, "FIELD_BYTES_MAX", 200)
    for error in ("é\\" * 200, ["é"] * 200):
        body = json.dumps({"error": error, "output": 1}, ensure_ascii=False).encode()
        _, rest, _ = scanned(body, 10)
        said = error_of(rest) or ""

        assert said.endswith(result_scan.CUT)
        shown = said.removesuffix(result_scan.CUT)
        assert (error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)).startswith(shown)
        assert 100 <= len(shown) < 400


def test_no_more_than_a_piece_of_a_long_output_is_held() -> None:
    scan = ResultScan()
    most = 0
    for data in (b'{"output": [', *[b'"%b", ' % (b"x" * 90)] * 2000):
        most = max(most, *(len(piece) for piece in scan.feed(data)), 0)
        assert len(scan._text) < 1000  # pyright: ignore[reportPrivateUsage]
    assert 0 < most < 1000
