"""Bodies: whatever is let through can be read at the other end, by readers stricter and laxer than ours."""

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runyard.domain.errors import BadRequest
from runyard.edge import bodies

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def scratched(draw: st.DrawFn) -> bytes:
    """JSON in which a few bytes are not what they were."""
    data = bytearray(
        json.dumps({"input": draw(JSON)}, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    )
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@given(scratched())
@example(b'{"input": 1e999}')
@example(b'{"input": NaN}')
@example(b'{"input": "\\ud800"}')
@example(b'{"input": "\xff"}')
@example(b'{"input": ' + b"9" * (bodies.DIGITS_MAX + 1) + b"}")
def test_what_a_client_may_submit_a_python_worker_can_read(body: bytes) -> None:
    try:
        input = bodies.parse_request(body, None).input
    except BadRequest:
        return

    assert same(json.loads(input), json.loads(body)["input"])


@given(JSON)
def test_json_as_python_writes_it_is_let_through_but_for_what_json_does_not_have(value: Any) -> None:
    body = json.dumps({"input": value})
    odd = any(word in body for word in ("NaN", "Infinity")) or "\\ud800" in body
    try:
        bodies.parse_request(body.encode(), None)
    except BadRequest:
        assert odd


@given(scratched() | st.binary(max_size=40))
def test_whatever_a_worker_sends_comes_out_as_strict_json(body: bytes) -> None:
    sent = bodies.parse_worker_body(body.replace(b'"input"', b'"output"'))
    error = bodies.error_of(sent)

    assert error is None or error.encode()
    if sent.output is not bodies.UNSET:
        strictly = json.loads(bytes(sent.output), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        json.dumps(strictly, ensure_ascii=False).encode()


@given(st.text(alphabet=st.sampled_from('a"\\é€😀\n'), min_size=1))
def test_a_long_string_is_split_into_strings_that_make_it_up(part: str) -> None:
    text = part * (2 * bodies.CHUNK_BYTES_MAX // len(part.encode()) + 1)
    chunks = bodies.split_chunk(json.dumps(text, ensure_ascii=False).encode())

    assert chunks is not None
    assert text == "".join(json.loads(chunk) for chunk in chunks)
    assert max(map(len, chunks)) <= bodies.CHUNK_BYTES_MAX


@pytest.mark.parametrize("where", ["%s", '{"a": [%s]}', "-%s"])
def test_a_number_that_python_cannot_read_is_refused_and_a_shorter_one_is_not(where: str) -> None:
    def body(digits: int) -> bytes:
        return b'{"input": %b}' % (where % ("9" * digits)).encode()

    assert sys.get_int_max_str_digits() == bodies.DIGITS_MAX
    with pytest.raises(BadRequest, match="more than 4300 digits"):
        bodies.parse_request(body(bodies.DIGITS_MAX + 1), None)
    bodies.parse_request(body(bodies.DIGITS_MAX), None)


def test_digits_in_a_string_are_no_number() -> None:
    body = b'{"input": "%b"}' % (b"3" * 10_000)

    assert b'"' + b"3" * 10_000 + b'"' == bodies.parse_request(body, None).input


def same(one: Any, other: Any) -> bool:
    """Equal, also where a value is not equal to itself."""
    return repr(one) == repr(other)
