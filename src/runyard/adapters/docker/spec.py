"""From what a worker needs to what an Engine is asked for, and back from a container's end to a worker's: values only."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runyard.domain.container import ContainerSpec, port_of
from runyard.domain.endpoint import RunSpec
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch

PLATFORM, WORKER, ENDPOINT, PLANE = (f"runyard.{word}" for word in ("platform", "worker", "endpoint", "plane"))
"""Labels. A container or network is ours when its `PLATFORM` is the id of our data directory."""
CAPABILITIES = tuple("CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETGID SETPCAP SETUID SYS_CHROOT".split())
"""What images that start as root do: change owners and users, listen on port 80, let an sshd shut its children in. Of
Docker's own list it lacks raw sockets, device nodes, file capabilities and the audit log."""
VOLUME = "/runpod-volume"
HOSTNAME_LENGTH_MAX = 63
CPU_NANOS = 1_000_000_000
SIGNALS = frozenset(signal.valid_signals())
ENDED = frozenset(("exited", "dead", "removing", "created"))
"""States in which nothing runs. `created`: its platform ended before it could start it."""
INITS = frozenset(("init", "my_init", "tini", "tini-static", "dumb-init", "catatonit", "docker-init", "systemd"))
"""Programs that want to be PID 1 themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for all containers. Limits are those of workers whose endpoint sets none; None: no limit."""

    cpus: float | None = None
    memory_bytes: int | None = None
    shm_bytes: int | None = None
    """None: the Engine's default, 64 MiB as a rule."""
    pids: int = 4096
    disk_bytes: int | None = None
    capabilities: tuple[str, ...] = CAPABILITIES
    new_privileges: bool = False
    """Whether programs may gain privileges by being executed, as `sudo` does."""
    volume_dir: Path | None = None
    log_file_bytes: int = 16 << 20
    """Old Engines lose lines when a log is rotated faster than it is read, so its files are not small."""
    log_files: int = 4


def name_of(worker_id: str) -> str:
    return f"runyard-{worker_id}"


def create_body(
    launch: Launch,
    policy: Policy,
    *,
    platform: str,
    image: str,
    config: Mapping[str, Any],
    network: str,
    plane: str,
    quota: bool,
) -> dict[str, Any]:
    """What `POST /containers/create` takes. `config` is the image's; `quota`: the Engine can limit a container's disk."""
    spec = _container_of(launch.run)
    entrypoint = list(spec.entrypoint or config.get("Entrypoint") or ())
    body: dict[str, Any] = {
        "Image": image,
        "Labels": {
            PLATFORM: platform,
            WORKER: launch.worker_id,
            ENDPOINT: launch.endpoint_id,
            PLANE: plane,
        },
        "Env": [f"{name}={value}" for name, value in launch.env.items()],
        "ExposedPorts": {_port(port): {} for port in spec.ports},
        "HostConfig": _host_config(launch.run, policy, network, quota=quota, init=not _is_init(entrypoint)),
    }
    if len(launch.worker_id) <= HOSTNAME_LENGTH_MAX:
        body["Hostname"] = launch.worker_id
    if spec.entrypoint:
        # The Engine would leave out the image's words when the image's entrypoint is replaced.
        body["Entrypoint"], body["Cmd"] = list(spec.entrypoint), list(spec.args or config.get("Cmd") or ())
    elif spec.args:
        body["Cmd"] = list(spec.args)
    return body


def disk_limit(run: RunSpec, policy: Policy) -> int | None:
    """Bytes that the container's own layer may hold."""
    return _container_of(run).limits.disk_bytes or policy.disk_bytes


def has_quotas(info: Mapping[str, Any]) -> bool:
    """Whether an Engine with this `/info` may be able to limit a container's disk; only a try tells."""
    status = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
    driver = info.get("Driver")
    return driver in ("btrfs", "zfs", "devicemapper") or (driver == "overlay2" and "xfs" in status.values())


def exit_of(state: Mapping[str, Any], *, with_platform: bool) -> Exit:
    """How a container in this (ended) state ended; `with_platform`: not by itself, nor because we stopped it."""
    if state.get("Status") == "created":
        return Exit(None, signal.SIGKILL, with_platform=True)
    code = int(state.get("ExitCode", 0))
    # The flag is also set when a child died of it and the worker went on and ended well.
    if state.get("OOMKilled") and code != 0:
        return Exit(None, signal.SIGKILL, out_of_memory=True)
    if code - 128 in SIGNALS:
        return Exit(None, code - 128, with_platform=with_platform)
    return Exit(code, with_platform=with_platform)


def _container_of(run: RunSpec) -> ContainerSpec:
    assert run.container is not None, "it runs as a process"
    return run.container


def _host_config(run: RunSpec, policy: Policy, network: str, *, quota: bool, init: bool) -> dict[str, Any]:
    spec = _container_of(run)
    limits = spec.limits
    memory, cpus = limits.memory_bytes or policy.memory_bytes, limits.cpus or policy.cpus
    host: dict[str, Any] = {
        "NetworkMode": network,
        "RestartPolicy": {"Name": "no"},
        "Init": init,
        "CapDrop": ["ALL"],
        "CapAdd": list(policy.capabilities),
        "SecurityOpt": [] if policy.new_privileges else ["no-new-privileges"],
        "PidsLimit": limits.pids or policy.pids,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(policy.log_file_bytes), "max-file": str(policy.log_files)},
        },
        # Others' machines must not reach what a user of this one wants to see; a free port is the Engine's choice.
        "PortBindings": {_port(port): [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in spec.ports},
    }
    if cpus is not None:
        host["NanoCpus"] = round(cpus * CPU_NANOS)
    if memory is not None:
        host["Memory"] = host["MemorySwap"] = memory
    if (shm := limits.shm_bytes or policy.shm_bytes) is not None:
        host["ShmSize"] = shm
    if quota and (disk := disk_limit(run, policy)) is not None:
        host["StorageOpt"] = {"size": str(disk)}
    if policy.volume_dir is not None:
        host["Mounts"] = [{"Type": "bind", "Source": str(policy.volume_dir), "Target": VOLUME}]
    return host


def _port(port: str) -> str:
    number, protocol = port_of(port)
    return f"{number}/{protocol}"


def _is_init(entrypoint: list[str]) -> bool:
    return bool(entrypoint) and PurePosixPath(entrypoint[0]).name in INITS
