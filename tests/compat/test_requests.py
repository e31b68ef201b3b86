"""What a request may hold, and what its parameters do."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import requests

from tests.compat.gate import Gate
from tests.compat.platform import Endpoint, result_of, until

MIB = 1 << 20
SECOND_MS = 1000
WEEK_MS = 7 * 24 * 3600 * SECOND_MS


def post(endpoint: Endpoint, path: str, body: bytes) -> requests.Response:
    url = f"{endpoint.platform.url}/v2/{endpoint.id}/{path}"
    return requests.post(url, data=body, headers=endpoint.sdk.rp_client.headers, timeout=60)


def body_of(size: int) -> bytes:
    """A request of exactly so many bytes."""
    empty = len(json.dumps({"input": {"do": "return", "value": "small", "padding": ""}}))
    return json.dumps({"input": {"do": "return", "value": "small", "padding": "x" * (size - empty)}}).encode()


@pytest.mark.parametrize(
    ("path", "bytes_max"),
    [
        pytest.param("run", 10 * MIB, marks=pytest.mark.row("F001")),
        pytest.param("runsync", 20 * MIB, marks=pytest.mark.row("F002")),
    ],
)
def test_a_body_reaches_the_handler_up_to_its_limit(outcomes: Endpoint, path: str, bytes_max: int) -> None:
    taken, refused = post(outcomes, path, body_of(bytes_max)), post(outcomes, path, body_of(bytes_max + 1))

    assert (200, 413) == (taken.status_code, refused.status_code)
    assert ["error"] == list(refused.json())
    assert {"status": "COMPLETED", "output": "small"} == result_of(outcomes.ended(taken.json()["id"]))


@pytest.mark.row("F019", "F021", "F041")
@pytest.mark.parametrize("path", ["run", "runsync"])
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, '"input"'),
        ({"webhook": "http://127.0.0.1:9/"}, '"input"'),
        ([], "object"),
        ({"input": {}, "policy": {"executionTimeout": 5 * SECOND_MS - 1}}, "policy.executionTimeout"),
        ({"input": {}, "policy": {"executionTimeout": WEEK_MS + 1}}, "policy.executionTimeout"),
    ],
)
def test_a_request_that_cannot_be_run_is_refused_by_what_is_wrong_with_it(
    outcomes: Endpoint, path: str, body: Any, named: str
) -> None:
    reply = post(outcomes, path, json.dumps(body).encode())

    assert 400 == reply.status_code
    assert named in reply.json()["error"]


@pytest.mark.row("F003", "F004")
@pytest.mark.parametrize(("wait", "seconds"), [("1500", 1.5), ("1", 1.0)])
def test_a_synchronous_call_waits_as_long_as_it_is_told_and_the_job_goes_on(
    awaited: Endpoint, gate: Gate, wait: str, seconds: float
) -> None:
    began = time.monotonic()
    reply = post(awaited, f"runsync?wait={wait}", json.dumps({"input": {"do": "wait", "gate": gate.port}}).encode())
    waited = time.monotonic() - began

    assert (200, {"status": "IN_PROGRESS"}) == (reply.status_code, result_of(reply.json()))
    assert seconds <= waited < seconds + 2
    gate.next().let_go()
    assert "COMPLETED" == awaited.ended(reply.json()["id"])["status"]


@pytest.mark.row("F006", "F010")
def test_a_status_call_can_shorten_a_jobs_life_and_an_expired_job_cannot_be_retried(outcomes: Endpoint) -> None:
    job = outcomes.ask({"do": "raise", "value": "boom"})["id"]
    began = time.monotonic()

    shown = outcomes.sdk.rp_client.get(f"{outcomes.id}/status/{job}?ttl=1500")

    assert "FAILED" == shown["status"]
    path = f"/v2/{outcomes.id}/status/{job}"
    until(lambda: outcomes.platform.http.get(path).status_code == 404, "the job expires", 5)
    assert 1.4 < time.monotonic() - began < 4
    assert 404 == post(outcomes, f"retry/{job}", b"").status_code


@pytest.mark.row("F119", "F001")
def test_a_worker_gets_an_input_of_5_mb_as_it_was_sent(outcomes: Endpoint) -> None:
    value = ['é "\\ ' * 1000 for _ in range(420)]
    job_id = outcomes.run({"do": "return", "value": value})

    assert {"status": "COMPLETED", "output": value} == result_of(outcomes.ended(job_id))


@pytest.mark.row("F120")
def test_a_worker_gets_several_inputs_of_5_mb_at_once(awaited: Endpoint) -> None:
    values = [f"{number} " * 2_500_000 for number in range(6)]
    job_ids = [awaited.run({"do": "return", "value": value}) for value in values]

    assert values == [result_of(awaited.ended(job_id))["output"] for job_id in job_ids]
