"""What every `Signals` promises."""

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.ports.system import Signals


@pytest.fixture(params=["local"])
def signals(request: pytest.FixtureRequest) -> Signals:
    return LocalSignals()


def test_every_subscriber_of_a_topic_is_woken_each_time(signals: Signals) -> None:
    woken: list[str] = []
    signals.subscribe("a", lambda: woken.append("first"))
    signals.subscribe("a", lambda: woken.append("second"))
    signals.subscribe("b", lambda: woken.append("other"))
    signals.fire("a")
    signals.fire("a")

    assert ["first", "second"] * 2 == woken


def test_nobody_needs_to_listen(signals: Signals) -> None:
    signals.fire("a")


def test_who_has_left_is_woken_no_more(signals: Signals) -> None:
    woken: list[str] = []
    leave = signals.subscribe("a", lambda: woken.append("gone"))
    signals.subscribe("a", lambda: woken.append("here"))
    leave()
    leave()
    signals.fire("a")

    assert ["here"] == woken


def test_a_subscriber_may_leave_while_it_is_called_and_others_are_still_woken(signals: Signals) -> None:
    woken: list[str] = []

    def once() -> None:
        woken.append("once")
        leave()

    leave = signals.subscribe("a", once)
    signals.subscribe("a", lambda: woken.append("always"))
    signals.fire("a")
    signals.fire("a")

    assert ["once", "always", "always"] == woken


def test_who_comes_while_others_are_called_is_woken_from_the_next_time_on(signals: Signals) -> None:
    woken: list[str] = []
    signals.subscribe("a", lambda: woken.append("old") or signals.subscribe("a", lambda: woken.append("new")))
    signals.fire("a")

    assert ["old"] == woken
    signals.fire("a")
    assert ["old", "old", "new"] == woken


def test_the_same_function_may_subscribe_twice_and_leave_once(signals: Signals) -> None:
    woken: list[int] = []
    wake = lambda: woken.append(1)  # noqa: E731 - The very same object is what this is about.
    leave = signals.subscribe("a", wake)
    signals.subscribe("a", wake)
    leave()
    leave()
    signals.fire("a")

    assert [1] == woken
