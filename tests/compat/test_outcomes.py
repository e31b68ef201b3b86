"""Every way in which a plain handler can end by itself, as the official client sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.compat.platform import Endpoint, result_of

RETURNED: dict[str, Any] = {
    "dict": {"a": 1, "b": {"c": [2]}},
    "str": "some text ✓",
    "list": [1, "two", None],
    "true": True,
    "false": False,
    "number": 1.5,
    "None": None,
}


@pytest.mark.row("F121", "F136")
@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_handler_returns_is_the_output(outcomes: Endpoint, kind: str) -> None:
    reply = outcomes.ask({"do": "return", "value": RETURNED[kind]})

    assert {"status": "COMPLETED", "output": RETURNED[kind]} == result_of(reply)
    assert result_of(reply) == result_of(outcomes.status(reply["id"]))


@pytest.mark.row("F121")
def test_an_empty_dict_is_a_success_without_output(outcomes: Endpoint) -> None:
    reply = outcomes.ask({"do": "return", "value": {}})

    assert {"status": "COMPLETED"} == result_of(reply)


@pytest.mark.row("F136", "F019")
def test_a_handler_gets_the_job_with_its_id_and_input(outcomes: Endpoint) -> None:
    sent = {"do": "job", "text": "ä ✓ \U0001f600", "deep": [{"n": 12345678901234567890, "f": 0.1, "none": None}], "": 0}

    reply = outcomes.ask(sent)

    assert {"id": reply["id"], "input": sent} == reply["output"]


@pytest.mark.row("F024")
def test_storage_credentials_reach_the_handler_and_are_not_shown(outcomes: Endpoint) -> None:
    credentials = {"accessId": "AKIA", "accessSecret": "hush", "bucketName": "b", "endpointUrl": "http://127.0.0.1:9"}

    reply = outcomes.ask({"do": "s3"}, s3Config=credentials)

    assert {"status": "COMPLETED", "output": credentials} == result_of(reply)
    shown = outcomes.status(outcomes.run({"do": "return", "value": 1}, s3Config=credentials))
    assert "hush" not in json.dumps(shown)


@pytest.mark.row("F025", "F033", "F121", "F141")
def test_an_exception_fails_the_job_and_its_details_are_the_error(outcomes: Endpoint) -> None:
    reply = outcomes.ask({"do": "raise", "value": "no such model"})

    assert ("FAILED", str) == (reply["status"], type(reply["error"]))
    details = json.loads(reply["error"])
    assert ("<class 'ValueError'>", "no such model") == (details["error_type"], details["error_message"])
    assert 'raise ValueError(job["input"]["value"])' in details["error_traceback"]
    assert (reply["workerId"], "1.12.0") == (details["worker_id"], details["runpod_version"])
    assert "output" not in reply


@pytest.mark.row("F121", "F142", "F033")
def test_a_returned_error_fails_the_job_and_keeps_the_rest_as_output(outcomes: Endpoint) -> None:
    reply = outcomes.ask({"do": "return", "value": {"error": "bad input", "detail": 7}})

    assert {"status": "FAILED", "error": "bad input", "output": {"detail": 7}} == result_of(reply)


@pytest.mark.row("F121", "F142", "F033")
def test_a_returned_error_that_is_an_object_is_shown_as_a_string(outcomes: Endpoint) -> None:
    error = {"code": 3, "msg": "obj"}

    reply = outcomes.ask({"do": "return", "value": {"error": error}})

    assert ("FAILED", error) == (reply["status"], json.loads(reply["error"]))
    assert "output" not in reply


@pytest.mark.row("F121")
def test_numbers_that_json_lacks_become_null(outcomes: Endpoint) -> None:
    reply = outcomes.ask({"do": "not a number"})

    mended = {"nan": None, "infinities": [None, None], "one": 1.5}
    assert {"status": "COMPLETED", "output": mended} == result_of(reply)


@pytest.mark.row("F032", "F113")
def test_a_job_names_the_worker_that_served_it_and_the_worker_its_endpoint(outcomes: Endpoint) -> None:
    reply = outcomes.ask({"do": "worker"})

    assert (reply["workerId"], outcomes.id) == (reply["output"]["id"], reply["output"]["endpoint"])
    assert [reply["workerId"]] == [worker["id"] for worker in outcomes.workers()]


@pytest.mark.row("F131")
def test_the_sdks_structured_log_lines_are_kept_as_they_are(outcomes: Endpoint) -> None:
    reply = outcomes.ask({"do": "worker"})

    lines = outcomes.logs(jobId=reply["id"])
    assert f"here is {reply['id']}" in lines
    said = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"requestId": reply["id"], "message": "Started.", "level": "INFO"} in said
