from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.docker.spec import Policy, create_body, exit_of, has_quotas
from runyard.domain.container import GB, ContainerSpec, Limits
from runyard.domain.endpoint import RunSpec
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch

IMAGE: dict[str, Any] = {"Entrypoint": ["/start.sh"], "Cmd": ["serve"]}


def a_body(
    spec: ContainerSpec = ContainerSpec(image="worker"),  # noqa: B008
    policy: Policy = Policy(),  # noqa: B008
    *,
    quota: bool = False,
    config: dict[str, Any] = IMAGE,
) -> dict[str, Any]:
    launch = Launch(
        worker_id=WorkerId("w1"),
        endpoint_id=EndpointId("e1"),
        run=RunSpec(container=spec, lock="worker@sha256:1"),
        env={"RUNPOD_POD_ID": "w1", "GREETING": "hello = you"},
    )
    return create_body(
        launch,
        policy,
        platform="p1",
        image="worker@sha256:1",
        config=config,
        network="n1",
        plane="http://10.213.0.1:8001",
        quota=quota,
    )


def test_a_container_says_whose_it_is() -> None:
    body = a_body()

    assert "worker@sha256:1" == body["Image"]
    assert {
        "runyard.platform": "p1",
        "runyard.worker": "w1",
        "runyard.endpoint": "e1",
        "runyard.plane": "http://10.213.0.1:8001",
    } == body["Labels"]
    assert "w1" == body["Hostname"]
    assert "n1" == body["HostConfig"]["NetworkMode"]
    assert {"Name": "no"} == body["HostConfig"]["RestartPolicy"]


def test_the_environment_is_passed_on_and_the_image_keeps_what_it_does_not_name() -> None:
    assert ["RUNPOD_POD_ID=w1", "GREETING=hello = you"] == a_body()["Env"]


@pytest.mark.parametrize(
    ("spec", "entrypoint", "cmd"),
    [
        (ContainerSpec(image="w"), None, None),
        (ContainerSpec(image="w", args=("go",)), None, ["go"]),
        (ContainerSpec(image="w", entrypoint=("sh", "-c")), ["sh", "-c"], ["serve"]),
        (ContainerSpec(image="w", entrypoint=("sh",), args=("-c", "id")), ["sh"], ["-c", "id"]),
    ],
)
def test_words_that_are_not_given_are_the_images_own(
    spec: ContainerSpec, entrypoint: list[str] | None, cmd: list[str] | None
) -> None:
    body = a_body(spec)

    assert (entrypoint, cmd) == (body.get("Entrypoint"), body.get("Cmd"))


@pytest.mark.parametrize(
    ("entrypoint", "init"),
    [(["/start.sh"], True), (["/init"], False), (["/usr/bin/tini", "--", "x"], False), (None, True)],
)
def test_an_init_reaps_children_unless_the_image_brings_its_own(entrypoint: list[str] | None, *, init: bool) -> None:
    assert init == a_body(config={"Entrypoint": entrypoint, "Cmd": None})["HostConfig"]["Init"]


def test_little_is_allowed_by_default() -> None:
    host = a_body()["HostConfig"]

    assert ["ALL"] == host["CapDrop"]
    assert "NET_BIND_SERVICE" in host["CapAdd"]
    assert not {"NET_RAW", "MKNOD", "AUDIT_WRITE", "SYS_ADMIN", "ALL"} & set(host["CapAdd"])
    assert ["no-new-privileges"] == host["SecurityOpt"]
    assert 4096 == host["PidsLimit"]
    assert not {"Privileged", "NanoCpus", "Memory", "StorageOpt", "ShmSize", "Mounts"} & host.keys()


def test_settings_allow_more() -> None:
    host = a_body(policy=Policy(capabilities=("SYS_PTRACE",), new_privileges=True))["HostConfig"]

    assert ["SYS_PTRACE"] == host["CapAdd"]
    assert [] == host["SecurityOpt"]


def test_an_endpoints_limits_come_before_the_platforms() -> None:
    policy = Policy(cpus=1.0, memory_bytes=GB, shm_bytes=1 << 20, pids=100, disk_bytes=GB)
    limits = Limits(cpus=0.5, memory_bytes=2 * GB, shm_bytes=2 << 20, pids=50, disk_bytes=2 * GB)
    mine = a_body(ContainerSpec(image="w", limits=limits), policy, quota=True)["HostConfig"]
    theirs = a_body(policy=policy, quota=True)["HostConfig"]

    assert (500_000_000, 2 * GB, 2 * GB, 2 << 20, 50) == tuple(
        mine[name] for name in ("NanoCpus", "Memory", "MemorySwap", "ShmSize", "PidsLimit")
    )
    assert {"size": str(2 * GB)} == mine["StorageOpt"]
    assert (1_000_000_000, GB, GB, 1 << 20, 100) == tuple(
        theirs[name] for name in ("NanoCpus", "Memory", "MemorySwap", "ShmSize", "PidsLimit")
    )
    assert {"size": str(GB)} == theirs["StorageOpt"]


def test_a_disk_is_only_limited_by_who_can() -> None:
    assert "StorageOpt" not in a_body(policy=Policy(disk_bytes=GB), quota=False)["HostConfig"]
    assert has_quotas({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "xfs"]]})
    assert has_quotas({"Driver": "btrfs", "DriverStatus": None})
    assert not has_quotas({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]})


def test_ports_are_published_on_loopback_alone() -> None:
    body = a_body(ContainerSpec(image="w", ports=("8000/http", "53/udp")))

    assert {"8000/tcp": {}, "53/udp": {}} == body["ExposedPorts"]
    assert [{"HostIp": "127.0.0.1", "HostPort": ""}] == body["HostConfig"]["PortBindings"]["8000/tcp"]


def test_the_volume_is_where_workers_look_for_it() -> None:
    host = a_body(policy=Policy(volume_dir=Path("/srv/models")))["HostConfig"]

    assert [{"Type": "bind", "Source": "/srv/models", "Target": "/runpod-volume"}] == host["Mounts"]


def test_a_log_is_bounded() -> None:
    log = a_body(policy=Policy(log_file_bytes=1 << 20, log_files=3))["HostConfig"]["LogConfig"]

    assert {"Type": "json-file", "Config": {"max-size": "1048576", "max-file": "3"}} == log


@pytest.mark.parametrize(
    ("state", "exit"),
    [
        ({"Status": "exited", "ExitCode": 0}, Exit(0)),
        ({"Status": "exited", "ExitCode": 3}, Exit(3)),
        ({"Status": "exited", "ExitCode": 137}, Exit(None, 9)),
        ({"Status": "exited", "ExitCode": 143}, Exit(None, 15)),
        ({"Status": "exited", "ExitCode": 255}, Exit(255)),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, Exit(None, 9, out_of_memory=True)),
        ({"Status": "exited", "ExitCode": 1, "OOMKilled": True}, Exit(None, 9, out_of_memory=True)),
        ({"Status": "exited", "ExitCode": 0, "OOMKilled": True}, Exit(0)),
        ({"Status": "created", "ExitCode": 0}, Exit(None, 9, with_platform=True)),
    ],
)
def test_how_a_container_ended_is_how_its_worker_did(state: dict[str, Any], exit: Exit) -> None:
    assert exit == exit_of(state, with_platform=False)


def test_who_runs_out_of_memory_did_not_end_with_the_platform() -> None:
    oom = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}

    assert Exit(None, 9, out_of_memory=True) == exit_of(oom, with_platform=True)
    assert Exit(None, 15, with_platform=True) == exit_of({"Status": "exited", "ExitCode": 143}, with_platform=True)
