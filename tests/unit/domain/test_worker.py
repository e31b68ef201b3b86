"""The life of a worker, and what people see of it."""

import pytest

from runyard.domain.worker import Exit, Worker, WorkerPhase, WorkerState
from tests.builders import START, a_worker

READY = a_worker().spawned(START + 1).heard(START + 2)
DRAINING = READY.drain("idle for 5 s")


def test_a_worker_lives_forward_only() -> None:
    worker = a_worker()
    phases = [worker.phase]
    for step in (lambda w: w.heard(START + 1), lambda w: w.drain("old"), lambda w: w.stopped(START + 2, Exit(0))):
        worker = step(worker)
        phases.append(worker.phase)

    assert list(WorkerPhase) == phases


def test_only_a_poll_or_ping_makes_a_worker_ready() -> None:
    spawned = a_worker().spawned(START + 1)

    assert (WorkerPhase.STARTING, START + 1, None) == (spawned.phase, spawned.spawned_at, spawned.ready_at)
    assert (WorkerPhase.READY, START + 2) == (READY.phase, READY.ready_at)


def test_a_draining_worker_stays_so_when_it_is_heard() -> None:
    assert WorkerPhase.DRAINING == DRAINING.heard(START + 9).phase


def test_the_first_reason_to_drain_stays() -> None:
    assert "idle for 5 s" == DRAINING.drain("another reason").stop_reason


def test_what_has_stopped_stays_as_it_stopped() -> None:
    stopped = READY.stopped(START + 5, Exit(None, 9))

    assert stopped == stopped.stopped(START + 6, Exit(0)) == stopped.drain("too late")
    assert (START + 5, Exit(None, 9)) == (stopped.stopped_at, stopped.exit)


@pytest.mark.parametrize(
    ("worker", "takes_jobs", "alive"),
    [
        (a_worker(), True, True),
        (READY, True, True),
        (DRAINING, False, True),
        (READY.stopped(START, None), False, False),
    ],
    ids=["starting", "ready", "draining", "stopped"],
)
def test_who_drains_or_has_stopped_takes_no_jobs(worker: Worker, takes_jobs: bool, alive: bool) -> None:
    assert (takes_jobs, alive) == (worker.takes_jobs, worker.alive)


@pytest.mark.parametrize(
    ("worker", "busy", "state"),
    [
        (a_worker(), False, WorkerState.INITIALIZING),
        (a_worker().spawned(START), False, WorkerState.INITIALIZING),
        (a_worker().drain("the endpoint was deleted"), False, WorkerState.INITIALIZING),
        (READY, False, WorkerState.IDLE),
        (READY, True, WorkerState.RUNNING),
        (DRAINING, True, WorkerState.RUNNING),
        (READY.ailing("no GPU"), True, WorkerState.UNHEALTHY),
        (a_worker().ailing("no GPU"), False, WorkerState.UNHEALTHY),
        (READY.stopped(START, Exit(1)), False, WorkerState.UNHEALTHY),
        (DRAINING.stopped(START, Exit(0)), False, WorkerState.IDLE),
    ],
    ids="starting spawned unwanted idle running finishing ailing ailing-early crashed stopped".split(),
)
def test_people_see_a_state_made_from_the_facts(worker: Worker, busy: bool, state: WorkerState) -> None:
    assert state == worker.state(busy=busy)


def test_an_exit_reads_as_what_ended_the_process() -> None:
    assert ["exit code 1", "killed by signal 9"] == [str(Exit(1)), str(Exit(None, 9))]
