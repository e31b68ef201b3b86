"""The command line against the real control plane in process; the data plane's answers are scripted."""

import asyncio
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from runyard.cli.main import main
from runyard.client.control import Control
from runyard.client.settings import Address
from runyard.client.sync import Connection
from runyard.domain.attempt import Cause, Evidence
from runyard.domain.fleet import QueueReason
from runyard.domain.job import WorkerId
from runyard.domain.terms import QUEUE, OwnTerms
from runyard.ports.runtime import LogSource
from tests.builders import a_job
from tests.component.control_plane import BASE, ControlPlane, Report

DATA_PLANE = re.compile(r"/v2/[^/]+/(run|status|status-sync|stream|cancel|retry|purge-queue|health|requests)(/|\Z)")
HEALTH = {
    "jobs": {"completed": 3, "failed": 1, "inProgress": 2, "inQueue": 4, "retried": 0},
    "workers": {"idle": 0, "initializing": 1, "ready": 2, "running": 2, "throttled": 0, "unhealthy": 0},
}


class Bridge(httpx2.BaseTransport):
    """A sync transport to the control plane on a loop of its own."""

    def __init__(self, plane: ControlPlane, loop: asyncio.AbstractEventLoop) -> None:
        self.plane = plane
        self.loop = loop
        self.inner = httpx2.ASGITransport(plane.app)
        self.data_plane: list[Any] = []
        """Answers of the data plane, in order; the last one stays."""
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str | None] = []
        """The name that each of these requests had in its head."""
        self.uploads = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        if DATA_PLANE.match(request.url.path) and not request.url.path.startswith("/v2/serverless"):
            self.asked.append((f"{request.method} {request.url.raw_path.decode()}", json.loads(body) if body else None))
            self.keys.append(request.headers.get("idempotency-key"))
            answer = self.data_plane.pop(0) if len(self.data_plane) > 1 else self.data_plane[0]
            return httpx2.Response(200, json=answer)
        self.uploads += request.method == "PUT"
        return self.loop.run_until_complete(self._pass_on(request, body))

    async def _pass_on(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        copy = httpx2.Request(request.method, request.url, headers=request.headers, content=body)
        response = await self.inner.handle_async_request(copy)
        return httpx2.Response(response.status_code, headers=response.headers, content=await response.aread())


class Yard:
    """Runs commands; what they print to stdout and stderr stays apart."""

    def __init__(self, plane: ControlPlane, loop: asyncio.AbstractEventLoop) -> None:
        self.plane = plane
        self.bridge = Bridge(plane, loop)
        self.connection = Connection(Address(BASE, plane.secret), self.bridge)

    def run(self, *args: str, input: str | None = None) -> Result:
        return CliRunner().invoke(main, list(args), obj=Control(self.connection), input=input)

    def ok(self, *args: str, **options: Any) -> str:
        result = self.run(*args, **options)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str, **options: Any) -> Any:
        return json.loads(self.ok(*args, "--json", **options))

    def endpoint(self, name: str = "hello") -> Any:
        return self.plane.endpoints.find(name)

    def bundle_of(self, name: str) -> list[str]:
        data = self.plane.blobs.kept[self.endpoint(name).release.run.bundle]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return tar.getnames()


@pytest.fixture
def yard() -> Iterator[Yard]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        plane = runner.run(stack.enter_async_context(ControlPlane().running()))
        yield Yard(plane, runner.get_loop())
        runner.run(stack.aclose())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "hello"
    root.mkdir()
    (root / "handler.py").write_text("print('hello')\n")
    (root / ".runpodignore").write_text("*.log\n")
    (root / "noise.log").write_text("x")
    return root


@pytest.fixture
def deployed(yard: Yard, folder: Path) -> Yard:
    yard.ok("deploy", str(folder))
    return yard


# --- deploy


def test_a_folder_becomes_an_endpoint_of_its_name(yard: Yard, folder: Path) -> None:
    out = yard.ok("deploy", str(folder))

    endpoint = yard.endpoint("hello")
    assert out == f"{endpoint.id}\n"
    assert yard.bundle_of("hello") == [".runpodignore", "handler.py"]
    assert (endpoint.scaling.workers_min, endpoint.scaling.workers_max) == (0, 3)
    assert endpoint.scaling.idle_timeout.total_seconds() == 5


def test_terms_of_jobs_are_the_endpoints_own_where_a_flag_says_so(yard: Yard, folder: Path) -> None:
    flags = "--retention 90.5 --retention-sync 9 --ttl 600 --ttl-scope queue --keep 0 --attempts-max 1"
    yard.ok("deploy", str(folder), *flags.split())
    terms = OwnTerms(retention_s=90.5, retention_sync_s=9, ttl_s=600, ttl_scope=QUEUE, keep_s=0, attempts_max=1)
    assert terms == yard.endpoint().terms

    yard.ok("deploy", str(folder), "--keep", "86400")
    assert replace(terms, keep_s=86_400) == yard.endpoint().terms
    refused = yard.run("deploy", str(folder), "--ttl", "9")
    assert (1, True) == (refused.exit_code, "runyard.jobs.ttlSeconds must be 10 to 604800, not 9" in refused.stderr)
    for value in ("nan", "inf", "soon"):
        assert 2 == yard.run("deploy", str(folder), "--keep", value).exit_code


def test_one_endpoint_is_shown_with_what_holds_for_its_jobs(yard: Yard, folder: Path) -> None:
    id = yard.ok("deploy", str(folder), "--ttl-scope", "queue", "--keep", "0").strip()
    shown = yard.ok("endpoints", "show", "hello")

    assert shown.splitlines() == [
        f"id:       {id}",
        "name:     hello",
        "version:  1",
        "handler:  handler.py",
        "workers:  0-3",
        "scaling:  queue-delay 4s",
        "timeout:  300s",
        "created:  2027-01-15T08:00:00.000Z",
        "JOBS            HOLDS   SET BY",
        "retention       1800s   platform",
        "retention-sync  60s     platform",
        "ttl             86400s  platform",
        "ttl-scope       queue   endpoint",
        "keep            0s      endpoint",
        "attempts-max    3       platform",
    ]
    assert 2 == yard.run("endpoints", "--json", "show", "hello").exit_code
    yard.plane.fleet.reasons[yard.endpoint().id] = QueueReason("starting_worker", "worker w1 is starting")
    assert "waits:    starting_worker: worker w1 is starting" in yard.ok("endpoints", "show", id)
    assert (id, ["ttlScope", "keepSeconds"]) == (
        (told := yard.json("endpoints", "show", "hello"))["id"],
        told["runyard"]["jobs"]["own"],
    )


def test_every_flag_reaches_the_endpoint(yard: Yard, folder: Path) -> None:
    (folder / "main.py").write_text("")
    flags = (
        "--name other --handler main.py --workers-min 1 --workers-max 7 --scaler request-count --scaler-value 2 "
        "--env A=1 --env B==x --env C= --type queue --runtime process --sdk stock"
    )
    answer = yard.json("deploy", str(folder), *flags.split())

    endpoint = yard.endpoint("other")
    assert answer == {"id": endpoint.id, "name": "other", "version": 1}
    assert endpoint.release.run.handler == "main.py"
    assert dict(endpoint.release.run.env) == {"A": "1", "B": "=x", "C": ""}
    assert (endpoint.scaling.workers_min, endpoint.scaling.workers_max) == (1, 7)
    assert endpoint.scaling.scaler.per_worker == 2


def test_deploying_again_makes_a_release_and_leaves_what_no_flag_names(yard: Yard, folder: Path) -> None:
    yard.ok("deploy", str(folder), "--env", "A=1", "--workers-max", "9", "--scaler", "request-count")
    again = yard.json("deploy", str(folder))
    uploads = yard.bridge.uploads
    (folder / "handler.py").write_text("print('changed')\n")
    changed = yard.json("deploy", str(folder), "--env", "B=2", "--scaler-value", "3")

    endpoint = yard.endpoint()
    assert (again["version"], uploads) == (2, 1)
    assert (changed["version"], yard.bridge.uploads) == (3, 2)
    assert dict(endpoint.release.run.env) == {"B": "2"}
    assert (endpoint.scaling.workers_max, endpoint.scaling.scaler.per_worker) == (9, 3)


def test_a_file_takes_its_requirements_along_and_nothing_else(yard: Yard, folder: Path) -> None:
    (folder / "requirements.txt").write_text("runpod\n")
    (folder / "rank.py").write_text("")
    yard.ok("deploy", str(folder / "handler.py"))
    yard.ok("deploy", str(folder / "rank.py"))

    assert yard.bundle_of("hello") == ["handler.py", "requirements.txt"]
    assert yard.bundle_of("rank") == ["rank.py", "requirements.txt"]


def test_more_workers_at_least_than_the_default_at_most(yard: Yard, folder: Path) -> None:
    yard.ok("deploy", str(folder), "--workers-min", "5")

    assert yard.endpoint().scaling.workers_max == 5


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--type load-balancer", "not built yet"),
        ("--runtime docker", "--runtime process"),
        ("--gpu A100", "--gpu"),
        ("--gpu-count 1", "--gpu"),
        ("--sdk native", "--sdk stock"),
        ("--env A", "NAME=VALUE"),
        ("--env =1", "NAME=VALUE"),
        ("--scaler request-count --scaler-value 1.5", "whole number"),
        ("--scaler-value nan", "number"),
        ("--idle-timeout 0", "--idle-timeout"),
        ("--workers-max -1", "--workers-max"),
    ],
    ids=lambda value: value.replace(" ", "_"),
)
def test_a_flag_that_cannot_be_is_a_usage_error(yard: Yard, folder: Path, flags: str, says: str) -> None:
    result = yard.run("deploy", str(folder), *flags.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert yard.plane.endpoints.list() == []


def test_what_is_no_source_is_a_usage_error(yard: Yard, folder: Path) -> None:
    cases = {"./nowhere": "no file or folder ./nowhere", str(folder / "noise.log"): "not a Python file"}
    for target, says in cases.items():
        result = yard.run("deploy", target)

        assert result.exit_code == 2
        assert says in result.stderr


def test_a_refusal_of_the_platform_is_one_line(yard: Yard, folder: Path) -> None:
    cases = [
        ("--workers-min 4 --workers-max 2", "workers.min (4)"),
        ("--scaler request-count --idle-timeout 9", "idleTimeout"),
        ("--handler nope.py", "no file nope.py"),
        ("--env 1A=x", "env name '1A'"),
    ]
    for flags, says in cases:
        result = yard.run("deploy", str(folder), *flags.split())

        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert says in result.stderr


# --- run and the rest of the data plane


def test_run_queues_a_job_and_prints_its_id(deployed: Yard) -> None:
    deployed.bridge.data_plane = [{"id": "j-1", "status": "IN_QUEUE"}]
    id = deployed.endpoint().id

    assert deployed.ok("run", "hello", '{"a": 1}') == "j-1\n"
    assert deployed.json("run", id) == {"id": "j-1", "status": "IN_QUEUE"}
    assert deployed.bridge.asked == [
        (f"POST /v2/{id}/run", {"input": {"a": 1}}),
        (f"POST /v2/{id}/run", {"input": {}}),
    ]


def test_the_input_may_come_from_a_file_or_a_pipe_and_be_the_whole_request(deployed: Yard, tmp_path: Path) -> None:
    deployed.bridge.data_plane = [{"id": "j", "status": "IN_QUEUE"}]
    (tmp_path / "input.json").write_text('{"input": "x", "policy": {"ttl": 60000}}')
    deployed.ok("run", "hello", f"@{tmp_path / 'input.json'}")
    deployed.ok("run", "hello", "-", input='{"input": "x", "other": 1}')

    assert [body for _, body in deployed.bridge.asked] == [
        {"input": "x", "policy": {"ttl": 60000}},
        {"input": {"input": "x", "other": 1}},
    ]
    for bad in ("{", "@/nowhere", ""):
        assert deployed.run("run", "hello", bad).exit_code == 2


def test_run_names_its_request_itself_or_as_it_is_told(deployed: Yard) -> None:
    deployed.bridge.data_plane = [{"id": "j-1", "status": "IN_QUEUE"}]
    deployed.ok("run", "hello")
    deployed.ok("run", "hello")
    deployed.ok("run", "hello", "--idempotency-key", "mine")
    deployed.ok("run", "hello", '{"input": 1, "runyard": {"id": "order-1"}}')

    first, second, *rest = deployed.bridge.keys
    assert None not in (first, second)
    assert first != second
    assert ["mine", None] == rest
    assert {"input": 1, "runyard": {"id": "order-1"}} == deployed.bridge.asked[-1][1]
    for bad in ('{"input": 1, "runyard": {"x": 1}}', '{"input": 1, "runyard": "order-1"}'):
        assert 2 == deployed.run("run", "hello", bad).exit_code
    both = deployed.run("run", "hello", "--idempotency-key", "k", '{"input": 1, "runyard": {"id": "order-1"}}')
    assert both.exit_code != 0
    assert "not both" in both.stderr


def test_run_sync_prints_the_output_and_fails_with_the_job(deployed: Yard) -> None:
    queued, working = {"id": "j", "status": "IN_QUEUE"}, {"id": "j", "status": "IN_PROGRESS"}
    error = json.dumps({"error_message": "no!", "error_traceback": "Traceback:\n  ...\nValueError: no!\n"})
    deployed.bridge.data_plane = [queued, working, {"id": "j", "status": "COMPLETED", "output": {"n": "é"}}]
    good = deployed.run("run", "hello", "--sync")
    deployed.bridge.data_plane = [queued, {"id": "j", "status": "FAILED", "error": error}]
    bad = deployed.run("run", "hello", "--sync")
    deployed.bridge.data_plane = [queued, {"id": "j", "status": "TIMED_OUT", "error": "too slow"}]
    late = deployed.run("run", "hello", "--sync", "--json")

    assert (good.exit_code, good.stdout) == (0, '{"n":"é"}\n')
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert bad.stderr == "job j FAILED: Traceback:\n  ...\nValueError: no!\n"
    assert (late.exit_code, json.loads(late.stdout)["status"]) == (1, "TIMED_OUT")


def test_run_stream_prints_chunks_as_they_come(deployed: Yard) -> None:
    def script(end: str) -> list[Any]:
        return [
            {"id": "j", "status": "IN_QUEUE"},
            {"status": "IN_PROGRESS", "stream": [{"output": 1}, {"output": "two"}]},
            {"status": end, "stream": []},
            {"id": "j", "status": end},
        ]

    deployed.bridge.data_plane = script("COMPLETED")
    good = deployed.run("run", "hello", "--stream")
    deployed.bridge.data_plane = script("FAILED")
    bad = deployed.run("run", "hello", "--stream", "--json")

    assert (good.exit_code, good.stdout) == (0, '1\n"two"\n')
    assert bad.exit_code == 1
    assert [json.loads(line) for line in bad.stdout.splitlines()] == [
        {"output": 1},
        {"output": "two"},
        {"id": "j", "status": "FAILED"},
    ]
    assert deployed.run("run", "hello", "--stream", "--sync").exit_code == 2


def test_a_status_is_shown_and_is_no_failure(deployed: Yard) -> None:
    waiting = {"id": "j", "status": "IN_QUEUE", "queueReason": {"code": "crash_loop", "message": "it crashes"}}
    deployed.bridge.data_plane = [waiting]
    text = deployed.ok("status", "hello", "j")
    shown = deployed.json("status", "hello", "j")
    deployed.bridge.data_plane = [{"id": "j", "status": "FAILED", "error": "no!", "delayTime": 1500}]
    failed = deployed.ok("status", "hello", "j")

    assert text == "id:          j\nstatus:      IN_QUEUE\nwaiting for: crash_loop: it crashes\n"
    assert shown == waiting
    assert failed == "id:          j\nstatus:      FAILED\ndelay:       1.5s\nerror:       no!\n"


def test_cancel_and_purge(deployed: Yard) -> None:
    deployed.bridge.data_plane = [{"id": "j", "status": "CANCELLED"}]
    assert deployed.ok("cancel", "hello", "j") == "j CANCELLED\n"
    deployed.bridge.data_plane = [{"removed": 2, "status": "completed"}]
    assert deployed.ok("purge", "hello") == "cancelled 2 waiting jobs\n"
    assert deployed.json("purge", "hello") == {"removed": 2}


def test_jobs_are_listed_with_what_went_wrong(deployed: Yard) -> None:
    job = {
        "id": "j",
        "status": "FAILED",
        "createdAt": "2027-01-15T08:00:00.000Z",
        "run": 1,
        "attemptsLost": 0,
        "delayTime": 1234,
        "error": json.dumps({"error_message": "boom", "error_traceback": "long"}),
    }
    deployed.bridge.data_plane = [{"requests": [job], "next": "7"}]
    result = deployed.run("jobs", "hello", "--state", "failed", "--state", "IN_QUEUE", "--limit", "1", "--after", "9")

    assert result.stdout.splitlines() == [
        "ID  STATUS  CREATED                   DELAY  EXECUTION  WORKER  ERROR",
        "j   FAILED  2027-01-15T08:00:00.000Z  1.2s   -          -       boom",
    ]
    assert result.stderr == "there are more: --after 7\n"
    assert deployed.bridge.asked[0][0].endswith("/requests?states=FAILED%2CIN_QUEUE&limit=1&after=9")
    assert deployed.json("jobs", "hello")["requests"] == [job]


def dead(deployed: Yard, id: str, *, killer: bool = False) -> None:
    """Put a job of the endpoint into the store that has failed."""
    at, evidence = deployed.plane.clock.at, Evidence(Cause.WORKER_DIED, signal=9, last_lines=("boom",))
    job = a_job(id, at=at, endpoint_id=deployed.endpoint().id).take(WorkerId("w0"), at)
    if not killer:
        job = job.fail('{"error_message": "no!"}', None, at + 1)
    for number in range(1, 4 if killer else 0):
        job = job.lose_worker(at + number, f"worker w{number} was killed", evidence)
        job = job if job.terminal else job.take(WorkerId(f"w{number}"), at + number)
    deployed.bridge.loop.run_until_complete(deployed.plane.job_store.add(job))


def test_dead_jobs_are_listed_with_how_they_ended(deployed: Yard) -> None:
    dead(deployed, "killer", killer=True)
    dead(deployed, "failed")
    result = deployed.run("jobs", "hello", "--dead", "--limit", "2")

    assert [
        "ID      STATUS               ENDED                     ATTEMPTS  LAST ATTEMPT           ERROR",
        "failed  FAILED               2027-01-15T08:00:01.000Z  0         -                      no!",
    ] == result.stdout.splitlines()[:2]
    assert "killer  FAILED, quarantined  2027-01-15T08:00:03.000Z  3         worker_died, signal 9" in result.stdout
    assert "boom" == deployed.json("jobs", "hello", "--dead")["deadLetters"][1]["attempts"][2]["lastLines"][0]
    assert 2 == deployed.run("jobs", "hello", "--dead", "--state", "FAILED").exit_code


def test_dead_jobs_are_queued_again_by_name_or_all_together(deployed: Yard) -> None:
    for id in ("a", "b", "c", "d"):
        dead(deployed, id)
    dead(deployed, "killer", killer=True)

    assert "queued 2 jobs again\n" == deployed.ok("retry", "hello", "a", "b")
    all_dead = deployed.run("retry", "hello", "--all-dead")
    assert (0, "queued 2 jobs again\n") == (all_dead.exit_code, all_dead.stdout)
    assert "left 1 quarantined jobs: runyard jobs hello --dead\n" == all_dead.stderr
    refused = deployed.run("retry", "hello", "killer", "unheard-of")
    assert (1, "queued 0 jobs again\n") == (refused.exit_code, refused.stdout)
    assert "job killer is quarantined: 3 workers died" in refused.stderr
    assert "job unheard-of not found" in refused.stderr
    assert {"redriven": 1, "quarantined": 0, "refused": []} == deployed.json("retry", "hello", "killer", "--force")


@pytest.mark.parametrize("args", [[], ["a", "--all-dead"], ["--all-dead", "--force"]])
def test_a_retry_that_means_two_things_or_nothing_is_a_mistake(deployed: Yard, args: list[str]) -> None:
    assert 2 == deployed.run("retry", "hello", *args).exit_code


def test_the_status_of_a_job_that_is_not_done_shows_its_attempts(deployed: Yard) -> None:
    attempt = {
        "run": 1,
        "workerId": "w1",
        "takenAt": "2027-01-15T08:00:00.000Z",
        "endedAt": "2027-01-15T08:00:09.000Z",
        "cause": "worker_stopped",
        "counted": False,
        "reason": "w1 was stopped: the platform stops",
        "lastLines": ["half way"],
    }
    waiting = {"id": "j", "status": "IN_QUEUE"}
    detail = waiting | {"input": {"n": 1}, "attempts": [attempt], "quarantined": True}
    deployed.bridge.data_plane = [waiting, detail]
    text = deployed.ok("status", "hello", "j")

    assert [
        "quarantined: yes: retry it with --force, or leave it",
        "attempt:     2027-01-15T08:00:09.000Z run 1: w1 was stopped: the platform stops (worker_stopped, not counted)",
        "  | half way",
    ] == text.splitlines()[2:]
    assert [attempt] == deployed.json("status", "hello", "j")["attempts"]


# --- looking


def test_endpoints_and_workers_are_tables_and_json(deployed: Yard) -> None:
    endpoint = deployed.endpoint()
    deployed.plane.fleet.live[endpoint.id] = [Report(deployed.plane.worker(endpoint, "w-1"), jobs=1)]
    deployed.plane.fleet.stopped[endpoint.id] = [Report(deployed.plane.crashed(endpoint, "w-0"))]
    id = endpoint.id

    assert deployed.ok("endpoints").splitlines() == [
        "ID          NAME   VERSION  WORKERS  SCALING         CREATED",
        f"{id}  hello  1        0-3      queue-delay 4s  2027-01-15T08:00:00.000Z",
    ]
    assert [shown["id"] for shown in deployed.json("endpoints")["endpoints"]] == [id]
    assert deployed.ok("workers", "hello", "--all").splitlines() == [
        "ID   STATUS   VERSION  JOBS  UPTIME  NOTE",
        "w-1  RUNNING  1        1     60s     -",
        "w-0  STOPPED  1        0     55s     killed by signal 9",
    ]
    assert "w-0" not in deployed.ok("workers", "hello")
    assert deployed.json("workers", id)["summary"]["running"] == 1


def test_top_shows_it_once_without_a_terminal(deployed: Yard) -> None:
    deployed.bridge.data_plane = [HEALTH]
    id = deployed.endpoint().id
    deployed.plane.fleet.reasons[id] = QueueReason("crash_loop", "it crashes " * 20)

    header, row = deployed.ok("top").splitlines()
    assert header.split()[:5] == ["NAME", "ID", "QUEUED", "RUNNING", "DONE"]
    assert row.split()[:10] == ["hello", id, "4", "2", "3", "1", "2", "2", "1", "3"]
    assert "crash_loop: it crashes" in row
    assert row.endswith("…")
    assert deployed.json("top")["endpoints"][0]["jobs"] == HEALTH["jobs"]


def test_logs_are_read_and_narrowed(deployed: Yard) -> None:
    id, logs = deployed.endpoint().id, deployed.plane.logs
    logs.append(WorkerId("w"), id, "starting", source=LogSource.SYSTEM)
    logs.append(WorkerId("w"), id, '{"requestId": "j", "message": "Started.", "level": "INFO"}')
    logs.append(WorkerId("v"), id, "plain", job_id="k")
    at = "2027-01-15T08:00:00.000Z"

    assert deployed.ok("logs", "hello").splitlines() == [
        f"{at}  w  starting",
        f"{at}  w  INFO j Started.",
        f"{at}  v  plain",
    ]
    assert deployed.ok("logs", "hello", "--job", "j") == f"{at}  w  INFO j Started.\n"
    assert deployed.ok("logs", "hello", "--worker", "v") == f"{at}  v  plain\n"
    assert deployed.ok("logs", "hello", "--source", "system", "--tail", "5") == f"{at}  w  starting\n"
    assert deployed.ok("logs", "hello", "--tail", "0") == ""
    assert json.loads(deployed.ok("logs", "hello", "--tail", "1", "--json")) == {
        "ts": at,
        "source": "container",
        "line": "plain",
        "workerId": "v",
        "jobId": "k",
    }
    assert deployed.run("logs", "hello", "--since", "yesterday").exit_code == 1


def test_an_endpoint_is_deleted_by_name(deployed: Yard) -> None:
    id = deployed.endpoint().id

    assert deployed.json("delete", "hello") == {"id": id, "name": "hello"}
    assert deployed.plane.endpoints.list() == []


def test_an_unknown_endpoint_is_one_line_that_lists_those_there_are(deployed: Yard) -> None:
    for command in (["run", "nope"], ["workers", "nope"], ["logs", "nope"], ["delete", "nope"], ["jobs", "nope"]):
        result = deployed.run(*command)

        assert result.exit_code == 1
        assert result.stderr == "Error: there is no endpoint 'nope'; endpoints: hello\n"


# --- keys, and what can go wrong


def test_keys_are_made_listed_and_revoked(yard: Yard) -> None:
    made = yard.run("keys", "create", "ci")
    listed = yard.json("keys", "list")["keys"]

    assert yard.plane.access.authenticate(made.stdout.strip()).name == "ci"
    assert [key["name"] for key in listed] == ["test", "ci"]
    assert yard.ok("keys", "list").splitlines()[2].split() == [listed[1]["id"], "ci", "2027-01-15T08:00:00.000Z"]
    assert yard.json("keys", "create", "two")["name"] == "two"
    assert yard.json("keys", "revoke", listed[1]["id"]) == {"id": listed[1]["id"]}
    assert yard.run("keys", "revoke", listed[1]["id"]).exit_code == 1


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs a command as on a machine of its own: no platform, its own data directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUNYARD_API_KEY", "RUNYARD_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUNYARD_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RUNYARD_DATA_DIR", str(tmp_path / "data"))
    return lambda *args: CliRunner().invoke(main, list(args))


def test_a_platform_that_is_not_there_is_one_line(alone: Callable[..., Result]) -> None:
    for command in (["endpoints"], ["run", "x"], ["top", "--once"], ["keys", "list"], ["logs", "x", "--follow"]):
        result = alone(*command)

        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "http://127.0.0.1:1 (RUNYARD_URL)" in result.stderr
        assert "`runyard serve`" in result.stderr


def test_a_key_that_is_refused_says_where_it_came_from(yard: Yard, alone: object, tmp_path: Path) -> None:
    yard.connection = Connection(Address(BASE, "rpa_wrong"), yard.bridge)
    nowhere = yard.run("endpoints")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_text("rpa_wrong\n")
    file = yard.run("endpoints")

    assert nowhere.exit_code == file.exit_code == 1
    assert "set RUNYARD_API_KEY" in nowhere.stderr
    assert f"(the key came from {tmp_path / 'data' / 'admin.key'})" in file.stderr


def test_settings_that_cannot_be_are_usage_errors_of_serve(alone: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "runyard.toml").write_text("colour = 'red'")

    assert alone("serve", "--port", "99999").exit_code == 2
    unknown = alone("serve")
    assert (unknown.exit_code, "colour" in unknown.stderr) == (2, True)


def test_the_command_line_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    import subprocess
    import sys

    heavy = "{'httpx2', 'msgspec', 'starlette', 'uvicorn', 'structlog', 'pathspec', 'sqlite3', 'asyncio'}"
    code = f"import sys, runyard.cli.main; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
