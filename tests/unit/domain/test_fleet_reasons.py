"""Why a job waits, as its client reads it."""

import pytest

from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.domain.fleet import Demand, Failures, FleetView, QueueReason, plan, preparing
from tests.builders import START, a_busy, a_draining, a_release, a_scaling, a_starting, a_view, an_idle

WAITING = Demand(queued=1, pressing=1, oldest_at=START, next_at=START)
LOW = Demand(queued=1)
PULLED = RunSpec(container=ContainerSpec(image="org/app:1"))
BUILT = RunSpec(bundle="a" * 64, container=ContainerSpec())
CRASHING = Failures(count=3, last_at=START - 1.5, code="crash_loop", message="worker w ended (exit code 1): no module")

CASES = {
    "building_environment": (
        a_view(a_starting(building=True), demand=WAITING, preparing=preparing(a_release().run)),
        "the environment of the release is being built",
    ),
    "building_image": (
        a_view(a_starting(building=True), demand=WAITING, preparing=preparing(BUILT, "Step 2/3 : RUN pip install x")),
        "Step 2/3 : RUN pip install x",
    ),
    "pulling_image": (
        a_view(a_starting(building=True), demand=WAITING, preparing=preparing(PULLED)),
        "org/app:1 is being pulled",
    ),
    "pulling_image, and how far": (
        a_view(a_starting(building=True), demand=WAITING, preparing=preparing(PULLED, "pulling app: 3 of 7 layers")),
        "pulling app: 3 of 7 layers",
    ),
    "starting_worker, already": (
        a_view(a_starting("a"), a_starting("b"), a_busy(), demand=WAITING, scaling=a_scaling(workers_max=9)),
        "2 worker(s) starting",
    ),
    "starting_worker, from now": (a_view(demand=WAITING), "1 worker(s) starting"),
    "crash_loop": (
        a_view(demand=WAITING, failures=CRASHING),
        "worker w ended (exit code 1): no module; next start in 2 s",
    ),
    "workers_max_zero": (
        a_view(demand=WAITING, scaling=a_scaling(workers_max=0)),
        "workers.max is 0; raise it to let workers start",
    ),
    "workers_max_reached": (
        a_view(a_busy("a"), a_draining("b"), demand=WAITING, scaling=a_scaling(workers_max=2)),
        "all 2 of workers.max=2 workers are busy",
    ),
    "low_priority": (a_view(demand=LOW), "only low-priority jobs wait; they start no worker"),
    "waiting_for_scaler": (
        a_view(a_busy(), demand=WAITING),
        "1 worker(s) busy; another starts when a job has waited 4 s",
    ),
    "waiting_for_scaler, by count": (
        a_view(a_busy(), demand=WAITING, scaling=a_scaling(per_worker=7)),
        "1 worker(s) busy; another starts for every 7 requests",
    ),
}


@pytest.mark.parametrize(("case", "view", "message"), [(case, *rest) for case, rest in CASES.items()], ids=list(CASES))
def test_a_job_that_waits_is_told_why(case: str, view: FleetView, message: str) -> None:
    waiting = plan(view, START).waiting

    assert waiting is not None
    assert QueueReason(case.partition(",")[0], message) == waiting.at(START)


def test_no_reason_is_given_when_nothing_waits() -> None:
    assert None is plan(a_view(an_idle(), a_busy()), START).waiting
