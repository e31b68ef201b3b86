import pytest

from runyard.edge.crowd import SAY_EVERY_S, Crowd


def test_a_peer_has_so_many_and_others_have_theirs() -> None:
    crowd = Crowd(of_each=2, of_all=10)

    assert [True, True, False] == [crowd.enter("10.0.0.2", 0) for _ in range(3)]
    assert crowd.enter("10.0.0.3", 0)
    crowd.leave("10.0.0.2")
    assert [True, False] == [crowd.enter("10.0.0.2", 0) for _ in range(2)]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1"])
def test_peers_on_this_machine_count_in_all_alone(peer: str) -> None:
    crowd = Crowd(of_each=2, of_all=5)

    assert 5 * [True] + [False] == [crowd.enter(peer, 0) for _ in range(6)]
    assert not crowd.enter("10.0.0.2", 0)
    crowd.leave(peer)
    assert crowd.enter("10.0.0.2", 0)


@pytest.mark.parametrize(
    ("descriptors", "of_each", "of_all"), [(1 << 20, 1000, 1 << 19), (1024, 128, 512), (64, 16, 32)]
)
def test_what_there_may_be_goes_by_the_descriptors_there_are(descriptors: int, of_each: int, of_all: int) -> None:
    crowd = Crowd.within(descriptors)

    peers = ["10.0.0.2"] * (of_each + 1) + ["10.0.0.3"] * of_each + ["127.0.0.1"] * descriptors
    entered = [peer for peer in peers if crowd.enter(peer, 0)]

    assert (min(of_each, of_all), of_all) == (entered.count("10.0.0.2"), len(entered))


def test_what_is_refused_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    crowd = Crowd(of_each=1, of_all=10)
    for now in (0, 1, SAY_EVERY_S - 1, SAY_EVERY_S + 1):
        crowd.enter("10.0.0.2", now)

    assert 2 == len(caplog.records)
    assert (
        "workers at 10.0.0.2 are refused: 1 are open from there, 1 in all, and at most 1 and 10" in caplog.messages[0]
    )
