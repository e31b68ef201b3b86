"""From no worker to one and back, with the official worker."""

from __future__ import annotations

import time

import pytest

from tests.compat.platform import Platform, result_of, until

IDLE_S = 2


def test_workers_come_with_work_and_go_without(platform: Platform) -> None:
    endpoint = platform.deploy("outcomes.py", "from zero", "--idle-timeout", str(IDLE_S))
    assert [] == endpoint.workers()

    first = endpoint.ask({"do": "worker"})
    ended = time.monotonic()
    assert [first["workerId"]] == [worker["id"] for worker in endpoint.workers()]
    until(lambda: not endpoint.workers(), "the worker goes")
    stayed = time.monotonic() - ended

    facts = endpoint.stopped()[first["workerId"]]["runyard"]
    assert (f"idle for {IDLE_S} s", "exit code 0") == (facts["reason"], facts["exit"])
    assert IDLE_S - 0.5 < stayed < IDLE_S + 5
    assert {"idle": 0, "running": 0} == {name: endpoint.sdk.health()["workers"][name] for name in ("idle", "running")}
    again = endpoint.ask({"do": "worker"})
    assert ("COMPLETED", True) == (again["status"], again["workerId"] != first["workerId"])


@pytest.mark.row("F023")
def test_a_low_priority_job_starts_no_worker_but_is_done_beside_others(platform: Platform) -> None:
    endpoint = platform.deploy("outcomes.py", "low priority", "--idle-timeout", str(IDLE_S))
    patient = endpoint.run({"do": "return", "value": "patient"}, policy={"lowPriority": True})

    def reason() -> str:
        return endpoint.status(patient).get("queueReason", {}).get("code")

    until(lambda: reason() == "low_priority", "the planner has seen the job")
    time.sleep(1)  # It plans again within a fraction of this, and a start would show at once.
    assert ([], {}) == (endpoint.workers(), endpoint.stopped())

    pressing = endpoint.ask({"do": "return", "value": "pressing"})

    assert {"status": "COMPLETED", "output": "pressing"} == result_of(pressing)
    assert {"status": "COMPLETED", "output": "patient"} == result_of(endpoint.ended(patient))
    assert pressing["workerId"] == endpoint.ended(patient)["workerId"]
