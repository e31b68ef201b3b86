"""What an engine changes on the machine, how to see it, and how to take it back.

An engine that ends leaves its chains in the firewall, its forwarding switch, its bridges and a few files behind. One that is
killed leaves its containers, their shims and their mounts, too. All of it can be told from others' by three signs: the
folder of the engine, the addresses of its networks, and the names of the chains, of which a machine has one set: where
chains with these names are there already, another engine works, and a second one would replace them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADDRESSES = ipaddress.ip_network("10.213.0.0/16")
BRIDGE = "runyard-test0"
CGROUP = "runyard-test"
CGROUPS = Path("/sys/fs/cgroup")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
OUTSIDE = tuple(map(Path, ("/etc/docker/key.json", "/etc/docker", "/opt/containerd", "/run/docker", "/run/containerd")))
"""What engines make wherever their folders are, children first."""
DAEMONS = re.compile(r"dockerd|containerd(-shim\S*)?|docker-proxy|runc")
SHIM_SOCKETS = Path("/run/containerd/s")
"""Of all containerds there are. A killed shim leaves its own."""
TABLES = ("filter", "nat")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""Where daemons and the firewall's commands are, which a plain user's path may lack."""
SWEEP_S_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What has to be as it was."""

    forwarding: str
    forward_policy: str
    outside: tuple[str, ...]

    @classmethod
    def seen(cls) -> Before:
        policy = re.search(r"^-P FORWARD (\w+)$", _run("iptables", "-S", "FORWARD"), re.MULTILINE)
        return cls(
            forwarding=FORWARDING.read_text().strip(),
            forward_policy=policy[1] if policy else "ACCEPT",
            outside=tuple(str(path) for path in OUTSIDE if path.exists()),
        )


def traces() -> set[str]:
    """All that engines leave on a machine, a line each: to be compared before and after."""
    mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    rules = (f"{table}: {rule}" for table in TABLES for rule in _rules(table) if not re.fullmatch("-P .* ACCEPT", rule))
    return {
        f"forwarding {FORWARDING.read_text().strip()}",
        *(f"link {link['ifname']}" for link in _links()),
        *(f"mount {mount}" for mount in mounts if re.search("docker|containerd|netns|overlay", mount)),
        *(f"cgroup {path}" for path in CGROUPS.glob("*/*") if path.is_dir() and path.name in (CGROUP, "docker")),
        *(f"rule {rule}" for rule in rules),
        *(f"path {path}" for path in OUTSIDE if path.exists()),
        *(f"shim {path}" for path in SHIM_SOCKETS.glob("*")),
        *(f"process {pid}: {line}" for pid, line in _processes() if _is_daemon(line)),
    }


def another_engine() -> str | None:
    """Why an engine may not start here; None: it may."""
    if any(" DOCKER" in rule for table in TABLES for rule in _rules(table)):
        return "another Docker engine has its rules in this machine's firewall; a second one would replace them"
    for route in json.loads(_run("ip", "-4", "-j", "route") or "[]"):
        if route["dst"] != "default" and ipaddress.ip_network(route["dst"]).overlaps(ADDRESSES):
            return f"this machine has a route to {route['dst']}, and test networks are in {ADDRESSES}"
    return None


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def make_bridge(name: str, address: str) -> None:
    """Nothing happens where it is there."""
    if name not in {link["ifname"] for link in _links()}:
        _run("ip", "link", "add", name, "type", "bridge")
        _run("ip", "address", "add", address, "dev", name)
        _run("ip", "link", "set", name, "up")


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": PATH}


def sweep(folder: Path, before: Before) -> None:
    """Take back what the engine in `folder` did, and end what it started; the folder itself stays."""
    _kill_processes(folder)
    _remove_cgroups()
    _unmount(folder)
    for link in _links():
        if any(ipaddress.ip_address(address) in ADDRESSES for address in link["addresses"]):
            _run("ip", "link", "delete", link["ifname"])
    if not _another_daemon():
        for table in TABLES:
            _remove_rules(table)
        _run("iptables", "-P", "FORWARD", before.forward_policy)
        FORWARDING.write_text(before.forwarding)
    for path in SHIM_SOCKETS.glob("*"):
        if _is_deaf(path):
            path.unlink()
    for path in OUTSIDE:
        if path.exists() and str(path) not in before.outside:
            _remove_empty(path)


def _kill_processes(folder: Path) -> None:
    """The daemon, its containerd and its shims: all know the folder. Then what is in the containers' cgroups."""
    killed: set[int] = set()
    for _ in _until_swept(f"processes of {folder}"):
        alive = [pid for pid, line in _processes() if str(folder) in line and _is_daemon(line)]
        inside = [
            int(pid) for procs in CGROUPS.glob(f"*/{CGROUP}/**/cgroup.procs") for pid in procs.read_text().split()
        ]
        found = {*alive, *inside}
        # Who is ending has no command line any more, but may still hold its socket.
        if not any(is_alive(pid) for pid in {*found, *killed}):
            return
        killed |= found
        _thaw()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _thaw() -> None:
    """A frozen process does not even die."""
    for state in CGROUPS.glob(f"*/{CGROUP}/**/freezer.state"):
        with contextlib.suppress(OSError):
            state.write_text("THAWED")


def _remove_cgroups() -> None:
    for _ in _until_swept("cgroups"):
        left = [path for top in CGROUPS.glob(f"*/{CGROUP}") for path in (top, *top.rglob("*/"))]
        if not left:
            return
        for path in sorted(left, reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()


def _unmount(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if Path(mount).is_relative_to(folder)), reverse=True):
        _run("umount", "--lazy", mount)


def _remove_rules(table: str) -> None:
    """First the rules that lead to the chains of an engine or speak of its networks, then the chains."""
    prefix = str(ADDRESSES.network_address).removesuffix("0.0")
    ours = re.compile(rf" (DOCKER|{BRIDGE}|br-[0-9a-f]{{12}}|{re.escape(prefix)})")
    rules = [rule for rule in _rules(table) if ours.search(rule)]
    for rule in rules:
        if rule.startswith("-A"):
            _run("iptables", "-t", table, "-D", *rule.split()[1:])
    for rule in rules:
        if rule.startswith("-N"):
            _run("iptables", "-t", table, "-X", rule.split()[1])


def _remove_empty(path: Path) -> None:
    """Sockets and keys of an engine are removed, a folder only when nothing else is in it."""
    if path.is_dir():
        for folder in sorted((child for child in path.rglob("*") if child.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            path.rmdir()
    else:
        path.unlink()


def _is_deaf(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def _rules(table: str) -> list[str]:
    return _run("iptables", "-t", table, "-S").splitlines()


def _links() -> list[dict[str, Any]]:
    return [
        {"ifname": link["ifname"], "addresses": [info["local"] for info in link["addr_info"] if "local" in info]}
        for link in json.loads(_run("ip", "-j", "address"))
    ]


def _processes() -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(process.name), (process / "cmdline").read_bytes().decode(errors="replace")


def _is_daemon(line: str) -> bool:
    return DAEMONS.fullmatch(_program(line)) is not None


def _program(line: str) -> str:
    return Path(line.partition("\0")[0]).name


def _another_daemon() -> bool:
    """One that was started since, in this network namespace."""
    ours = Path("/proc/self/ns/net").readlink()
    for pid, line in _processes():
        with contextlib.suppress(OSError):
            if _program(line) == "dockerd" and Path(f"/proc/{pid}/ns/net").readlink() == ours:
                return True
    return False


def _until_swept(what: str) -> Iterator[None]:
    deadline = time.monotonic() + SWEEP_S_MAX
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)
    raise AssertionError(f"{what} could not be removed within {SWEEP_S_MAX} s")


def _run(*command: str) -> str:
    """What it says; nothing where it fails, since something may be gone already."""
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False).stdout
