"""What the official clients for Python make of a limit. No worker runs, so the limits are those without any."""

from __future__ import annotations

import time
from collections.abc import Iterator

import aiohttp
import openai
import pytest
import requests
import runpod
from runpod import AsyncioEndpoint

from tests.compat.platform import Endpoint, running

WINDOW_S = 3
LIMITS = {
    "RUNYARD_LIMITS": "runpod",
    "RUNYARD_LIMITS_RUN": f"{{ requests = 2, window_s = {WINDOW_S} }}",
    "RUNYARD_LIMITS_OPENAI": f"{{ requests = 1, window_s = {WINDOW_S} }}",
    "RUNYARD_LIMITS_STATUS": f"{{ requests = 2, window_s = {WINDOW_S} }}",
}
JOB = {"input": {"do": "return", "value": 1}}


@pytest.fixture(scope="module")
def limited() -> Iterator[Endpoint]:
    with running(LIMITS) as platform, pytest.MonkeyPatch.context() as patch:
        patch.setattr(runpod, "endpoint_url_base", f"{platform.url}/v2")
        patch.setattr(runpod, "api_key", platform.key)
        yield platform.deploy("outcomes.py", "limited", "--workers-max", "0")


@pytest.fixture(autouse=True)
def _nothing_was_asked_lately(limited: Endpoint) -> None:
    time.sleep(WINDOW_S)


@pytest.mark.row("F036", "F041")
def test_a_run_beyond_the_limit_raises_429_and_is_taken_after_retry_after(limited: Endpoint) -> None:
    for _ in range(2):
        limited.sdk.run(JOB)

    with pytest.raises(requests.HTTPError, match="429 Client Error: Too Many Requests") as raised:
        limited.sdk.run(JOB)

    refused = raised.value.response
    assert ["error"] == list(refused.json())
    assert "2 run requests in 3 s" in refused.json()["error"]
    time.sleep(int(refused.headers["Retry-After"]))
    assert limited.sdk.run(JOB).job_id


def test_a_status_beyond_the_limit_comes_late_and_the_program_notices_nothing(limited: Endpoint) -> None:
    job = limited.sdk.run(JOB)
    began = time.monotonic()

    assert ["IN_QUEUE"] * 3 == [job.status() for _ in range(3)]
    assert 1 <= time.monotonic() - began < 2 * WINDOW_S


@pytest.mark.row("F037")
def test_an_openai_client_asks_again_when_told_and_else_raises_what_it_calls_a_rate_limit(limited: Endpoint) -> None:
    platform = limited.platform
    client = openai.OpenAI(base_url=f"{platform.url}/v2/{limited.id}/openai/v1", api_key=platform.key, timeout=0.5)
    impatient, patient = client.with_options(max_retries=0), client.with_options(max_retries=1)
    with client:
        with pytest.raises(openai.APITimeoutError):  # It is taken, and there is no worker.
            impatient.models.list()
        with pytest.raises(openai.RateLimitError, match="1 openai requests in 3 s"):
            impatient.models.list()
        began = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            patient.models.list()

    assert 1 < time.monotonic() - began < 2 * WINDOW_S


@pytest.mark.row("F038")
def test_a_third_purge_within_ten_seconds_raises_429(limited: Endpoint) -> None:
    for _ in range(2):
        limited.sdk.purge_queue()

    with pytest.raises(requests.HTTPError, match="429"):
        limited.sdk.purge_queue()


async def test_the_asyncio_face_sees_the_limit_as_an_answer_without_an_id(limited: Endpoint) -> None:
    async with aiohttp.ClientSession() as session:
        endpoint = AsyncioEndpoint(limited.id, session)
        for _ in range(2):
            await endpoint.run(JOB["input"])

        with pytest.raises(KeyError, match="id"):
            await endpoint.run(JOB["input"])


def test_refusals_are_counted_and_the_control_plane_has_no_limit(limited: Endpoint) -> None:
    for _ in range(2):
        limited.sdk.run(JOB)
    with pytest.raises(requests.HTTPError, match="429"):
        limited.sdk.run(JOB)

    metrics = limited.platform.http.get("/metrics").text
    (line,) = (line for line in metrics.splitlines() if 'operation="run",status="429"' in line)
    assert float(line.split()[-1]) >= 1
    assert {limited.id} == {limited.settings()["id"] for _ in range(50)}
