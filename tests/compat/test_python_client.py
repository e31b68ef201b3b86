"""The official Python client, as it is: its base URL is the only thing a program has to change."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import runpod

from tests.compat.gate import Gate
from tests.compat.platform import Endpoint, Platform, result_of

PROGRAM = """
import json, os, sys, runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(sys.argv[1])
print(json.dumps([runpod.endpoint_url_base, endpoint.run_sync({"input": {"do": "return", "value": "hi"}}, timeout=60)]))
"""


@pytest.mark.row("F016", "F018")
def test_a_program_needs_nothing_but_the_base_url_in_its_environment(outcomes: Endpoint) -> None:
    platform = outcomes.platform
    env = {"RUNPOD_ENDPOINT_BASE_URL": f"{platform.url}/v2", "RUNPOD_API_KEY": platform.key}
    command = [sys.executable, "-c", PROGRAM, outcomes.id]

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (0, "") == (done.returncode, done.stderr)
    assert [f"{platform.url}/v2", "hi"] == json.loads(done.stdout)
    assert outcomes.name not in outcomes.id


@pytest.mark.row("F001", "F005", "F025")
def test_run_returns_at_once_and_the_result_follows(outcomes: Endpoint, gate: Gate) -> None:
    job = outcomes.sdk.run({"input": {"do": "wait", "gate": gate.port, "value": {"n": 1}}})
    guest = gate.next()

    assert ("IN_PROGRESS", job.job_id) == (job.status(), guest.job_id)
    assert job.output() is None
    guest.let_go()
    assert ({"n": 1}, "COMPLETED") == (job.output(timeout=60), job.status())


@pytest.mark.row("F001", "F015")
def test_run_answers_id_and_status_alone(outcomes: Endpoint) -> None:
    reply = outcomes.sdk.rp_client.post(f"{outcomes.id}/run", {"input": {"do": "return", "value": 1}})

    assert {"id": reply["id"], "status": "IN_QUEUE"} == reply
    assert is_job_id(reply["id"])
    outcomes.ended(reply["id"])


@pytest.mark.row("F002", "F015")
def test_runsync_returns_the_result_which_can_be_looked_up_later(outcomes: Endpoint) -> None:
    assert "hi" == outcomes.sdk.run_sync({"input": {"do": "return", "value": "hi"}})

    reply = outcomes.ask({"do": "return", "value": "hi"})

    assert reply["id"].startswith("sync-")
    assert is_job_id(reply["id"].removeprefix("sync-"))
    assert result_of(reply) == result_of(outcomes.status(reply["id"]))


def test_run_sync_returns_none_for_a_failed_job(outcomes: Endpoint) -> None:
    assert outcomes.sdk.run_sync({"input": {"do": "raise", "value": "boom"}}) is None


@pytest.mark.row("F005", "F031")
def test_the_status_tells_how_long_a_job_waited_and_worked(outcomes: Endpoint, gate: Gate) -> None:
    first = outcomes.run({"do": "sleep", "seconds": 1.5})
    second = outcomes.run({"do": "return", "value": 2})

    a, b = outcomes.ended(first), outcomes.ended(second)

    assert [int] * 4 == [type(status[name]) for status in (a, b) for name in ("delayTime", "executionTime")]
    assert 1500 <= a["executionTime"] < 3000
    assert b["executionTime"] < 1000
    assert 1000 <= b["delayTime"] < 6000


@pytest.mark.row("F017")
def test_jobs_are_worked_on_in_the_order_they_came(outcomes: Endpoint, gate: Gate) -> None:
    first = outcomes.run({"do": "wait", "gate": gate.port})
    gate.next()
    jobs = [outcomes.run({"do": "order"}) for _ in range(4)]
    gate.close()

    outcomes.ended(first)
    order = [outcomes.ended(job)["output"] for job in jobs]

    assert list(range(order[0], order[0] + 4)) == order


@pytest.mark.row("F009", "F025")
def test_a_waiting_job_can_be_cancelled(outcomes: Endpoint, gate: Gate) -> None:
    blocking = outcomes.sdk.run({"input": {"do": "wait", "gate": gate.port}})
    gate.next()
    job = outcomes.sdk.run({"input": {"do": "worker"}})
    assert "IN_QUEUE" == job.status()

    reply = job.cancel()

    assert {"id": job.job_id, "status": "CANCELLED"} == reply
    assert ("CANCELLED", "IN_PROGRESS") == (job.status(), blocking.status())
    gate.close()
    assert "COMPLETED" == outcomes.ended(blocking.job_id)["status"]
    assert job.job_id not in outcomes.ask({"do": "worker"})["output"]["seen"]


@pytest.mark.row("F011")
def test_purging_empties_the_queue_and_leaves_what_runs(outcomes: Endpoint, gate: Gate) -> None:
    running = outcomes.run({"do": "wait", "gate": gate.port, "value": "done"})
    gate.next()
    waiting = [outcomes.run({"do": "worker"}) for _ in range(3)]

    reply = outcomes.sdk.purge_queue()

    assert {"removed": 3, "status": "completed"} == reply
    assert ["CANCELLED"] * 3 == [outcomes.status(job)["status"] for job in waiting]
    gate.close()
    assert {"status": "COMPLETED", "output": "done"} == result_of(outcomes.ended(running))


@pytest.mark.row("F012", "F013")
def test_health_counts_jobs_and_workers(outcomes: Endpoint, gate: Gate) -> None:
    outcomes.ask({"do": "raise", "value": "boom"})
    before = outcomes.sdk.health()
    running = outcomes.run({"do": "wait", "gate": gate.port})
    gate.next()
    waiting = outcomes.run({"do": "return", "value": 1})

    busy = outcomes.sdk.health()

    gate.close()
    outcomes.ended(running), outcomes.ended(waiting)
    after = outcomes.sdk.health()
    assert before["jobs"] | {"inProgress": 1, "inQueue": 1} == busy["jobs"]
    assert before["jobs"] | {"completed": before["jobs"]["completed"] + 2} == after["jobs"]
    assert {"completed", "failed", "inProgress", "inQueue", "retried"} == after["jobs"].keys()
    none = {"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0, "unhealthy": 0}
    assert (none | {"ready": 1, "running": 1}, none | {"ready": 1, "idle": 1}) == (busy["workers"], after["workers"])


@pytest.mark.row("F010")
def test_a_failed_job_runs_again_under_its_id(outcomes: Endpoint) -> None:
    job = outcomes.ask({"do": "fail once"})
    assert ("FAILED", {"kept": 1}) == (job["status"], job["output"])

    reply = outcomes.sdk.rp_client.post(f"{outcomes.id}/retry/{job['id']}", None)

    assert {"id": job["id"], "status": "IN_QUEUE"} == reply
    assert {"status": "COMPLETED", "output": "second time"} == result_of(outcomes.ended(job["id"]))
    with pytest.raises(requests.HTTPError, match=r"\b409\b"):
        outcomes.sdk.rp_client.post(f"{outcomes.id}/retry/{job['id']}", None)


@pytest.mark.row("F041")
def test_a_wrong_key_raises_what_the_client_says_about_keys(outcomes: Endpoint) -> None:
    stranger = runpod.Endpoint(outcomes.id, api_key="rpa_wrong")

    for call in (stranger.health, stranger.purge_queue, lambda: stranger.run({"input": {"do": "worker"}})):
        with pytest.raises(RuntimeError, match="401 Unauthorized"):
            call()


@pytest.mark.row("F041")
@pytest.mark.parametrize("path", ["{id}/status/nothing", "nowhere/health"])
def test_what_does_not_exist_raises_404(outcomes: Endpoint, path: str) -> None:
    with pytest.raises(requests.HTTPError, match="404 Client Error"):
        outcomes.sdk.rp_client.get(path.format(id=outcomes.id))


@pytest.mark.row("F043")
@pytest.mark.parametrize("form", ["{key}", "Bearer {key}"])
def test_a_key_is_accepted_with_and_without_bearer(platform: Platform, outcomes: Endpoint, form: str) -> None:
    calls = [("GET", "health"), ("POST", "purge-queue"), ("POST", "runsync"), ("GET", "status/nothing")]

    def statuses(authorization: str) -> list[int]:
        body = {"input": {"do": "return", "value": 1}}
        return [
            requests.request(
                method,
                f"{platform.url}/v2/{outcomes.id}/{path}",
                json=body if method == "POST" else None,
                headers={"Authorization": authorization},
                timeout=60,
            ).status_code
            for method, path in calls
        ]

    assert [200, 200, 200, 404] == statuses(form.format(key=platform.key))
    assert [401] * 4 == statuses(form.format(key=platform.key[:-1]))


def is_job_id(text: str) -> bool:
    """A UUID with a suffix, safe in a URL."""
    found = re.fullmatch(r"(.{36})-u1", text)
    return found is not None and str(uuid.UUID(found[1])) == found[1]


@pytest.mark.row("F002", "F018")
def test_run_sync_of_a_long_job_is_answered_as_a_short_one(outcomes: Endpoint, gate: Gate) -> None:
    """Its head comes ahead of its body."""
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(
            outcomes.sdk.run_sync, {"input": {"do": "wait", "gate": gate.port, "value": "late"}}, timeout=60
        )
        guest = gate.next()
        time.sleep(1.5)
        guest.let_go()

        assert "late" == asking.result(60)
