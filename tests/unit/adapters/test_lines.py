import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from runyard.adapters.runtimes.lines import LINE_BYTES_MAX, LineSplitter, listen


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


# Pipes


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Under the loop of tests and that of the platform."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        runner.get_loop()
        yield runner


def open_files() -> set[str]:
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def test_what_is_written_to_a_pipe_is_said_line_by_line_until_it_ends(runner: asyncio.Runner) -> None:
    said: list[str] = []

    async def hear() -> None:
        lines, write = listen(said.append)
        os.write(write, b"one\ntwo\nthr")
        os.write(write, b"ee")
        os.close(write)
        await lines.ended
        lines.close()

    runner.run(hear())
    assert ["one", "two", "three"] == said


def test_a_pipe_that_is_closed_says_what_it_has_read_and_no_more(runner: asyncio.Runner) -> None:
    said: list[str] = []

    async def hear() -> None:
        first = asyncio.Event()
        lines, write = listen(lambda line: (said.append(line), first.set())[1])
        os.write(write, b"one\ntwo")
        await first.wait()
        os.write(write, b"three")
        lines.close()
        assert lines.ended.done()
        with pytest.raises(BrokenPipeError):
            os.write(write, b"four")
        os.close(write)

    runner.run(hear())
    assert ["one", "two"] == said


def test_pipes_leave_no_file_open(runner: asyncio.Runner) -> None:
    async def hear(*, to_the_end: bool) -> None:
        lines, write = listen(lambda line: None)
        if to_the_end:
            os.close(write)
            await lines.ended
        lines.close()
        if not to_the_end:
            os.close(write)

    before = open_files()
    for number in range(10):
        runner.run(hear(to_the_end=bool(number % 2)))
    assert before == open_files()


def test_the_end_of_a_pipe_closes_no_file_of_another_thread(runner: asyncio.Runner) -> None:
    """Descriptors are numbers: one that is closed twice may be somebody else's the second time."""
    over, lost = threading.Event(), list[OSError]()

    def open_and_close() -> None:
        while not over.is_set():
            file = os.open(os.devnull, os.O_WRONLY)
            try:
                os.write(file, b"x")
                os.close(file)
            except OSError as error:
                lost.append(error)

    async def hear() -> None:
        for _ in range(2000):
            lines, write = listen(lambda line: None)
            os.close(write)
            await asyncio.wait_for(lines.ended, 5)
            lines.close()

    threads = [threading.Thread(target=open_and_close) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        runner.run(hear())
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert [] == lost
