import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.adapters.runtimes.lines import LINE_BYTES_MAX, LineSplitter


def lines_of(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.end()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"one\n\ntwo"], ["one", "", "two"]),
        ([b"o", b"ne\nt", b"wo"], ["one", "two"]),
        ([b"one\r\n", b"10%\r20%\r\n"], ["one", "10%\r20%"]),
        ([b"one\r", b"\ntwo"], ["one", "two"]),
        (["é".encode()[:1], "é".encode()[1:] + b"\n"], ["é"]),
        ([b"\xff\xfe\n"], ["\ufffd\ufffd"]),
    ],
)
def test_lines_come_without_their_ends(chunks: list[bytes], lines: list[str]) -> None:
    assert lines == lines_of(*chunks)


def test_a_line_is_said_as_soon_as_it_is_whole() -> None:
    splitter = LineSplitter()

    assert splitter.feed(b"one\ntw") == ["one"]
    assert splitter.feed(b"o\n") == ["two"]
    assert splitter.end() == []


def test_a_long_line_comes_in_pieces_before_it_ends() -> None:
    splitter = LineSplitter()

    assert splitter.feed(b"x" * (LINE_BYTES_MAX + 1)) == ["x" * LINE_BYTES_MAX]
    assert splitter.feed(b"y\n") == ["xy"]


def test_a_line_of_just_the_limit_is_not_cut() -> None:
    assert lines_of(b"x" * LINE_BYTES_MAX + b"\n") == ["x" * LINE_BYTES_MAX]


def test_no_piece_cuts_a_character() -> None:
    text = "x" + "é€😀" * LINE_BYTES_MAX

    assert "".join(lines_of(text.encode())) == text


def test_bytes_that_are_no_text_are_cut_at_the_limit() -> None:
    assert [len(line) for line in lines_of(b"\x80" * (2 * LINE_BYTES_MAX))] == [LINE_BYTES_MAX, LINE_BYTES_MAX]


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_how_the_bytes_arrive_does_not_matter(chunks: list[bytes]) -> None:
    assert lines_of(*chunks) == lines_of(b"".join(chunks))
