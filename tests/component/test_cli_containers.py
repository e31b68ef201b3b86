"""`runyard deploy` of images and of folders with a Dockerfile."""

from pathlib import Path

import click
import pytest

from runyard.cli.following import follow_release
from runyard.client.control import Control
from runyard.domain.container import GB, ContainerSpec, Limits
from runyard.domain.fleet import Preparation, PreparationState
from runyard.domain.job import WorkerId
from runyard.ports.runtime import LogSource
from tests.component.test_cli import Yard, folder, yard

__all__ = ["folder", "yard"]

READY = Preparation(PreparationState.READY)
FLAGS = (
    "--entrypoint",
    "sh -c",
    "--args",
    "python  '/my handler.py'",
    *"--disk 20 --memory 1.5g --cpus 1.5 --shm 64m --pids 9 --port 8000/http --port 22/tcp --registry hub".split(),
)


@pytest.fixture
def built(folder: Path) -> Path:
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / ".dockerignore").write_text("data\n")
    (folder / "data").write_text("x")
    return folder


def container(yard: Yard, name: str) -> ContainerSpec:
    spec = yard.endpoint(name).release.run.container
    assert spec is not None
    return spec


def credential(yard: Yard) -> str:
    """The id of one that is called hub."""
    return yard.bridge.loop.run_until_complete(yard.plane.registries.create("hub", "user", "password")).id


def stands(yard: Yard, name: str, preparation: Preparation) -> None:
    yard.plane.fleet.preparations[yard.endpoint(name).id] = preparation


def test_an_image_becomes_an_endpoint_of_its_last_word(yard: Yard) -> None:
    out = yard.ok("deploy", "registry.example:5000/org/worker-vllm:v2")

    assert f"{yard.endpoint('worker-vllm').id}\n" == out
    assert ContainerSpec(image="registry.example:5000/org/worker-vllm:v2") == container(yard, "worker-vllm")
    assert 5 == yard.endpoint("worker-vllm").scaling.idle_timeout.total_seconds()


def test_every_flag_of_a_container_reaches_it(yard: Yard) -> None:
    hub = credential(yard)
    yard.ok("deploy", "app:1", *FLAGS, "--env", "T={{ RUNPOD_SECRET_t }}")

    limits = Limits(cpus=1.5, memory_bytes=1536 << 20, shm_bytes=64 << 20, pids=9, disk_bytes=20 * GB)
    assert container(yard, "app") == ContainerSpec(
        image="app:1",
        entrypoint=("sh", "-c"),
        args=("python", "/my handler.py"),
        args_text="python  '/my handler.py'",
        ports=("8000/http", "22/tcp"),
        registry=hub,
        limits=limits,
    )
    yard.ok("deploy", "other", "--registry", hub)
    assert hub == container(yard, "other").registry
    refused = yard.run("deploy", "another", "--registry", "nobody's")
    assert (1, True) == (refused.exit_code, "there is no registry credential" in refused.stderr)
    assert {"T": "{{ RUNPOD_SECRET_t }}"} == dict(yard.endpoint("app").release.run.env)


def test_a_folder_with_a_dockerfile_is_built_of_what_docker_would_take(yard: Yard, built: Path) -> None:
    yard.ok("deploy", str(built), "--build-arg", "V=1", "--build-arg", "W=a=b", "--memory", "512m")

    assert [".dockerignore", ".runpodignore", "Dockerfile", "handler.py"] == yard.bundle_of("hello")
    spec = container(yard, "hello")
    assert ("Dockerfile", (("V", "1"), ("W", "a=b")), 512 << 20) == (
        spec.dockerfile,
        spec.build_args,
        spec.limits.memory_bytes,
    )


def test_deploying_again_leaves_what_no_flag_names(yard: Yard, built: Path) -> None:
    credential(yard)
    yard.ok("deploy", "app:1", *FLAGS)
    was = container(yard, "app")
    again = yard.json("deploy", "app:2", "--name", "app", "--entrypoint", "", "--registry", "", "--pids", "7")
    now = container(yard, "app")

    assert 2 == again["version"]
    assert ("app:2", (), None, 7) == (now.image, now.entrypoint, now.registry, now.limits.pids)
    assert (was.args, was.ports, was.limits.memory_bytes) == (now.args, now.ports, now.limits.memory_bytes)
    yard.ok("deploy", str(built), "--name", "app")
    assert (True, was.args) == (container(yard, "app").built, container(yard, "app").args)
    yard.ok("deploy", str(built), "--name", "app", "--runtime", "process")
    assert None is yard.endpoint("app").release.run.container


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--memory 100k", "no size"),
        ("--memory 12", "512m or 2g"),
        ("--memory 0.1m", "no size"),
        ("--cpus 0", "--cpus"),
        ("--disk 0", "--disk"),
        ("--build-arg V", "NAME=VALUE"),
        ("--entrypoint it's", "--entrypoint: cannot be split into words"),
        ("--handler handler.py", "--handler: an image knows what it runs"),
        ("--runtime process --pids 3", "--pids: only containers have this"),
        ("--runtime process --port 80/http", "--port: only containers have this"),
    ],
    ids=lambda value: value.replace(" ", "_"),
)
def test_a_flag_that_does_not_fit_is_a_usage_error(yard: Yard, built: Path, flags: str, says: str) -> None:
    result = yard.run("deploy", str(built), *flags.split())

    assert (2, "") == (result.exit_code, result.stdout)
    assert says in result.stderr
    assert [] == yard.plane.endpoints.list()


def test_an_image_is_not_built(yard: Yard) -> None:
    result = yard.run("deploy", "app", "--build-arg", "A=1")

    assert (2, True) == (result.exit_code, "--build-arg: app is an image, and not built" in result.stderr)


def test_without_an_engine_nothing_is_sent_and_the_way_without_is_named(yard: Yard, built: Path) -> None:
    yard.plane.lacking = "no Docker Engine answers at unix:///x"
    for target in ("app", str(built)):
        result = yard.run("deploy", target)

        assert 1 == result.exit_code
        assert yard.plane.lacking in result.stderr
        assert "--runtime process" in result.stderr
    assert ([], 0) == (yard.plane.endpoints.list(), yard.bridge.uploads)
    yard.ok("deploy", str(built), "--runtime", "process")


# --- Waiting for the image


def test_lines_of_the_release_are_shown_until_it_is_ready(yard: Yard) -> None:
    yard.ok("deploy", "app")
    deployed = Control(yard.connection).find("app")
    assert deployed is not None
    id = yard.endpoint("app").id
    steps = [("pulling app: 1 of 2 layers", None), ("pulling app: 2 of 2 layers", None), ("pulled app", READY)]

    def sleep(_: float) -> None:
        line, preparation = steps.pop(0)
        yard.plane.logs.append(WorkerId(f"build-1-{id}"), id, line, source=LogSource.SYSTEM)
        yard.plane.logs.append(WorkerId(f"build-2-{id}"), id, "of another release", source=LogSource.SYSTEM)
        if preparation is not None:
            yard.plane.fleet.preparations[id] = preparation

    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runyard.cli.following.note", shown.append)
        follow_release(Control(yard.connection), deployed, sleep)

    assert ["pulling app: 1 of 2 layers", "pulling app: 2 of 2 layers", "pulled app", "release 1 is ready"] == shown


def test_waiting_ends_when_the_release_is_no_more(yard: Yard) -> None:
    yard.ok("deploy", "app")
    deployed = Control(yard.connection).find("app")
    assert deployed is not None

    follow_release(Control(yard.connection), deployed, lambda _: click.echo(yard.ok("deploy", "app")))
    assert 2 == yard.endpoint("app").release.version


def test_a_deployment_that_fails_is_one_whose_release_does(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.ok("deploy", "app")
    stands(yard, "app", Preparation(PreparationState.FAILED, "image_not_found", "app is not there"))
    failed = yard.run("deploy", "app", "--wait")
    stands(yard, "app", READY)
    ready = yard.run("deploy", "app", "--wait")

    assert (1, f"{yard.endpoint('app').id}\n") == (failed.exit_code, failed.stdout)
    assert "Error: release 2 cannot run: image_not_found: app is not there" in failed.stderr
    assert (0, "release 3 is ready\n") == (ready.exit_code, ready.stderr)


# --- Showing


def test_an_endpoint_shows_how_its_containers_run(yard: Yard, built: Path) -> None:
    hub = credential(yard)
    yard.ok("deploy", "org/app:1", *FLAGS)
    stands(yard, "app", Preparation(PreparationState.FAILED, "image_not_found", "not there"))
    lines = yard.ok("endpoints", "show", "app").partition("JOBS")[0].splitlines()
    shown = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    assert "org/app:1" == shown["image"]
    assert ("sh -c", "python  '/my handler.py'") == (shown["entrypoint"], shown["args"])
    assert "cpus 1.5, memory 1536m, shm 64m, pids 9, disk 20g" == shown["limits"]
    assert ("8000/http, 22/tcp", hub) == (shown["ports"], shown["registry"])
    assert "FAILED, image_not_found: not there" == shown["release"]
    yard.ok("deploy", str(built), "--build-arg", "V=1")
    text = yard.ok("endpoints", "show", "hello")
    assert "dockerfile:  Dockerfile" in text
    assert "handler:" not in text
