"""What the official Go client sends and demands, request by request.

Its toolchain cannot be had where this runs, so its wire stands in for it: every call a POST but `health`, exactly 200 for an
answer, whole numbers for times, text for an error.
"""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.compat.platform import Endpoint


def go(endpoint: Endpoint, method: str, path: str, body: object = None) -> dict[str, Any]:
    """One call as `pkg/sdk` makes it: Bearer key, JSON both ways, any status but 200 is an error."""
    url = f"{endpoint.platform.url}/v2/{endpoint.id}/{path}"
    headers = {"Authorization": f"Bearer {endpoint.platform.key}", "Content-Type": "application/json"}
    reply = requests.request(method, url, headers=headers, json=body, timeout=60)

    assert 200 == reply.status_code, reply.text
    decoded = reply.json()
    assert isinstance(decoded, dict)
    for name, kind in (("delayTime", int), ("executionTime", int), ("error", str), ("status", str), ("id", str)):
        assert name not in decoded or type(decoded[name]) is kind, decoded
    return decoded


@pytest.mark.row("F018")
def test_run_then_status_and_stream_by_post(outcomes: Endpoint) -> None:
    job = go(outcomes, "POST", "run", {"input": {"do": "return", "value": {"n": 1}}})
    ended = go(outcomes, "POST", f"status-sync/{job['id']}?wait=30000")

    assert ("COMPLETED", {"n": 1}) == (ended["status"], ended["output"])
    assert ended == go(outcomes, "POST", f"status/{job['id']}")
    assert [] == go(outcomes, "POST", f"stream/{job['id']}?wait=1000")["stream"]


@pytest.mark.row("F018")
def test_a_failure_has_text_for_an_error(outcomes: Endpoint) -> None:
    ended = go(outcomes, "POST", "runsync?wait=60000", {"input": {"do": "return", "value": {"error": {"code": 3}}}})

    assert ("FAILED", '{"code": 3}') == (ended["status"], ended["error"])


@pytest.mark.row("F018")
def test_cancel_purge_and_health(outcomes: Endpoint) -> None:
    job = go(outcomes, "POST", "run", {"input": {"do": "return", "value": 1}})

    assert job["id"] == go(outcomes, "POST", f"cancel/{job['id']}")["id"]
    assert "completed" == go(outcomes, "POST", "purge-queue")["status"]
    assert {"jobs", "workers"} == go(outcomes, "GET", "health").keys()
