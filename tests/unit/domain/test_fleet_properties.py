"""What always holds of plans, whatever a fleet goes through."""

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.fleet import Drain, Plan, Start, demand_limit, plan
from runyard.domain.scaling import ScalingPolicy
from runyard.domain.worker import WorkerPhase
from tests.builders import a_scaling
from tests.unit.domain.stage import Stage
from tests.unit.domain.test_fleet_films import EVENTS

DELAYS = st.fixed_dictionaries({"delay_s": st.sampled_from([0.5, 0.7, 4, 61.3])})
COUNTS = st.fixed_dictionaries({"per_worker": st.integers(1, 5)})

Script = list[tuple[str, float]]
Story = tuple[ScalingPolicy, int, Script]


@st.composite
def scalings(draw: st.DrawFn) -> ScalingPolicy:
    least = draw(st.integers(0, 2))
    scaler = draw(DELAYS | COUNTS)
    return a_scaling(
        workers_min=least,
        workers_max=least + draw(st.integers(0, 4)),
        idle_s=draw(st.sampled_from([1, 1.1, 5, 3600])),
        **scaler,
    )


# "wait" twice as often: much of what can go wrong is a matter of time alone.
SCRIPTS = st.lists(
    st.tuples(st.sampled_from([*EVENTS, "wait"]), st.sampled_from([0, 0.3, 1, 4, 5, 1000])), min_size=5, max_size=25
)
STORIES = st.tuples(scalings(), st.integers(1, 4), SCRIPTS)


def frames(scaling: ScalingPolicy, concurrency: int, script: Script) -> Iterator[tuple[Stage, Plan]]:
    """Play a script; yields the stage before each plan is done, with the plan."""
    stage = Stage(scaling, concurrency)
    for event, pause in script:
        stage.now += pause
        EVENTS[event](stage)
        yield stage, plan(stage.view(stage.now), stage.now)
        stage.plan()


@given(STORIES)
def test_no_plan_takes_a_fleet_over_its_maximum(story: Story) -> None:
    for stage, made in frames(*story):
        starts = sum(isinstance(action, Start) for action in made.actions)

        assert len(stage.workers) + starts <= stage.scaling.workers_max


@given(STORIES)
def test_no_plan_drains_a_busy_or_starting_worker_of_the_current_release(
    story: Story,
) -> None:
    for stage, made in frames(*story):
        for action in made.actions:
            if isinstance(action, Drain):
                worker = stage.workers[action.worker_id]
                assert worker.phase is not WorkerPhase.DRAINING
                assert not worker.current or worker.idle_since is not None


@given(STORIES)
def test_every_action_has_a_reason_to_read(story: Story) -> None:
    for _, made in frames(*story):
        assert all(action.reason for action in made.actions)


@given(STORIES)
def test_a_plan_that_is_done_asks_for_nothing_more(story: Story) -> None:
    stage = Stage(*story[:2])
    for event, pause in story[2]:
        stage.now += pause
        EVENTS[event](stage)
        stage.plan()

        assert () == stage.plan().actions


@given(STORIES)
def test_a_plan_knows_when_it_changes(story: Story) -> None:
    stage = Stage(*story[:2])
    for event, pause in story[2]:
        stage.now += pause
        EVENTS[event](stage)
        stage.plan()
        wake_at = stage.plan().wake_at
        later = [0.001, 0.5, 3.99, 100, 5000] if wake_at is None else [(wake_at - stage.now) * part for part in PARTS]

        assert wake_at is None or wake_at > stage.now
        for at in (stage.now + after for after in later):
            # Where the two times have no other between them, a part of the way is rounded to one of them.
            assert at == wake_at or () == plan(stage.view(at), at).actions


PARTS = (0.1, 0.5, 0.999)


@given(STORIES)
def test_a_plan_never_needs_more_of_the_queue_than_it_asked_for(
    story: Story,
) -> None:
    for stage, made in frames(*story):
        view = stage.view(stage.now)
        concurrency = max((worker.concurrency for worker in view.workers), default=1)
        limit = demand_limit(view.scaling, concurrency)
        whole = replace(view, demand=stage.demand(stage.now, limit + 10**6))
        shown = plan(whole, stage.now)

        assert [_kind(action) for action in made.actions] == [_kind(action) for action in shown.actions]


def _kind(action: object) -> object:
    return action.worker_id if isinstance(action, Drain) else type(action)


@given(STORIES)
def test_a_fleet_left_in_peace_comes_to_its_minimum(story: Story) -> None:
    stage = Stage(*story[:2])
    for event, pause in story[2]:
        stage.now += pause
        EVENTS[event](stage)
        stage.plan()

    stage.queue.clear()
    for _ in range(200):
        stage.ready()
        stage.done()
        stage.gone()
        wake_at = stage.plan().wake_at
        if wake_at is not None:
            stage.now = wake_at
    stage.gone()

    assert "I" * stage.scaling.workers_min == stage.fleet
    assert None is stage.plan().wake_at


@given(STORIES)
def test_every_job_that_may_start_workers_runs_in_the_end(
    story: Story,
) -> None:
    scaling, concurrency, script = story
    stage = Stage(scaling, concurrency)
    for event, pause in script:
        stage.now += pause
        EVENTS[event](stage)
        stage.plan()

    for _ in range(200):
        stage.ready()
        stage.done()
        stage.gone()
        wake_at = stage.plan().wake_at
        if wake_at is not None:
            stage.now = wake_at

    assert scaling.workers_max == 0 or [] == [job for job in stage.queue if not job.low]
