"""What the official worker and the platform say to each other. The worker writes it down itself (handlers/tap.py)."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.compat.early import HELD_S, Held
from tests.compat.gate import Gate
from tests.compat.platform import Endpoint, result_of, until

IDLE_S = 60.0
POLLS_A_MINUTE_MAX = 4
HOLD_S_MAX = 30
"""A worker of some versions leaves a poll after 30 s, and what it is then given is lost."""
PING_INTERVAL_S = 10

Call = dict[str, Any]


def calls(endpoint: Endpoint) -> list[Call]:
    """All that the endpoint's worker has asked the platform, and how it was answered."""
    return endpoint.ask({"do": "calls"})["output"]


def of(route: str, made: list[Call]) -> list[Call]:
    return [call for call in made if f"/{route}/" in call["url"]]


def query(call: Call) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(call["url"]).query).items()}


@pytest.mark.row("F121")
def test_a_result_is_posted_as_json_text_under_a_forms_content_type(awaited: Endpoint) -> None:
    good = awaited.ask({"do": "return", "value": {"ä": 1}})
    bad = awaited.ask({"do": "return", "value": {"error": "no", "rest": 2}})

    done = {
        job["id"]: call for call in of("job-done", calls(awaited)) for job in (good, bad) if job["id"] in call["url"]
    }

    posts = [done[good["id"]], done[bad["id"]]]
    assert {("POST", "application/x-www-form-urlencoded", 200, "false")} == {
        (call["method"], call["content_type"], call["status"], query(call)["isStream"]) for call in posts
    }
    assert [{"output": {"ä": 1}}, {"output": {"rest": 2}, "error": "no"}] == [
        json.loads(call["body"]) for call in posts
    ]


@pytest.mark.row("F122", "F121")
def test_each_piece_of_a_generator_is_posted_as_it_is_made(aggregating: Endpoint) -> None:
    pieces: list[Any] = ["one", {"two": 2}, "ä"]
    job = aggregating.ask({"chunks": pieces})

    [everything] = aggregating.ask({"calls": True})["output"]
    made = [call for call in everything if job["id"] in call["url"]]

    assert [{"output": piece} for piece in pieces] == [json.loads(call["body"]) for call in of("job-stream", made)]
    [done] = of("job-done", made)
    assert ("true", {"output": pieces}) == (query(done)["isStream"], json.loads(done["body"]))
    assert {("POST", 200)} == {(call["method"], call["status"]) for call in [*of("job-stream", made), done]}


@pytest.mark.row("F123")
def test_a_worker_hears_on_its_stop_channel_which_job_to_stop(awaited: Endpoint, gate: Gate) -> None:
    job = awaited.sdk.run({"input": {"do": "wait", "gate": gate.port}})
    guest = gate.next()
    job.cancel()
    assert "cancelled" == guest.last_words()

    stops = [call for call in of("job-stop", calls(awaited)) if job.job_id in call["answer"]]

    assert [(200, {"jobsToStop": [job.job_id]})] == [(call["status"], json.loads(call["answer"])) for call in stops]


# --- Looked at late: what is begun before the first test


@pytest.mark.row("F119", "F123")
def test_an_idle_worker_asks_seldom_and_each_poll_is_held_and_answered_with_nothing(idle: Endpoint) -> None:
    def has_idled() -> bool:
        return any((worker["uptimeSeconds"] or 0) > IDLE_S + HOLD_S_MAX for worker in idle.workers())

    until(has_idled, f"a worker has idled for {IDLE_S + HOLD_S_MAX:g} s", 2 * (IDLE_S + HOLD_S_MAX))
    before = time.time()

    made = [call for call in calls(idle) if before - IDLE_S <= call["ended"] < before]

    takes, stops = of("job-take", made), of("job-stop", made)
    assert [True, True] == [2 <= len(polls) <= POLLS_A_MINUTE_MAX for polls in (takes, stops)]
    assert {("GET", 204, "")} == {(call["method"], call["status"], call["answer"]) for call in takes + stops}
    assert [] == [call for call in takes + stops if not 15 < call["ended"] - call["began"] < HOLD_S_MAX]


@pytest.mark.row("F119")
def test_a_worker_that_has_room_for_one_job_is_given_it_as_an_object(idle: Endpoint) -> None:
    job = idle.ask({"do": "return", "value": 1})

    [take] = [call for call in of("job-take", calls(idle)) if job["id"] in call["answer"]]

    assert ("GET", 200, True) == (take["method"], take["status"], take["authorized"])
    assert {"id": job["id"], "input": {"do": "return", "value": 1}} == json.loads(take["answer"])


@pytest.mark.row("F124")
def test_workers_ping_every_ten_seconds(idle: Endpoint) -> None:
    pings = of("ping", calls(idle))

    assert {("GET", 200, "1.12.0")} == {
        (ping["method"], ping["status"], query(ping)["runpod_version"]) for ping in pings
    }
    assert "job_id" not in query(pings[0])
    gaps = [after["began"] - before["began"] for before, after in pairwise(pings)]
    assert len(gaps) >= 3
    assert [] == [gap for gap in gaps if not PING_INTERVAL_S - 1 < gap < PING_INTERVAL_S + 5]
    assert ["1.12.0"] == [worker["runyard"]["sdkVersion"] for worker in idle.workers()]


@pytest.mark.row("F003", "F004")
def test_a_synchronous_call_waits_90_seconds_and_the_client_then_polls_for_the_result(held: Held) -> None:
    assert "slept" == held.output.result(timeout=2 * HELD_S)

    first, *polls = held.replies
    assert first.url.endswith("/runsync")
    assert held.heads[0] < 3, "its head comes early, with the job's id"
    assert 89 < held.heads[1] < 95, "the client asks again when the wait is over"
    job_id = first.json()["id"]
    assert (200, {"status": "IN_PROGRESS"}) == (first.status_code, result_of(first.json()))
    assert {f"/v2/{held.endpoint.id}/status/{job_id}"} == {urlsplit(poll.url).path for poll in polls}
    assert {"status": "COMPLETED", "output": "slept"} == result_of(polls[-1].json())


@pytest.mark.row("F124")
def test_pings_name_the_job_in_hand(held: Held) -> None:
    held.output.result(timeout=2 * HELD_S)
    job_id = held.replies[0].json()["id"]

    named = [query(ping).get("job_id", "") for ping in of("ping", calls(held.endpoint))]

    assert len([jobs for jobs in named if job_id in jobs.split(",")]) >= HELD_S // PING_INTERVAL_S - 1


@pytest.mark.row("F120")
def test_a_worker_that_has_room_for_several_jobs_is_given_a_list(held: Held) -> None:
    held.output.result(timeout=2 * HELD_S)
    jobs = {held.replies[0].json()["id"], *held.beside}

    [take] = [call for call in of("job-take-batch", calls(held.endpoint)) if held.beside[0] in call["answer"]]

    assert (200, "3") == (take["status"], query(take)["batch_size"])
    assert jobs == {job["id"] for job in json.loads(take["answer"])}
