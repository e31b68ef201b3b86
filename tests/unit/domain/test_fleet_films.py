"""Films of the planner: frame by frame, what happens, the workers there are then, and when to plan again.

A frame is (time, event, fleet after the plan, wake_at). Fleet letters: Starting, Idle, Busy, Draining; oldest first.
"""

import pytest

from runyard.domain.fleet import Failures
from runyard.domain.scaling import ScalingPolicy
from tests.builders import a_scaling
from tests.unit.domain.stage import Stage

Frame = tuple[float, str, str, float | None]


def show(film: list[Frame], scaling: ScalingPolicy, *, concurrency: int = 1) -> None:
    """Play the film; it must come out frame by frame."""
    stage = Stage(scaling, concurrency)
    for at, event, fleet, wake_at in film:
        stage.now = at
        verb, _, count = event.partition(" ")
        for _ in range(int(count or 1)):
            EVENTS[verb](stage)
        made = stage.plan()

        assert (at, event, fleet, wake_at) == (at, event, stage.fleet, made.wake_at)
        assert () == stage.plan().actions, f"at {at} the plan asked for more once it was done"


EVENTS = {
    "submit": Stage.submit,
    "low": lambda stage: stage.submit(low=True),
    "retry": Stage.retry,
    "ready": Stage.ready,
    "done": Stage.done,
    "crash": Stage.crash,
    "gone": Stage.gone,
    "release": Stage.release,
    "wait": lambda stage: None,
}


def test_queue_delay_starts_a_worker_from_zero_at_once() -> None:
    film = [
        (0.0, "wait", "", None),
        (1.0, "submit", "S", 5.0),
        (2.0, "ready", "B", None),
        (3.0, "done", "I", 8.0),
        (7.9, "wait", "I", 8.0),
        (8.0, "wait", "D", None),
        (8.1, "gone", "", None),
    ]
    show(film, a_scaling(delay_s=4, idle_s=5))


def test_queue_delay_adds_a_worker_for_each_overdue_job() -> None:
    film = [
        (0.0, "submit 4", "S", 4.0),
        (2.0, "ready", "B", 4.0),
        (3.9, "wait", "B", 4.0),
        (4.0, "wait", "BSSS", None),
        (5.0, "ready 3", "BBBB", None),
    ]
    show(film, a_scaling(delay_s=4, workers_max=9))


def test_queue_delay_wakes_for_each_job_that_becomes_overdue() -> None:
    film = [
        (0.0, "submit", "S", 4.0),
        (1.0, "ready", "B", None),
        (2.0, "submit", "B", 6.0),
        (5.0, "submit", "B", 6.0),
        (6.0, "wait", "BS", 9.0),
        (9.0, "wait", "BSS", None),
    ]
    show(film, a_scaling(delay_s=4))


def test_queue_delay_leaves_a_job_alone_that_waits_less_than_the_delay() -> None:
    film = [
        (0.0, "submit", "S", 4.0),
        (1.0, "ready", "B", None),
        (2.0, "submit", "B", 6.0),
        (5.0, "done", "B", None),
        (9.0, "done", "I", 14.0),
    ]
    show(film, a_scaling(delay_s=4))


def test_queue_delay_counts_workers_that_are_starting() -> None:
    film = [
        (0.0, "submit 3", "S", 4.0),
        (4.0, "wait", "SSS", None),
        (30.0, "wait", "SSS", None),
        (31.0, "ready 2", "BBS", None),
        (32.0, "ready", "BBB", None),
    ]
    show(film, a_scaling(delay_s=4, workers_max=9))


def test_queue_delay_reckons_with_workers_that_take_several_jobs() -> None:
    film = [
        (0.0, "submit", "S", 4.0),
        (1.0, "ready", "B", None),
        (1.0, "submit 99", "B", 5.0),
        (5.0, "wait", "BSSS", None),
    ]
    show(film, a_scaling(delay_s=4, workers_max=6), concurrency=30)


def test_request_count_wants_a_worker_for_every_few_requests() -> None:
    film = [
        (0.0, "submit", "S", None),
        (0.5, "submit 3", "S", None),
        (1.0, "submit", "SS", None),
        (1.5, "submit 4", "SSS", None),
        (2.0, "ready 3", "BBB", None),
        (3.0, "done 6", "BBB", None),
        (4.0, "done", "IBB", 9.0),
        (5.0, "submit 20", "BBB", None),
    ]
    show(film, a_scaling(per_worker=4))


def test_request_count_lets_the_longest_idle_go_first() -> None:
    film = [
        (0.0, "submit 3", "SSS", None),
        (1.0, "ready 3", "BBB", None),
        (2.0, "done", "IBB", 7.0),
        (3.0, "done", "IIB", 7.0),
        (7.0, "wait", "DIB", 8.0),
        (8.0, "wait", "DDB", None),
        (8.5, "gone", "B", None),
    ]
    show(film, a_scaling(per_worker=1))


@pytest.mark.parametrize("scaler", [{"delay_s": 4}, {"per_worker": 1}], ids=["delay", "count"])
def test_the_fleet_never_grows_over_its_maximum(scaler: dict[str, float]) -> None:
    stage = Stage(a_scaling(workers_max=2, **scaler))
    stage.submit(50)
    stage.plan()
    stage.now = 4.0
    stage.plan()

    assert "SS" == stage.fleet


def test_an_endpoint_of_no_workers_starts_none() -> None:
    show([(0.0, "submit 5", "", 4.0), (4.0, "wait", "", None)], a_scaling(workers_max=0))


def test_a_maximum_raised_from_zero_is_made_use_of_at_once() -> None:
    stage = Stage(a_scaling(workers_max=0))
    stage.submit(5)
    stage.now = 10.0
    stage.scale(a_scaling(workers_max=3))
    stage.plan()

    assert "SSS" == stage.fleet
    assert () == stage.plan().actions


def test_the_minimum_is_there_without_any_demand_and_stays() -> None:
    film = [
        (0.0, "wait", "SS", None),
        (1.0, "ready 2", "II", None),
        (99.0, "submit 3", "BB", 103.0),
        (103.0, "wait", "BBS", None),
        (104.0, "ready", "BBB", None),
        (105.0, "done 3", "III", 110.0),
        (110.0, "wait", "DII", None),
        (999.0, "wait", "DII", None),
    ]
    show(film, a_scaling(workers_min=2, workers_max=3))


def test_a_draining_worker_counts_against_the_maximum_until_it_has_ended() -> None:
    film = [
        (0.0, "submit", "S", 4.0),
        (1.0, "ready", "B", None),
        (2.0, "done", "I", 7.0),
        (7.0, "wait", "D", None),
        (7.1, "submit", "D", 11.1),
        (8.0, "gone", "S", 11.1),
    ]
    show(film, a_scaling(workers_max=1))


def test_workers_of_an_older_release_are_drained_and_replaced_as_demand_asks() -> None:
    film = [
        (0.0, "submit 2", "SS", None),
        (1.0, "ready 2", "BB", None),
        (2.0, "done", "IB", 7.0),
        (3.0, "release", "DDS", None),
        (3.5, "ready", "DDI", 8.5),
        (4.0, "gone", "I", 8.5),
    ]
    show(film, a_scaling(per_worker=1, workers_max=3))


def test_the_minimum_is_kept_up_by_workers_of_the_new_release() -> None:
    film = [
        (0.0, "wait", "S", None),
        (1.0, "ready", "I", None),
        (2.0, "release", "DS", None),
        (3.0, "gone", "S", None),
    ]
    show(film, a_scaling(workers_min=1, workers_max=2))


@pytest.mark.parametrize("scaler", [{"delay_s": 4}, {"per_worker": 1}], ids=["delay", "count"])
def test_low_priority_jobs_start_nothing_and_use_what_others_start(scaler: dict[str, float]) -> None:
    stage = Stage(a_scaling(**scaler))
    stage.submit(5, low=True)

    assert (None, "") == (stage.plan().wake_at, stage.fleet)
    stage.now = 100.0
    assert (None, "") == (stage.plan().wake_at, stage.fleet)
    stage.submit()
    stage.plan()
    assert "S" == stage.fleet
    for _ in range(6):
        stage.now += 1
        stage.ready()
        stage.done()
    stage.plan()
    assert ([], "I") == (stage.queue, stage.fleet)


def test_failed_starts_are_tried_again_after_a_back_off_that_doubles_up_to_five_minutes() -> None:
    stage = Stage(a_scaling(workers_max=1))
    stage.submit()
    stage.plan()
    waits = []
    for _ in range(12):
        stage.now += 1.5
        stage.crash()
        failed_at = stage.now
        while stage.fleet == "":
            made = stage.plan()
            if stage.fleet == "":
                assert made.wake_at is not None
                stage.now = made.wake_at
        waits.append(stage.now - failed_at)

    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] == waits


def test_the_minimum_waits_for_the_back_off_too() -> None:
    film = [
        (0.0, "wait", "S", None),
        (1.0, "crash", "", 2.0),
        (1.9, "wait", "", 2.0),
        (2.0, "wait", "S", None),
        (3.0, "crash", "", 5.0),
        (5.0, "wait", "S", None),
    ]
    show(film, a_scaling(workers_min=1))


def test_a_fleet_at_its_maximum_makes_room_for_a_job_that_its_idle_worker_may_not_have_again() -> None:
    film = [
        (0.0, "submit", "S", 4.0),
        (1.0, "ready", "B", None),
        (2.0, "done", "I", None),
        (3.0, "retry", "I", 7.0),
        (7.0, "wait", "I", 8.0),
        (8.0, "wait", "D", None),
        (8.5, "gone", "S", None),
        (9.0, "ready", "B", None),
    ]
    show(film, a_scaling(workers_min=1, workers_max=1, delay_s=4, idle_s=5))


def test_where_there_is_room_another_worker_starts_beside_those_that_may_not_have_the_job() -> None:
    film = [
        (0.0, "submit 2", "SS", None),
        (1.0, "ready 2", "BB", None),
        (2.0, "done 2", "II", None),
        (3.0, "retry", "II", 8.0),
        (8.0, "wait", "DIS", None),
        (8.5, "gone", "IS", None),
        (9.0, "ready", "IB", None),
    ]
    show(film, a_scaling(workers_min=2, workers_max=3, per_worker=1, idle_s=5))


def test_room_is_made_by_one_worker_at_a_time() -> None:
    film = [
        (0.0, "submit 2", "SS", None),
        (1.0, "ready 2", "BB", None),
        (2.0, "done 2", "II", None),
        (3.0, "retry", "II", 8.0),
        (8.0, "wait", "DI", None),
        (8.4, "wait", "DI", None),
    ]
    show(film, a_scaling(workers_min=2, workers_max=2, per_worker=1, idle_s=5))


def test_room_is_made_though_an_outdated_worker_is_still_busy() -> None:
    film = [
        (0.0, "submit", "S", None),
        (1.0, "ready", "B", None),
        (2.0, "release", "DS", None),
        (3.0, "ready", "DI", None),
        (4.0, "retry", "DI", 9.0),
        (9.0, "wait", "DD", None),
    ]
    show(film, a_scaling(workers_min=1, workers_max=2, per_worker=1, idle_s=5))


def test_an_idle_worker_that_is_needed_for_new_jobs_stays_beside_one_it_may_not_have() -> None:
    film = [
        (0.0, "submit", "S", None),
        (1.0, "ready", "B", None),
        (2.0, "done", "I", 7.0),
        (3.0, "retry", "I", 7.0),
        (7.5, "submit", "BS", None),
    ]
    show(film, a_scaling(per_worker=1, workers_max=2, idle_s=5))


def test_no_room_is_made_while_nothing_may_start() -> None:
    stage = Stage(a_scaling(workers_max=1, delay_s=4, idle_s=5))
    stage.submit()
    stage.plan()
    stage.ready()
    stage.done()
    stage.retry()
    stage.failures = Failures(count=10, last_at=0.0)
    stage.now = 8.0

    made = stage.plan()

    assert ("I", 300.0) == (stage.fleet, made.wake_at)
    stage.now = 300.0
    stage.plan()
    assert "D" == stage.fleet
