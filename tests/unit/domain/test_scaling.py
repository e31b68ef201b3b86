"""Bounds of a fleet's settings."""

from datetime import timedelta

import pytest

from runyard.domain.errors import BadRequest
from runyard.domain.fleet import BACK_OFF_FIRST_S, BACK_OFF_MAX_S, Failures, demand_limit, overdue_at
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from tests.builders import START, a_scaling


def test_the_defaults_are_those_of_the_contract() -> None:
    policy = ScalingPolicy()

    assert (0, 3) == (policy.workers_min, policy.workers_max)
    assert timedelta(seconds=5) == policy.idle_timeout
    assert QueueDelay(timedelta(seconds=4)) == policy.scaler


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 1000), (1000, 1000), (2, 3)])
def test_bounds_of_workers_reach_from_nought_to_a_thousand(least: int, most: int) -> None:
    policy = a_scaling(workers_min=least, workers_max=most)

    assert (least, most) == (policy.workers_min, policy.workers_max)


@pytest.mark.parametrize(("least", "most"), [(-1, 3), (4, 3), (0, 1001), (0, -1)])
def test_other_bounds_of_workers_are_refused_with_both_numbers(least: int, most: int) -> None:
    with pytest.raises(BadRequest, match=rf"workers\.min \({least}\) and workers\.max \({most}\)"):
        a_scaling(workers_min=least, workers_max=most)


@pytest.mark.parametrize("idle_s", [1, 3600])
def test_the_idle_timeout_reaches_from_a_second_to_an_hour(idle_s: float) -> None:
    assert timedelta(seconds=idle_s) == a_scaling(idle_s=idle_s).idle_timeout


@pytest.mark.parametrize("idle_s", [-1, 0, 0.999, 3600.001])
def test_another_idle_timeout_is_refused(idle_s: float) -> None:
    with pytest.raises(BadRequest, match=r"workers\.idleTimeout must be 1 to 3600 seconds, not"):
        a_scaling(idle_s=idle_s)


def test_a_queue_delay_is_half_a_second_at_least() -> None:
    assert timedelta(seconds=0.5) == QueueDelay(timedelta(seconds=0.5)).delay
    with pytest.raises(BadRequest, match=r"scaling\.queueDelay must be at least 0\.5 seconds, not 0\.499"):
        QueueDelay(timedelta(seconds=0.499))


def test_a_request_count_is_one_at_least() -> None:
    assert 1 == RequestCount(1).per_worker
    with pytest.raises(BadRequest, match=r"scaling\.requestCount must be at least 1, not 0"):
        RequestCount(0)


def test_a_job_is_overdue_after_the_queue_delay_and_at_once_where_requests_count() -> None:
    assert START - 4 == overdue_at(a_scaling(delay_s=4), START)
    assert START == overdue_at(a_scaling(per_worker=4), START)


def test_demand_is_counted_only_as_far_as_it_matters() -> None:
    assert 30 == demand_limit(a_scaling(workers_max=3), 10)
    assert 12 == demand_limit(a_scaling(workers_max=3, per_worker=4), 10)
    assert 1 == demand_limit(a_scaling(workers_max=0), 10)


@pytest.mark.parametrize(
    ("count", "wait_s"), [(1, BACK_OFF_FIRST_S), (2, 2), (9, 256), (10, BACK_OFF_MAX_S), (10**6, 300)]
)
def test_the_back_off_doubles_up_to_its_bound(count: int, wait_s: float) -> None:
    assert START + wait_s == Failures(count=count, last_at=START).retry_at


def test_nothing_is_waited_for_where_nothing_failed() -> None:
    assert 0.0 == Failures(count=0, last_at=START).retry_at
