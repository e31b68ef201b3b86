import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runyard.adapters.docker.heard import REMEMBERED_MAX, Heard

T0 = 1_795_884_783
OUT, ERR = 1, 2


def at(ns: int, text: str, second: int = T0) -> bytes:
    """An entry; its time is `ns` after a fixed second, which 2026-11-28T16:53:03Z is."""
    assert second == T0, "the date below is spelled out"
    return f"2026-11-28T16:53:03.{ns:09}Z {text}".encode()


def told(heard: Heard, *entries: bytes, stream: int = OUT) -> list[str]:
    heard.begin()
    return [line for entry in entries for line in heard.take(stream, entry)]


def test_lines_come_without_their_times_and_ends() -> None:
    assert ["one", "two"] == told(Heard(), at(1, "one\n"), at(2, "two\n"))


def test_what_was_heard_is_asked_for_again_for_a_moment() -> None:
    heard = Heard()

    assert "0" == heard.since
    told(heard, at(200_000_000, "one\n"))
    assert f"{T0}.100000000" == heard.since


def test_what_comes_again_is_left_out() -> None:
    heard = Heard()
    told(heard, at(1, "one\n"), at(2, "two\n"))

    assert ["three"] == told(heard, at(1, "one\n"), at(2, "two\n"), at(3, "three\n"))


def test_lines_of_one_nanosecond_are_told_apart() -> None:
    heard = Heard()

    assert ["one", "two"] == told(heard, at(1, "one\n"), at(1, "two\n"))
    assert ["three", "next"] == told(heard, at(1, "one\n"), at(1, "two\n"), at(1, "three\n"), at(2, "next\n"))


def test_a_file_that_is_begun_anew_with_its_only_line_says_nothing_twice() -> None:
    assert ["one", "two", "three"] == told(
        Heard(), *(at(n, f"{text}\n") for n, text in ((1, "one"), (2, "two"), (2, "two"), (3, "three")))
    )


def test_a_long_line_whose_pieces_were_cut_apart_is_whole() -> None:
    heard = Heard()

    assert [] == told(heard, at(1, "a" * 10), at(1, "b" * 10))
    assert ["a" * 10 + "b" * 10 + "c"] == told(heard, at(1, "a" * 10), at(1, "b" * 10), at(1, "c\n"))


def test_pieces_of_two_streams_do_not_mix() -> None:
    heard = Heard()
    heard.begin()
    said = [heard.take(OUT, at(1, "a")), heard.take(ERR, at(2, "e\n")), heard.take(OUT, at(1, "b\n"))]

    assert [[], ["e"], ["ab"]] == said


def test_a_file_that_is_begun_anew_amid_an_answer_says_nothing_twice() -> None:
    entries = [at(n, f"{n}\n") for n in range(9)]

    assert [str(n) for n in range(9)] == told(Heard(), *entries[:6], *entries[3:])


def test_streams_need_not_be_in_order() -> None:
    heard = Heard()
    heard.begin()
    heard.take(OUT, at(7, "late\n"))

    assert ["early"] == heard.take(ERR, at(5, "early\n"))


def test_a_last_line_without_an_end_is_said_at_the_end() -> None:
    heard = Heard()

    assert [] == told(heard, at(1, "bye"))
    assert ["bye"] == heard.end()


def test_another_goes_on_where_one_has_left() -> None:
    heard = Heard()
    told(heard, at(1, "one\n"), at(2, "half"))
    next_one = Heard(json.loads(json.dumps(heard.save())))

    assert heard.since == next_one.since
    assert ["half a line"] == told(next_one, at(1, "one\n"), at(2, "half"), at(2, " a line\n"))


def test_what_is_remembered_is_bounded_and_no_more_is_asked_for() -> None:
    heard = Heard()
    told(heard, *(at(n, "x\n") for n in range(REMEMBERED_MAX + 10)))

    assert f"{T0}.{10:09}" == heard.since


def test_times_are_read_however_they_are_written() -> None:
    def since(time: bytes) -> str:
        heard = Heard()
        heard.begin()
        heard.take(OUT, time + b" x\n")
        return heard.since

    assert f"{T0}.400000000" == since(b"2026-11-28T16:53:03.5Z")
    assert f"{T0}.400000000" == since(b"2026-11-28T17:53:03.500000000+01:00")
    assert f"{T0 - 1}.900000000" == since(b"2026-11-28T16:53:03Z")


@given(
    gaps=st.lists(st.integers(0, 3), max_size=30),
    breaks=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5),
)
def test_each_entry_is_said_once_however_answers_overlap(gaps: list[int], breaks: list[tuple[int, int]]) -> None:
    times = [sum(gaps[:n]) for n in range(len(gaps))]
    entries = [at(time, f"{n}\n") for n, time in enumerate(times)]
    heard, said, reached = Heard(), list[str](), 0
    for back, on in [*breaks, (0, len(entries))]:
        # Engines tell all entries of one time or none.
        start = times.index(times[max(0, min(reached, len(times) - 1) - back)]) if reached else 0
        end = max(reached, min(len(entries), reached + on))
        said += told(heard, *entries[start:end])
        reached = end

    assert [str(n) for n in range(len(entries))] == said
    assert all(int(a) < int(b) for a, b in pairwise(said))
