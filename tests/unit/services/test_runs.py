"""What a change makes of how workers run."""

from dataclasses import replace
from typing import Any

import pytest

from runyard.domain.container import GB, ContainerSpec, Limits
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BadRequest
from runyard.services.runs import FieldDiff, RunChange, changed_run, check_run, run_diff

ONE, TWO = "a" * 64, "b" * 64
LOCK = "app@sha256:" + "c" * 64
PROCESS = RunSpec(bundle=ONE, handler="src/handler.py", env=(("A", "1"),), lock="runpod==1.0")
SPEC = ContainerSpec(
    image="app:1",
    entrypoint=("python",),
    args=("-u", "/h.py"),
    args_text="-u  /h.py",
    ports=("80/http",),
    registry="cred",
    limits=Limits(cpus=2, disk_bytes=GB),
)
PULLED = RunSpec(env=(("A", "1"),), container=SPEC, lock=LOCK)
BUILT = replace(
    PULLED, bundle=ONE, container=replace(SPEC, image="", dockerfile="d/Dockerfile", build_args=(("V", "1"),))
)


def test_a_new_endpoint_is_what_it_is_asked_to_be() -> None:
    assert RunSpec(bundle=ONE, handler="handler.py") == changed_run(None, RunChange(bundle=ONE))
    assert RunSpec(container=ContainerSpec(image="app")) == changed_run(None, RunChange(image="app"))
    built = RunSpec(bundle=ONE, container=ContainerSpec(dockerfile="Dockerfile.gpu"))
    assert built == changed_run(None, RunChange(bundle=ONE, dockerfile="Dockerfile.gpu"))


@pytest.mark.parametrize("was", [PROCESS, PULLED, BUILT], ids=["process", "pulled", "built"])
def test_what_is_not_named_stays_and_with_it_the_lock(was: RunSpec) -> None:
    assert was == changed_run(was, RunChange())
    assert replace(was, env=()) == changed_run(was, RunChange(env=()))


@pytest.mark.parametrize("was", [PULLED, BUILT], ids=["pulled", "built"])
@pytest.mark.parametrize(
    "asked",
    [{"args": ("x",), "args_text": "x"}, {"entrypoint": ()}, {"ports": ()}, {"registry": None}],
    ids=lambda asked: next(iter(asked)),
)
def test_settings_of_a_container_change_and_its_image_stays(was: RunSpec, asked: dict[str, Any]) -> None:
    assert was.container is not None
    assert replace(was, container=replace(was.container, **asked)) == changed_run(was, RunChange(container=asked))


def test_limits_change_one_by_one() -> None:
    now = changed_run(PULLED, RunChange(limits={"memory_bytes": GB, "cpus": None}))

    assert now.container is not None
    assert (Limits(memory_bytes=GB, disk_bytes=GB), LOCK) == (now.container.limits, now.lock)


@pytest.mark.parametrize(
    ("was", "change"),
    [
        (PULLED, RunChange(image="app:1")),
        (PULLED, RunChange(image="app:2")),
        (BUILT, RunChange(bundle=ONE, dockerfile="d/Dockerfile")),
        (BUILT, RunChange(dockerfile="Dockerfile")),
        (BUILT, RunChange(container={"build_args": ()})),
        (PROCESS, RunChange(bundle=ONE)),
        (PROCESS, RunChange(handler="handler.py")),
    ],
    ids=["same image", "other image", "same bundle", "Dockerfile", "build arguments", "same sources", "handler"],
)
def test_the_lock_goes_with_what_it_came_from(was: RunSpec, change: RunChange) -> None:
    assert None is changed_run(was, change).lock


def test_another_kind_of_run_keeps_what_both_have() -> None:
    plain = replace(SPEC, image="", dockerfile="Dockerfile")
    assert replace(PULLED, lock=None, container=replace(SPEC, image="new")) == changed_run(
        BUILT, RunChange(image="new")
    )
    assert RunSpec(bundle=TWO, env=PULLED.env, container=plain) == changed_run(
        PULLED, RunChange(bundle=TWO, dockerfile="Dockerfile")
    )
    assert RunSpec(bundle=TWO, env=PULLED.env, handler="handler.py") == changed_run(BUILT, RunChange(bundle=TWO))
    assert RunSpec(env=PROCESS.env, container=ContainerSpec(image="new")) == changed_run(
        PROCESS, RunChange(image="new")
    )


def test_building_goes_on_as_it_was_unless_it_is_told() -> None:
    again = changed_run(BUILT, RunChange(bundle=TWO, dockerfile="Dockerfile"))

    assert again.container is not None
    assert ("Dockerfile", (("V", "1"),)) == (again.container.dockerfile, again.container.build_args)


@pytest.mark.parametrize(
    ("was", "change", "names"),
    [
        (None, RunChange(image="app", bundle=ONE), "leave out image"),
        (None, RunChange(image="app", dockerfile="Dockerfile"), "runyard.dockerfile"),
        (None, RunChange(image="app", container={"build_args": (("A", "1"),)}), "runyard.buildArgs"),
        (None, RunChange(image="app", handler="handler.py"), "runyard.handler"),
        (None, RunChange(bundle=ONE, dockerfile="Dockerfile", handler="handler.py"), "runyard.handler"),
        (None, RunChange(bundle=ONE, container={"args": ("x",), "args_text": "x"}), "args: "),
        (None, RunChange(bundle=ONE, limits={"disk_bytes": GB}), "disk: "),
        (PROCESS, RunChange(dockerfile="Dockerfile"), "runyard.dockerfile: .* runyard.bundle"),
        (PROCESS, RunChange(container={"entrypoint": ("x",)}), "runyard.entrypoint"),
        (PROCESS, RunChange(container={"build_args": (("A", "1"),)}), "runyard.buildArgs"),
        (PROCESS, RunChange(container={"ports": ("80/http",)}), "ports: "),
        (PROCESS, RunChange(container={"registry": "r"}), "registry: "),
        (PROCESS, RunChange(limits={"memory_bytes": GB}), "runyard.limits.memoryMb"),
        (PULLED, RunChange(dockerfile="Dockerfile"), "runyard.dockerfile"),
        (PULLED, RunChange(bundle=ONE, limits={"pids": 5}), "runyard.limits.pids"),
        (BUILT, RunChange(handler="handler.py"), "runyard.handler"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_belongs_to_another_kind_is_refused_by_name(was: RunSpec | None, change: RunChange, names: str) -> None:
    with pytest.raises(BadRequest, match=names):
        changed_run(was, change)


def test_what_asks_a_process_for_nothing_is_passed_over() -> None:
    nothing = {"args": (), "args_text": "", "ports": (), "registry": None, "entrypoint": (), "build_args": ()}

    assert PROCESS == changed_run(PROCESS, RunChange(container=nothing, limits={"cpus": None}))


@pytest.mark.parametrize("dockerfile", ["", "/etc/Dockerfile", "../Dockerfile", "a/../../b", "x\0", "x" * 256])
def test_the_dockerfile_is_one_of_the_bundle(dockerfile: str) -> None:
    with pytest.raises(BadRequest, match=r"runyard\.dockerfile"):
        check_run(RunSpec(bundle=ONE, container=ContainerSpec(dockerfile=dockerfile)))


def test_an_image_needs_no_bundle_and_one_that_is_built_does() -> None:
    check_run(PULLED)
    with pytest.raises(BadRequest, match=r"runyard\.bundle"):
        check_run(replace(BUILT, bundle=""))


def test_a_release_tells_what_it_changed_by_the_values_that_callers_see() -> None:
    limits = Limits(cpus=2, memory_bytes=GB, shm_bytes=GB, pids=9, disk_bytes=3 * GB)
    new = replace(SPEC, entrypoint=(), args=("x y",), args_text="", ports=(), registry=None, limits=limits)

    assert (
        FieldDiff(field="entrypoint", old=["python"], new=[]),
        FieldDiff(field="args", old="-u  /h.py", new="'x y'"),
        FieldDiff(field="disk_bytes", old=1, new=3),
        FieldDiff(field="ports", old=["80/http"], new=[]),
        FieldDiff(field="registry", old="cred", new=None),
        FieldDiff(field="memory_bytes", old=None, new=1024),
        FieldDiff(field="shm_bytes", old=None, new=1024),
        FieldDiff(field="pids", old=None, new=9),
    ) == run_diff(PULLED, replace(PULLED, container=new))
    assert () == run_diff(PULLED, replace(PULLED, lock=None))


def test_a_release_tells_when_it_runs_in_another_way() -> None:
    image = RunSpec(container=ContainerSpec(image="app"))
    built = RunSpec(bundle=ONE, container=ContainerSpec(build_args=(("V", "1"),)))
    process = RunSpec(bundle=ONE, handler="handler.py")

    assert {
        "image": ("app", None),
        "bundle": (None, ONE),
        "dockerfile": (None, "Dockerfile"),
        "build_args": ({}, {"V": "1"}),
    } == {diff.field: (diff.old, diff.new) for diff in run_diff(image, built)}
    assert {"handler": (None, "handler.py"), "dockerfile": ("Dockerfile", None), "build_args": ({"V": "1"}, {})} == {
        diff.field: (diff.old, diff.new) for diff in run_diff(built, process)
    }
