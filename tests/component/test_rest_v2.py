"""`/v2/serverless` as its clients see it (contract G.0, G.2)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from runyard.domain.fleet import QueueReason
from tests.component.control_plane import BASE, ControlPlane, Report

PLATFORMS_TERMS = {
    "retentionSeconds": 1800,
    "retentionSyncSeconds": 60,
    "ttlSeconds": 86_400,
    "ttlScope": "all",
    "keepSeconds": 604_800,
    "attemptsMax": 3,
}


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        yield plane


async def test_a_created_endpoint_has_the_documented_shape_and_defaults(plane: ControlPlane) -> None:
    reply = await plane.client.post("/v2/serverless", json=plane.body(env={"B": "2", "A": "1"}))

    id = reply.json()["id"]
    base = f"{BASE}/v2/{id}"
    assert reply.status_code == 201
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {
        "id": id,
        "name": "hello",
        "type": "QUEUE",
        "requestUrls": {
            "run": f"{base}/run",
            "runSync": f"{base}/runsync",
            "status": f"{base}/status/{{job_id}}",
            "stream": f"{base}/stream/{{job_id}}",
            "cancel": f"{base}/cancel/{{job_id}}",
            "retry": f"{base}/retry/{{job_id}}",
            "purgeQueue": f"{base}/purge-queue",
            "health": f"{base}/health",
        },
        "args": "",
        "ports": [],
        "env": {"A": "1", "B": "2"},
        "registry": None,
        "gpu": None,
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
        "dataCenterIds": [],
        "networkVolumes": [],
        "timeout": 300000,
        "flashboot": "OFF",
        "createdAt": "2027-01-15T08:00:00.000Z",
        "runyard": {
            "version": 1,
            "generation": 1,
            "runtime": "process",
            "bundle": plane.bundle,
            "handler": "handler.py",
            "jobs": PLATFORMS_TERMS | {"own": []},
        },
    }
    assert (await plane.client.get(f"/v2/serverless/{id}")).json() == reply.json()
    assert (await plane.client.get("/v2/serverless")).json() == {"endpoints": [reply.json()]}


async def test_every_setting_that_is_acted_on_is_kept(plane: ControlPlane) -> None:
    endpoint = await plane.create(
        workers={"min": 1, "max": 9, "idleTimeout": 3600},
        scaling={"type": "QUEUE_DELAY", "queueDelay": 0.5},
        timeout=5000,
        runyard={"bundle": plane.bundle, "handler": "src/handler.py"},
        registry=None,
        args="",
        ports=[],
        dataCenterIds=[],
        networkVolumes=[],
        flashboot="OFF",
    )

    assert endpoint["workers"] == {"min": 1, "max": 9, "idleTimeout": 3600}
    assert endpoint["scaling"] == {"type": "QUEUE_DELAY", "queueDelay": 0.5}
    assert (endpoint["timeout"], endpoint["runyard"]["handler"]) == (5000, "src/handler.py")


async def test_scaling_on_requests_has_no_idle_timeout(plane: ControlPlane) -> None:
    scaling = {"type": "REQUEST_COUNT", "requestCount": 2}
    endpoint = await plane.create(scaling=scaling, workers={"max": 2})
    refused = await plane.client.patch(f"/v2/serverless/{endpoint['id']}", json={"workers": {"idleTimeout": 5}})
    other = plane.body(name="other", scaling=scaling, workers={"idleTimeout": 5})

    assert (endpoint["scaling"], endpoint["workers"]) == (scaling, {"min": 0, "max": 2})
    assert refused.status_code == (await plane.client.post("/v2/serverless", json=other)).status_code == 400
    assert "idleTimeout" in refused.json()["detail"]


REFUSED_CREATES: list[tuple[str, dict[str, Any], int, str]] = [
    ("unknown field", {"bogus": 1}, 422, "$: additional properties 'bogus' not allowed"),
    ("unknown field inside", {"workers": {"bogus": 1}}, 422, "$.workers: additional properties 'bogus' not allowed"),
    ("unknown field of ours", {"runyard": {"bogus": 1}}, 422, "$.runyard: additional properties 'bogus' not allowed"),
    ("no name", {"name": ...}, 422, "$: missing property 'name'"),
    ("empty name", {"name": ""}, 422, "$.name: expected `str` of length >= 1"),
    ("no type", {"type": ...}, 422, "$: missing property 'type'"),
    ("odd type", {"type": "BATCH"}, 422, "$.type: invalid enum value 'BATCH'"),
    ("no scaling", {"scaling": ...}, 422, "$: missing property 'scaling'"),
    ("empty scaling", {"scaling": {}}, 422, "$.scaling: missing property 'type'"),
    ("odd scaling", {"scaling": {"type": "X"}}, 422, "$.scaling.type: invalid value 'X'"),
    (
        "both scalers",
        {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4, "requestCount": 4}},
        422,
        "$.scaling: additional properties 'requestCount' not allowed",
    ),
    (
        "short delay",
        {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 0.4}},
        422,
        "$.scaling.queueDelay: expected `float` >= 0.5",
    ),
    ("idle too long", {"workers": {"idleTimeout": 3601}}, 422, "$.workers.idleTimeout: expected `int` <= 3600"),
    ("negative workers", {"workers": {"min": -1}}, 422, "$.workers.min: expected `int` >= 0"),
    ("env of numbers", {"env": {"A": 1}}, 422, "$.env[...]: expected `str`, got `int`"),
    ("odd flashboot", {"flashboot": "ON"}, 422, "$.flashboot: invalid enum value 'ON'"),
    ("nothing to run", {"runyard": ...}, 422, "$: missing property 'image' (or, on Runyard, 'runyard.bundle')"),
    (
        "balancer on delay",
        {"type": "LOAD_BALANCER"},
        422,
        "$.scaling: a LOAD_BALANCER endpoint scales on REQUEST_COUNT",
    ),
    ("balancer", {"type": "LOAD_BALANCER", "scaling": {"type": "REQUEST_COUNT", "requestCount": 1}}, 400, "balancing"),
    ("image beside a bundle", {"image": "a/b"}, 400, "leave out image"),
    ("template", {"runyard": ..., "templateId": "t"}, 400, "templateId"),
    ("gpu", {"gpu": {"pools": ["ADA_24"]}}, 400, "gpu"),
    ("cpu", {"cpu": [{"id": "cpu5c", "vcpuCount": 2}]}, 400, "cpu"),
    ("disk", {"disk": 20}, 400, "disk"),
    ("args", {"args": "-x"}, 400, "args"),
    ("ports", {"ports": ["80/http"]}, 400, "ports"),
    ("registry", {"registry": "r"}, 400, "registry"),
    ("data centers", {"dataCenterIds": ["US-KS-2"]}, 400, "dataCenterIds"),
    ("volumes", {"networkVolumes": ["v"]}, 400, "networkVolumes"),
    ("flashboot", {"flashboot": "FLASHBOOT"}, 400, "flashboot"),
    ("bounds", {"workers": {"min": 4}}, 400, "workers.min"),
    ("many workers", {"workers": {"max": 2**53 - 1}}, 400, "workers.max"),
    ("short timeout", {"timeout": 4999}, 400, "timeout"),
    ("long timeout", {"timeout": 2**53 - 1}, 400, "timeout"),
    ("negative timeout", {"timeout": -1}, 400, "timeout"),
    ("env name", {"env": {"1A": "x"}}, 400, "env"),
    ("NUL in env", {"env": {"A": "\0"}}, 400, "env"),
    ("NUL in name", {"name": "a\0b"}, 400, "name"),
    ("long name", {"name": "x" * 192}, 400, "name"),
    ("unknown bundle", {"runyard": {"bundle": "0" * 64}}, 400, "PUT /v2/bundles/"),
    ("odd bundle", {"runyard": {"bundle": "x"}}, 400, "runyard.bundle"),
    *(
        (f"{name} of {value}", {"runyard": {"jobs": {name: value}, "bundle": "x"}}, 400, f"runyard.jobs.{name} must be")
        for name, values in {
            "retentionSeconds": (0, 604_801),
            "retentionSyncSeconds": (0, 604_801),
            "ttlSeconds": (9.9, 604_801),
            "keepSeconds": (-1, 31_536_001),
            "attemptsMax": (0, 21),
        }.items()
        for value in values
    ),
    ("odd scope", {"runyard": {"jobs": {"ttlScope": "run"}}}, 422, "$.runyard.jobs.ttlScope: invalid enum value 'run'"),
    (
        "half an attempt",
        {"runyard": {"jobs": {"attemptsMax": 1.5}}},
        422,
        "$.runyard.jobs.attemptsMax: expected `int | null`, got `float`",
    ),
    ("unknown term", {"runyard": {"jobs": {"x": 1}}}, 422, "$.runyard.jobs: additional properties 'x' not allowed"),
]


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [case[1:] for case in REFUSED_CREATES],
    ids=[case[0].replace(" ", "-") for case in REFUSED_CREATES],
)
async def test_a_create_that_cannot_be_is_refused_with_what_to_change(
    plane: ControlPlane, changes: dict[str, Any], status: int, says: str
) -> None:
    body = {name: value for name, value in plane.body(**changes).items() if value is not ...}
    reply = await plane.client.post("/v2/serverless", json=body)

    problem = reply.json()
    assert (reply.status_code, problem["status"]) == (status, status)
    assert reply.headers["content-type"] == "application/problem+json"
    assert problem["title"] == {400: "Bad Request", 422: "Unprocessable Entity"}[status]
    if status == 422:
        assert problem["errors"] == [says]
    else:
        assert says in problem["detail"]
        assert "errors" not in problem
    assert (await plane.client.get("/v2/serverless")).json() == {"endpoints": []}


async def test_an_endpoint_has_terms_of_its_own_until_they_are_null_again(plane: ControlPlane) -> None:
    jobs = {"retentionSeconds": 90.5, "ttlScope": "queue", "keepSeconds": 0, "attemptsMax": 20}
    was = await plane.create(runyard={"bundle": plane.bundle, "jobs": jobs})
    assert PLATFORMS_TERMS | jobs | {"own": list(jobs)} == was["runyard"]["jobs"]

    changed = {"retentionSeconds": None, "ttlScope": None, "ttlSeconds": 10, "retentionSyncSeconds": 604_800}
    now = await plane.update(was["id"], runyard={"jobs": changed})
    holds = {"ttlSeconds": 10, "retentionSyncSeconds": 604_800, "keepSeconds": 0, "attemptsMax": 20}
    own = ["retentionSyncSeconds", "ttlSeconds", "keepSeconds", "attemptsMax"]
    assert PLATFORMS_TERMS | holds | {"own": own} == now["runyard"]["jobs"]
    assert (1, 2) == (now["runyard"]["version"], now["runyard"]["generation"])
    assert (
        now
        == await plane.update(was["id"], runyard={"jobs": {}})
        == (await plane.client.get(f"/v2/serverless/{was['id']}")).json()
    )


async def test_a_name_that_is_taken_is_refused(plane: ControlPlane) -> None:
    endpoint = await plane.create()
    reply = await plane.client.post("/v2/serverless", json=plane.body())

    assert (reply.status_code, reply.json()["title"]) == (409, "Conflict")
    assert endpoint["id"] in reply.json()["detail"]


async def test_an_update_changes_what_it_names_only(plane: ControlPlane) -> None:
    was = await plane.create(env={"A": "1"})
    now = await plane.update(was["id"], workers={"max": 5}, timeout=60_000, name="renamed")

    assert now == was | {
        "name": "renamed",
        "workers": {"min": 0, "max": 5, "idleTimeout": 10},
        "timeout": 60_000,
        "runyard": was["runyard"] | {"generation": 2},
    }
    assert await plane.update(was["id"]) == now


async def test_an_update_of_what_runs_makes_a_release_with_its_diff(plane: ControlPlane) -> None:
    was = await plane.create(env={"A": "1"})
    other = plane.blobs.keep(b"another bundle")
    await plane.update(was["id"], env={"A": "2"})
    now = await plane.update(was["id"], runyard={"bundle": other, "handler": "main.py"})
    reply = await plane.client.get(f"/v2/serverless/{was['id']}/releases")

    newest, _, oldest = reply.json()["releases"]
    assert (now["runyard"]["version"], now["runyard"]["generation"], now["env"]) == (3, 3, {"A": "2"})
    assert reply.json()["endpointVersion"] == 3
    assert newest == {
        "id": newest["id"],
        "version": 3,
        "source": "MANUAL",
        "buildId": None,
        "createdByUserId": None,
        "workerCount": 0,
        "createdAt": "2027-01-15T08:00:00.000Z",
        "diff": [
            {"field": "runyard.bundle", "old": plane.bundle, "new": other},
            {"field": "runyard.handler", "old": "handler.py", "new": "main.py"},
        ],
    }
    assert oldest["diff"] == []
    assert reply.json()["releases"][1]["diff"] == [{"field": "env", "old": {"A": "1"}, "new": {"A": "2"}}]


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"type": "QUEUE"}, 422, "$: additional properties 'type' not allowed"),
        ({"name": ""}, 422, "$.name: expected `str` of length >= 1"),
        ({"runyard": {"bundle": None}}, 422, "$.runyard.bundle: expected `str`, got `null`"),
        ({"gpu": {}}, 400, "gpu"),
        ({"templateId": "t"}, 400, "templateId"),
        ({"workers": {"min": 4}}, 400, "workers.min"),
        ({"timeout": 0}, 400, "timeout"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
async def test_an_update_that_cannot_be_changes_nothing(
    plane: ControlPlane, changes: dict[str, Any], status: int, says: str
) -> None:
    was = await plane.create()
    reply = await plane.client.patch(f"/v2/serverless/{was['id']}", json=changes)

    assert reply.status_code == status
    assert says in (reply.json()["errors"] if status == 422 else reply.json()["detail"])
    assert (await plane.client.get(f"/v2/serverless/{was['id']}")).json() == was


async def test_deleting_ends_jobs_workers_and_logs(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    plane.logs.append("worker", id, "last words")
    reply = await plane.client.delete(f"/v2/serverless/{id}")

    assert (reply.status_code, reply.content) == (204, b"")
    assert plane.jobs.removed == plane.fleet.removed == [id]
    assert not await plane.logs.knows(id, "worker")
    assert [
        (await plane.client.request(method, f"/v2/serverless/{id}")).status_code for method in ("GET", "DELETE")
    ] == [
        404,
        404,
    ]


async def test_an_endpoint_says_what_its_jobs_wait_for(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    plane.fleet.reasons[id] = QueueReason("crash_loop", "worker x ended (exit code 1)")

    shown = (await plane.client.get(f"/v2/serverless/{id}")).json()

    assert shown["runyard"]["queueReason"] == {"code": "crash_loop", "message": "worker x ended (exit code 1)"}


@pytest.mark.row("F134")
async def test_workers_are_listed_with_their_counts(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    old = plane.endpoints.get(id)
    await plane.update(id, env={"A": "2"})
    now = plane.endpoints.get(id)
    plane.fleet.live[now.id] = [
        Report(plane.worker(now, "busy", sdk_version="1.12.0"), jobs=2),
        Report(plane.worker(old, "stale", stop_reason="an older release")),
        Report(plane.worker(now, "new", spawned_at=None, ready_at=None)),
        Report(replace(plane.worker(now, "ill"), unhealthy_reason="no GPU")),
    ]
    plane.fleet.stopped[now.id] = [Report(plane.crashed(now, "dead"))]

    shown = (await plane.client.get(f"/v2/serverless/{id}/workers")).json()

    assert shown["endpointVersion"] == 2
    assert shown["summary"] == {
        "running": 1,
        "idle": 1,
        "initializing": 1,
        "throttled": 0,
        "unhealthy": 1,
        "total": 4,
    }
    assert shown["workers"][0] == {
        "id": "busy",
        "status": "RUNNING",
        "isStale": False,
        "version": 2,
        "gpuCount": 0,
        "image": None,
        "uptimeSeconds": 60,
        "gpuTypeId": None,
        "dataCenterId": None,
        "startedAt": "2027-01-15T07:59:00.000Z",
        "runyard": {"jobs": 2, "phase": "READY", "sdkVersion": "1.12.0"},
    }
    assert [(w["id"], w["status"], w["isStale"], w["version"], w["uptimeSeconds"]) for w in shown["workers"][1:]] == [
        ("stale", "IDLE", True, 1, 60),
        ("new", "INITIALIZING", False, 2, None),
        ("ill", "UNHEALTHY", False, 2, 60),
    ]
    assert [w["runyard"].get("reason") for w in shown["workers"]] == [None, "an older release", None, "no GPU"]
    [dead] = shown["runyard"]["stopped"]
    assert (dead["id"], dead["status"], dead["uptimeSeconds"]) == ("dead", "UNHEALTHY", 55)
    assert dead["runyard"] == {
        "jobs": 0,
        "phase": "STOPPED",
        "exit": "killed by signal 9",
        "stoppedAt": "2027-01-15T07:59:55.000Z",
    }


async def test_a_rollout_shows_how_far_it_is(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    path = f"/v2/serverless/{id}/releases"
    old = plane.endpoints.get(id)
    none = (await plane.client.get(path)).json()["rollout"]
    await plane.update(id, env={"A": "2"})
    now = plane.endpoints.get(id)
    plane.fleet.live[now.id] = [Report(plane.worker(old if n else now, str(n))) for n in range(3)]

    shown = (await plane.client.get(path)).json()

    assert none == {"inProgress": False, "workersOnLatest": 0, "workersTotal": 0, "percentOnLatest": 0}
    assert shown["rollout"] == {"inProgress": True, "workersOnLatest": 1, "workersTotal": 3, "percentOnLatest": 33}
    assert [release["workerCount"] for release in shown["releases"]] == [1, 2]


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("proxy.example", "http://proxy.example"),
        ("[::1]:8000", "http://[::1]:8000"),
        ('x"y', BASE),
        ("[", BASE),
        ("user@evil", BASE),
        ("", BASE),
    ],
    ids=["name", "ipv6", "quote", "bracket", "user", "none"],
)
async def test_request_urls_are_those_the_caller_reached(plane: ControlPlane, host: str, base: str) -> None:
    id = (await plane.create())["id"]
    reply = await plane.client.get(f"/v2/serverless/{id}", headers={"Host": host})

    assert reply.json()["requestUrls"]["run"] == f"{base}/v2/{id}/run"
