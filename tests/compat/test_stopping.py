"""Jobs that are stopped while they run: by cancel, by their execution time, politely or with their worker."""

from __future__ import annotations

import time

import pytest

from tests.compat.gate import Gate
from tests.compat.platform import STOP_GRACE_S, Endpoint, result_of


@pytest.mark.row("F009", "F025", "F029")
def test_cancelling_a_running_job_stops_its_handler_and_leaves_its_siblings(awaited: Endpoint, gate: Gate) -> None:
    job, *siblings = (awaited.sdk.run({"input": {"do": "wait", "gate": gate.port}}) for _ in range(3))
    guests = gate.next_of([job.job_id, *(sibling.job_id for sibling in siblings)])

    reply = job.cancel()

    assert {"id": job.job_id, "status": "CANCELLED"} == reply
    assert "cancelled" == guests[job.job_id].last_words()  # The handler got a CancelledError.
    time.sleep(STOP_GRACE_S + 0.5)  # By now a worker that had not stopped its job would be on its way out.
    assert [True, True] == [guests[sibling.job_id].is_waiting() for sibling in siblings]
    gate.close()
    ends = [awaited.ended(sibling.job_id) for sibling in siblings]
    worker_id = guests[job.job_id].worker_id
    assert [("COMPLETED", worker_id)] * 2 == [(end["status"], end["workerId"]) for end in ends]
    assert worker_id == awaited.ask({"do": "return", "value": 1})["workerId"]
    assert {"status": "CANCELLED"} == result_of(awaited.status(job.job_id))


@pytest.mark.row("F029")
def test_a_job_whose_time_is_over_is_stopped_alone(awaited: Endpoint, gate: Gate) -> None:
    """By its execution timeout, or by its time to live while it runs."""
    slow = awaited.run({"do": "wait", "gate": gate.port}, policy={"executionTimeout": 5_000})
    late = awaited.run({"do": "wait", "gate": gate.port}, policy={"ttl": 10_000})
    siblings = [awaited.run({"do": "wait", "gate": gate.port}) for _ in range(2)]
    guests = gate.next_of([slow, late, *siblings])

    assert ["cancelled", "cancelled"] == [guests[job_id].last_words() for job_id in (slow, late)]
    time.sleep(STOP_GRACE_S + 0.5)  # By now a worker that had not stopped its job would be on its way out.
    assert [True, True] == [guests[job_id].is_waiting() for job_id in siblings]
    gate.close()
    ends = [awaited.ended(job_id) for job_id in siblings]
    assert [("COMPLETED", guests[slow].worker_id)] * 2 == [(end["status"], end["workerId"]) for end in ends]
    assert "TIMED_OUT" == awaited.status(slow)["status"]


@pytest.mark.row("F009")
def test_cancelling_a_blocking_job_ends_its_worker(outcomes: Endpoint, gate: Gate) -> None:
    """A plain handler hears no stop signal: it blocks the loop that would hear it."""
    job = outcomes.sdk.run({"input": {"do": "wait", "gate": gate.port}})
    guest = gate.next()

    reply = job.cancel()

    assert {"id": job.job_id, "status": "CANCELLED"} == reply
    assert "" == guest.last_words()  # Its process is gone.
    after = outcomes.ask({"do": "worker"})
    assert ("COMPLETED", True) == (after["status"], after["workerId"] != guest.worker_id)
    stopped = outcomes.stopped_worker(guest.worker_id)["runyard"]
    assert f"did not stop job {job.job_id}" in stopped["reason"]
    assert {"status": "CANCELLED"} == result_of(outcomes.status(job.job_id))


@pytest.mark.row("F021", "F025", "F026", "F027", "F033")
def test_a_job_that_overruns_its_execution_time_is_stopped_and_time_in_the_queue_does_not_count(
    outcomes: Endpoint, awaited: Endpoint, gate: Gate
) -> None:
    policy = {"executionTimeout": 5000}
    blocking = outcomes.run({"do": "wait", "gate": gate.port}, policy=policy)
    polite = awaited.run({"do": "wait", "gate": gate.port}, policy=policy)
    guests = gate.next_of([blocking, polite])
    behind = outcomes.run({"do": "return", "value": "in time"}, policy=policy)

    ends = [outcomes.ended(blocking), awaited.ended(polite)]

    assert ["TIMED_OUT", "TIMED_OUT"] == [end["status"] for end in ends]
    assert ["execution timeout: the job ran longer than 5 seconds"] * 2 == [end["error"] for end in ends]
    assert [True, True] == [5000 <= end["executionTime"] < 8000 for end in ends]
    assert ("", "cancelled") == (guests[blocking].last_words(), guests[polite].last_words())
    waited = outcomes.ended(behind)
    assert {"status": "COMPLETED", "output": "in time"} == result_of(waited)
    assert waited["delayTime"] > 5000
    assert waited["workerId"] != guests[blocking].worker_id
