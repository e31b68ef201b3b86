import pytest

from runyard.adapters import keeper as link
from runyard.adapters.keeper import Seat
from runyard.domain.errors import BadRequest
from runyard.keeper import keeper


def test_a_seat_is_what_the_keeper_says() -> None:
    assert Seat(3, 4, 5, 6, 7, 8) == Seat.of(f"{keeper.PROTOCOL}:3,4,5,6,7,8")


def test_keeper_and_server_of_one_version_understand_each_other() -> None:
    assert keeper.PROTOCOL == link.PROTOCOL


def test_an_older_keeper_is_told_apart_and_what_to_do_is_said() -> None:
    with pytest.raises(BadRequest, match="stop the platform and serve again"):
        Seat.of("0:3,4,5,6,7,8")
