"""Each kind of handler, run by the official SDK in an environment that the platform built, called by the official client."""

from __future__ import annotations

import json

import pytest

from tests.compat.gate import Gate
from tests.compat.platform import Endpoint, result_of, until


@pytest.mark.row("F138")
def test_an_async_handler_is_awaited(awaited: Endpoint) -> None:
    reply = awaited.ask({"do": "return", "value": {"awaited": True}})

    assert {"status": "COMPLETED", "output": {"awaited": True}} == result_of(reply)


@pytest.mark.row("F138", "F141")
def test_an_exception_of_an_async_handler_fails_the_job(awaited: Endpoint) -> None:
    reply = awaited.ask({"do": "raise", "value": "boom"})

    assert ("FAILED", "boom") == (reply["status"], json.loads(reply["error"])["error_message"])


@pytest.mark.row("F140")
def test_one_worker_runs_as_many_jobs_at_once_as_its_handler_allows(awaited: Endpoint, gate: Gate) -> None:
    jobs = [awaited.run({"do": "wait", "gate": gate.port, "value": number}) for number in range(5)]

    guests = gate.next_of(jobs[:4])  # All wait in their handlers now, none has ended.

    assert 1 == len({(guest.worker_id, guest.pid) for guest in guests.values()})
    assert ["IN_PROGRESS"] * 4 + ["IN_QUEUE"] == [awaited.status(job)["status"] for job in jobs]
    assert [4] == [worker["runyard"]["jobs"] for worker in awaited.workers()]
    guests[jobs[2]].let_go()
    assert {"status": "COMPLETED", "output": 2} == result_of(awaited.ended(jobs[2]))
    gate.next_of(jobs[4:])  # The fifth job takes its place.
    gate.close()
    assert [0, 1, 2, 3, 4] == [awaited.ended(job)["output"] for job in jobs]


@pytest.mark.row("F144", "F035")
def test_progress_shows_in_the_status_until_the_result_replaces_it(outcomes: Endpoint, gate: Gate) -> None:
    job = outcomes.run({"do": "progress", "value": {"percent": 25}, "gate": gate.port})
    guest = gate.next()

    seen = until(lambda: (status := outcomes.status(job)).get("output") and status, "progress shows")

    assert {"status": "IN_PROGRESS", "output": {"percent": 25}} == result_of(seen)
    guest.let_go()
    assert {"status": "COMPLETED", "output": "done"} == result_of(outcomes.ended(job))


@pytest.mark.row("F143")
def test_a_worker_that_is_asked_to_refresh_is_replaced_after_the_job(outcomes: Endpoint) -> None:
    before = outcomes.ask({"do": "worker"})["output"]

    refreshed = outcomes.ask({"do": "return", "value": {"refresh_worker": True, "kept": 1}})

    assert {"status": "COMPLETED", "output": {"kept": 1}} == result_of(refreshed)
    after = outcomes.ask({"do": "worker"})["output"]
    assert before["id"] == refreshed["workerId"] != after["id"]
    assert ([], []) == (after["seen"], after["left"])
    assert not [line for line in outcomes.logs(workerId=after["id"]) if refreshed["id"] in line]
    assert "refresh_worker" in outcomes.stopped_worker(before["id"])["runyard"]["reason"]


@pytest.mark.row("F143")
def test_a_handler_configured_to_refresh_gets_a_fresh_worker_for_every_job(refreshing: Endpoint) -> None:
    first = refreshing.ask({"n": 1})
    failed = refreshing.ask({"raise": "boom"})
    third = refreshing.ask({"n": 3})

    assert ["COMPLETED", "FAILED", "COMPLETED"] == [first["status"], failed["status"], third["status"]]
    assert 3 == len({reply["workerId"] for reply in (first, failed, third)})
    assert {"worker": third["workerId"], "seen": []} == third["output"]
    assert {"exit code 0"} == {
        refreshing.stopped_worker(reply["workerId"])["runyard"]["exit"] for reply in (first, failed)
    }
