"""Endpoints that run containers, at `/v2/serverless` (contract C.1, G.2)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from runyard.domain.fleet import Preparation, PreparationState
from runyard.domain.worker import Exit
from tests.component.control_plane import ControlPlane, Report

DIGEST = "sha256:" + "d" * 64
SETTINGS: dict[str, Any] = {
    "image": "org/app:1",
    "args": "python -u  '/my handler.py'",
    "disk": 20,
    "ports": ["8000/http", "22/tcp"],
    "env": {"TOKEN": "{{ RUNPOD_SECRET_token }}"},
}
LIMITS = {"cpus": 1.5, "memoryMb": 512, "shmMb": 64, "pids": 100}


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        yield plane


async def locked(plane: ControlPlane, id: str) -> None:
    endpoint = plane.endpoints.get(id)
    await plane.endpoints.set_lock(endpoint.id, endpoint.release.id, f"org/app@{DIGEST}")


async def credential(plane: ControlPlane) -> str:
    """The id of a credential for a registry."""
    return (await plane.registries.create("hub", "user", "password")).id


async def diffs(plane: ControlPlane, id: str) -> dict[str, tuple[Any, Any]]:
    """What the newest release has changed."""
    newest = (await plane.client.get(f"/v2/serverless/{id}/releases")).json()["releases"][0]
    return {diff["field"]: (diff["old"], diff["new"]) for diff in newest["diff"]}


async def test_an_image_runs_with_all_its_settings_and_they_are_shown_as_sent(plane: ControlPlane) -> None:
    settings = SETTINGS | {"registry": await credential(plane)}
    shown = await plane.create(**settings, runyard={"entrypoint": ["sh", "-c"], "limits": LIMITS})

    assert settings == {name: shown[name] for name in settings}
    ours = shown["runyard"]
    assert ("docker", ["sh", "-c"], LIMITS) == (ours["runtime"], ours["entrypoint"], ours["limits"])
    assert set() == {"bundle", "handler", "dockerfile", "buildArgs", "imageDigest"} & ours.keys()
    spec = plane.endpoints.get(shown["id"]).release.run.container
    assert spec is not None
    assert ("python", "-u", "/my handler.py") == spec.args
    assert (20 << 30, 512 << 20, 64 << 20) == (
        spec.limits.disk_bytes,
        spec.limits.memory_bytes,
        spec.limits.shm_bytes,
    )


async def test_an_image_alone_has_no_settings(plane: ControlPlane) -> None:
    shown = await plane.create(image="app", runyard={})

    assert ("app", "", [], None) == (shown["image"], shown["args"], shown["ports"], shown["registry"])
    assert "disk" not in shown
    assert ([], {}) == (shown["runyard"]["entrypoint"], shown["runyard"]["limits"])


async def test_a_bundle_with_a_dockerfile_is_built(plane: ControlPlane) -> None:
    ours = {"bundle": plane.bundle, "dockerfile": "docker/Dockerfile", "buildArgs": {"B": "2", "A": "1"}}
    shown = await plane.create(runyard=ours, args="--fast")

    assert ours == {name: shown["runyard"][name] for name in ours}
    assert ("docker", "--fast", False) == (shown["runyard"]["runtime"], shown["args"], "image" in shown)
    assert "handler" not in shown["runyard"]


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"image": "Upper/Case", "runyard": {}}, 400, "no image reference"),
        ({"image": "", "runyard": {}}, 400, "no image reference"),
        ({"image": "app", "runyard": {}, "args": "it's"}, 400, "args: cannot be split into words"),
        ({"image": "app", "runyard": {}, "args": "a\0"}, 400, "args"),
        ({"image": "app", "runyard": {}, "disk": 0}, 422, "$.disk: expected `int` >= 1"),
        ({"image": "app", "runyard": {}, "disk": 2**53 - 1}, 422, "$.disk: expected `int` <= 8388607"),
        ({"image": "app", "runyard": {}, "ports": ["http"]}, 400, "port 'http'"),
        (
            {"image": "app", "runyard": {}, "registry": "cred-2"},
            400,
            "registry: there is no registry credential 'cred-2'",
        ),
        (
            {"image": "app", "runyard": {"limits": {"memoryMb": 5}}},
            422,
            "$.runyard.limits.memoryMb: expected `int` >= 6",
        ),
        ({"image": "app", "runyard": {"limits": {"gpus": 1}}}, 422, "$.runyard.limits: additional properties 'gpus'"),
        ({"image": "app", "runyard": {"entrypoint": "sh"}}, 422, "$.runyard.entrypoint: expected `array`"),
        ({"image": "app", "runyard": {"handler": "handler.py"}}, 400, "runyard.handler"),
        ({"image": "app", "runyard": {"dockerfile": "Dockerfile"}}, 400, "runyard.dockerfile"),
        ({"image": "app"}, 400, "leave out image to run the bundle, or runyard.bundle to run the image"),
        ({"runyard": {"dockerfile": "Dockerfile"}}, 422, "missing property 'image'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
async def test_a_container_that_cannot_be_is_refused_with_what_to_change(
    plane: ControlPlane, changes: dict[str, Any], status: int, says: str
) -> None:
    reply = await plane.client.post("/v2/serverless", json=plane.body(**changes))

    assert status == reply.status_code, reply.text
    assert says in " ".join((reply.json()["detail"], *reply.json().get("errors", ())))
    assert [] == plane.endpoints.list()


async def test_a_process_has_nothing_of_a_container(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    for changes, name in (
        ({"args": "x"}, "args"),
        ({"disk": 1}, "disk"),
        ({"ports": ["80/http"]}, "ports"),
        ({"registry": "cred-1"}, "registry"),
        ({"runyard": {"entrypoint": ["x"]}}, "runyard.entrypoint"),
        ({"runyard": {"limits": {"pids": 1}}}, "runyard.limits.pids"),
        ({"runyard": {"buildArgs": {"A": "1"}}}, "runyard.buildArgs"),
        ({"runyard": {"dockerfile": "Dockerfile"}}, "runyard.dockerfile"),
    ):
        reply = await plane.client.patch(f"/v2/serverless/{id}", json=changes)

        assert (400, True) == (reply.status_code, reply.json()["detail"].startswith(f"{name}: ")), reply.text
    nothing = {"args": "", "ports": [], "registry": None, "runyard": {"entrypoint": [], "limits": {"cpus": None}}}
    assert 1 == (await plane.update(id, **nothing))["runyard"]["version"]


async def test_what_changes_of_a_container_is_a_release_with_its_diff(plane: ControlPlane) -> None:
    registry = await credential(plane)
    id = (await plane.create(**SETTINGS, registry=registry, runyard={}))["id"]
    await locked(plane, id)
    now = await plane.update(id, args="", disk=30, registry=None, runyard={"limits": {"memoryMb": 256}})

    assert (2, DIGEST) == (now["runyard"]["version"], now["runyard"]["imageDigest"])
    assert {
        "args": (SETTINGS["args"], ""),
        "disk": (20, 30),
        "registry": (registry, None),
        "runyard.limits.memoryMb": (None, 256),
    } == await diffs(plane, id)
    assert 2 == (await plane.update(id, disk=30, ports=SETTINGS["ports"]))["runyard"]["version"]


async def test_sending_the_same_image_again_is_a_deployment(plane: ControlPlane) -> None:
    id = (await plane.create(image="org/app:latest", runyard={}))["id"]
    await locked(plane, id)
    again = await plane.update(id, image="org/app:latest")

    assert (2, False) == (again["runyard"]["version"], "imageDigest" in again["runyard"])
    releases = (await plane.client.get(f"/v2/serverless/{id}/releases")).json()["releases"]
    assert [None, {"imageDigest": DIGEST}] == [release.get("runyard") for release in releases]
    assert {} == await diffs(plane, id)
    assert 3 == (await plane.update(id, image="org/app:latest"))["runyard"]["version"]


async def test_an_endpoint_turns_from_one_way_to_run_to_another(plane: ControlPlane) -> None:
    id = (await plane.create(env={"A": "1"}))["id"]
    image = await plane.update(id, image="org/app:1", args="serve")
    assert ("docker", "org/app:1", "serve", {"A": "1"}) == (
        image["runyard"]["runtime"],
        image["image"],
        image["args"],
        image["env"],
    )
    assert {
        "image": (None, "org/app:1"),
        "args": ("", "serve"),
        "runyard.bundle": (plane.bundle, None),
        "runyard.handler": ("handler.py", None),
    } == await diffs(plane, id)

    built = await plane.update(id, runyard={"bundle": plane.bundle, "dockerfile": "Dockerfile"})
    assert ("Dockerfile", "serve", False) == (built["runyard"]["dockerfile"], built["args"], "image" in built)

    process = await plane.update(id, runyard={"bundle": plane.bundle})
    assert ("process", "handler.py", "") == (
        process["runyard"]["runtime"],
        process["runyard"]["handler"],
        process["args"],
    )


async def test_an_endpoint_says_how_far_its_release_is(plane: ControlPlane) -> None:
    id = (await plane.create(image="org/app:1", runyard={}))["id"]
    failed = Preparation(PreparationState.FAILED, "image_not_found", "org/app:1 is not there")
    plane.fleet.preparations[plane.endpoints.get(id).id] = failed
    path = f"/v2/serverless/{id}"

    assert {"state": "FAILED", "code": "image_not_found", "message": "org/app:1 is not there"} == (
        await plane.client.get(path)
    ).json()["runyard"]["preparation"]
    plane.fleet.preparations[plane.endpoints.get(id).id] = Preparation(PreparationState.READY)
    assert {"state": "READY"} == (await plane.client.get(path)).json()["runyard"]["preparation"]


async def test_workers_show_their_image_and_a_kill_by_the_kernel_its_limit(plane: ControlPlane) -> None:
    id = (await plane.create(image="org/app:1", runyard={"limits": {"memoryMb": 512}}))["id"]
    old = plane.endpoints.get(id)
    await plane.update(id, runyard={"bundle": plane.bundle, "dockerfile": "Dockerfile"})
    now = plane.endpoints.get(id)
    await plane.endpoints.set_lock(now.id, now.release.id, DIGEST)
    killed = replace(plane.crashed(old, "killed"), exit=Exit(None, 9, out_of_memory=True))
    plane.fleet.live[now.id] = [Report(plane.worker(old, "old")), Report(plane.worker(now, "new"))]
    plane.fleet.stopped[now.id] = [Report(killed)]
    shown = (await plane.client.get(f"/v2/serverless/{id}/workers")).json()

    assert [("old", "org/app:1"), ("new", DIGEST)] == [(worker["id"], worker["image"]) for worker in shown["workers"]]
    [last] = shown["runyard"]["stopped"]
    assert "killed by the kernel: out of memory; its limit is 512 MB" == last["runyard"]["exit"]


async def test_the_platform_says_what_workers_can_run_in(plane: ControlPlane) -> None:
    ready = (await plane.client.get("/v2/runtimes")).json()
    plane.lacking = "no Docker Engine answers at unix:///x"
    lacking = (await plane.client.get("/v2/runtimes")).json()

    assert {"runtimes": [{"id": "process", "ready": True}, {"id": "docker", "ready": True}]} == ready
    assert {"id": "docker", "ready": False, "reason": plane.lacking} == lacking["runtimes"][1]
    assert 401 == (await plane.stranger.get("/v2/runtimes")).status_code
