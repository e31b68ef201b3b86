import pytest

from runyard.adapters import keeper as link
from runyard.adapters.keeper import Seat
from runyard.domain.errors import BadRequest
from runyard.keeper import keeper, ports


def test_a_seat_is_what_the_keeper_says() -> None:
    assert Seat(3, 4, 5, 6, 7, 8, 9) == Seat.of(f"{keeper.PROTOCOL}:3,4,5,6,7,8,9")


def test_keeper_and_server_of_one_version_understand_each_other() -> None:
    assert keeper.PROTOCOL == link.PROTOCOL


@pytest.mark.parametrize("spec", ["1:3,4,5,6,7,8", f"{link.PROTOCOL + 1}:3,4"])
def test_a_keeper_of_another_version_is_told_apart_and_what_to_do_is_said(spec: str) -> None:
    with pytest.raises(BadRequest, match="stop the platform and serve again"):
        Seat.of(spec)


def test_keeper_and_server_pass_as_many_ports_at_once() -> None:
    assert ports.FDS_PER_MESSAGE == link.FDS_PER_MESSAGE
