"""When the disk counts as full."""

from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.room import is_full

RESERVE = 800


def test_it_is_full_when_less_than_the_reserve_is_free() -> None:
    assert not is_full(800, RESERVE, was_full=False)
    assert is_full(799, RESERVE, was_full=False)


def test_it_opens_again_a_little_later_than_it_closed() -> None:
    assert is_full(899, RESERVE, was_full=True)
    assert not is_full(900, RESERVE, was_full=True)


def test_without_a_reserve_it_is_never_full() -> None:
    assert not is_full(0, 0, was_full=False)
    assert not is_full(0, 0, was_full=True)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_more_room_never_closes_it(free: int, more: int) -> None:
    for was_full in (False, True):
        assert is_full(free, RESERVE, was_full=was_full) or not is_full(free + more, RESERVE, was_full=was_full)
