"""Limits of what a caller may ask for: how many requests in a window, how many at once."""

from __future__ import annotations

from bisect import bisect_left
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.errors import BadRequest
from runyard.domain.limits import BURSTS_IN_WINDOW, Counter, Counters, Limit, TooFast, TooManyOpen

GAPS = st.lists(
    st.one_of(
        st.sampled_from([0.0, 0.004, 0.009, 0.4, 0.985, 0.99, 0.995, 1.0]), st.floats(0, 0.02), st.floats(0, 1.5)
    ),
    min_size=1,
    max_size=150,
)
"""Between one request and the next, in windows: much of what can go wrong is a matter of a hundredth."""
LIMITS = st.builds(Limit, requests=st.integers(1, 12), window_s=st.sampled_from([0.3, 1, 10, 60]))


@given(LIMITS, GAPS, st.randoms(use_true_random=False))
def test_no_stretch_as_long_as_the_window_sees_more_of_a_caller_than_its_limit(
    limit: Limit, gaps: list[float], chance: Random
) -> None:
    counters, now = Counters(), 12345.678
    admitted: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for gap in gaps:
        now += gap * limit.window_s
        caller = chance.choice((0, 0, 0, 1, 2))
        counter = counters.of(caller, now)
        if counter.enter(limit, now) is None:
            counter.leave()
            admitted[caller].append(now)

    for times in admitted.values():
        for place, first in enumerate(times):
            assert bisect_left(times, first + limit.window_s) - place <= limit.requests


@given(LIMITS, GAPS)
def test_who_waits_as_long_as_told_is_taken_and_no_sooner_than_needed(limit: Limit, gaps: list[float]) -> None:
    counter, admitted, now = Counter(), list[float](), 1000.0
    for gap in gaps:
        now += gap * limit.window_s
        refusal = counter.enter(limit, now)
        if isinstance(refusal, TooFast):
            # A second less, and the window would still be full but for what one burst may blur.
            early = now + refusal.retry_after_s - 1 - limit.window_s / BURSTS_IN_WINDOW
            assert refusal.retry_after_s == 1 or early - limit.window_s <= admitted[-limit.requests]
            now += refusal.retry_after_s
            assert counter.enter(limit, now) is None
        admitted.append(now)


@pytest.mark.parametrize("requests", [1, 2, 5, 100, 1000])
def test_a_caller_that_keeps_2_percent_below_its_limit_is_never_refused(requests: int) -> None:
    counter, limit = Counter(), Limit(requests=requests, window_s=10)
    gap_s = 1.02 * limit.window_s / requests

    assert {None} == {counter.enter(limit, number * gap_s) for number in range(5 * requests)}


@given(LIMITS, GAPS)
def test_what_a_counter_remembers_does_not_grow_with_the_requests(limit: Limit, gaps: list[float]) -> None:
    counter, wide, now = Counter(), Limit(requests=10**6, window_s=limit.window_s), 0.0
    for gap in [gap * limit.window_s / 20 for gap in gaps] * 5:
        now += gap
        assert counter.enter(wide, now) is None
        assert counter.bursts <= BURSTS_IN_WINDOW + 1


@given(st.integers(0, 3), st.lists(st.booleans(), max_size=60))
def test_no_more_are_open_at_once_than_may_be(in_flight: int, steps: list[bool]) -> None:
    counter, limit, open_now = Counter(), Limit(requests=0, in_flight=in_flight), 0
    for arrives in steps:
        if arrives:
            refusal = counter.enter(limit, 0.0)
            full = open_now == in_flight != 0
            assert (TooManyOpen(limit=limit) if full else None) == refusal
            open_now += refusal is None
        elif open_now:
            counter.leave()
            open_now -= 1


def test_a_burst_counts_until_the_last_of_it_is_old() -> None:
    counter, limit = Counter(), Limit(requests=2, window_s=10)
    assert [counter.enter(limit, now) for now in (0.0, 0.0625)] == [None, None]

    assert TooFast(limit=limit, retry_after_s=1) == counter.enter(limit, 10.03125)
    assert [counter.enter(limit, now) for now in (10.0625, 10.0625)] == [None, None]


def test_a_refused_request_uses_up_nothing() -> None:
    counter, limit = Counter(), Limit(requests=2, window_s=10, in_flight=1)

    assert counter.enter(limit, 0.0) is None
    assert isinstance(counter.enter(limit, 1.0), TooManyOpen)
    counter.leave()
    assert counter.enter(limit, 2.0) is None
    counter.leave()
    assert TooFast(limit=limit, retry_after_s=7) == counter.enter(limit, 3.0)
    assert TooFast(limit=limit, retry_after_s=1) == counter.enter(limit, 9.5)
    assert counter.enter(limit, 10.0) is None


def test_without_a_number_of_requests_only_those_open_count() -> None:
    counter, limit = Counter(), Limit(requests=0, in_flight=0)

    assert {None} == {counter.enter(limit, 0.0) for _ in range(5000)}


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 5)), max_size=300), st.integers(1, 8))
def test_counters_are_bounded_and_the_last_ones_asked_are_kept(steps: list[tuple[int, float]], most: int) -> None:
    counters, now = Counters(counters_max=most), 0.0
    for caller, gap in steps:
        now += gap
        counter = counters.of(caller, now)
        assert len(counters) <= most
        assert counters.of(caller, now) is counter


def test_stale_counters_are_forgotten_and_held_requests_keep_theirs() -> None:
    counters, limit = Counters(), Limit(requests=5, window_s=10, in_flight=2)
    held = counters.of(0, 0.0)
    assert held.enter(limit, 0.0) is None
    for caller in range(1, 100):
        counter = counters.of(caller, 0.0)
        assert counter.enter(limit, 0.0) is None
        counter.leave()

    for second in range(11, 211):
        assert counters.of("late", float(second)).enter(Limit(requests=50), float(second)) is None

    assert 2 == len(counters)
    assert counters.of(0, 300.0) is held
    assert 1 == held.in_flight


def test_a_request_that_ends_after_its_counter_was_forgotten_harms_nobody() -> None:
    counters, limit = Counters(counters_max=1), Limit(requests=5, in_flight=1)
    first = counters.of("a", 0.0)
    assert first.enter(limit, 0.0) is None
    counters.of("b", 0.0)
    again = counters.of("a", 0.0)
    assert again.enter(limit, 0.0) is None

    first.leave()

    assert isinstance(again.enter(limit, 0.0), TooManyOpen)


@pytest.mark.row("F039")
@pytest.mark.parametrize(("workers", "requests"), [(0, 1000), (5, 1000), (6, 1200)])
def test_the_higher_of_base_and_what_the_workers_carry_counts(workers: int, requests: int) -> None:
    limit = Limit(requests=1000, in_flight=200, per_worker=200)

    assert Limit(requests=requests, in_flight=200, per_worker=200) == limit.carried_by(workers)


def test_no_limit_stays_none_whatever_the_workers_carry() -> None:
    assert 0 == Limit(requests=0, per_worker=200).carried_by(5).requests


def test_a_limit_that_shrinks_tells_how_long_it_takes_until_enough_is_forgotten() -> None:
    counter, wide = Counter(), Limit(requests=4, window_s=10)
    for second in range(4):
        assert counter.enter(wide, float(second)) is None

    assert TooFast(limit=Limit(requests=2), retry_after_s=8) == counter.enter(Limit(requests=2), 4.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"requests": -1}, "requests"),
        ({"requests": True}, "requests"),
        ({"requests": "10"}, "requests"),
        ({"in_flight": 1.5}, "in_flight"),
        ({"per_worker": None}, "per_worker"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": 3601}, "window_s"),
        ({"window_s": float("nan")}, "window_s"),
        ({"window_s": "10"}, "window_s"),
        ({"rate": 1}, "rate"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        Limit(requests=10).changed(changes)


def test_what_is_not_changed_stays() -> None:
    limit = Limit(requests=10, window_s=5, in_flight=2, per_worker=3)

    assert Limit(requests=20, window_s=5, in_flight=2, per_worker=3) == limit.changed({"requests": 20})
