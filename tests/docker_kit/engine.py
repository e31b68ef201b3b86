"""A Docker engine of the tests' own: `dockerd` as a child, with everything it keeps in one folder.

It takes no part of an engine that may be on the machine: not its socket, its folders, its bridge or its addresses. The rules
in the firewall are the exception (`host`), so a machine has one engine at a time: the tests' own, or else none of them.

What to know of Engine 20.10, as it was seen on Debian 12 with hybrid cgroups, ext4 and root without CAP_SYS_RESOURCE:

Restarts. A daemon that ends in good order stops its containers first, unless it lives with `live_restore`. One that is
killed leaves them running; the next one stops them before it answers (SIGTERM, then their stop timeout, 10 s unless they
say otherwise), unless it lives with `live_restore`. Paused ones come back paused with it and are killed without. What
they write while no daemon is there waits in a pipe of 64 KiB, and then they wait; those that end meanwhile take with them
what is in it. Exit codes of those are known afterwards, `OOMKilled` is not. Events of before are gone, and there is no
`die` for who ended while it was away: after a restart, list and inspect. Streams of logs and events break off without an
end, but for logs when it stops in good order.

Limits. Memory, with `OOMKilled` and the event `oom` (also when a child died of it and the container went on), CPU, cpuset,
pids and shared memory hold. The root file system cannot be limited (`StorageOpt` wants xfs with project quotas), and
containers see the whole disk. Raised ulimits and a negative `OomScoreAdj` fail at start. Pausing is the v1 freezer;
whoever is paused can be killed, stopped and removed, but executes nothing.

Networks. Containers in an internal network reach each other and every address of the host, with every port that listens
there, not only their bridge's: what else is to be closed to them takes rules in INPUT, by the bridge's name. They have no
way out and no names from outside. A network costs a subnet of the engine's pool: about 120 here, 31 by default. User
namespaces (`--userns-remap`) work.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import httpx2

from tests.docker_kit import host
from tests.docker_kit.client import EngineClient, EngineError
from tests.docker_kit.host import ADDRESSES, BRIDGE, CGROUP, Before

START_S_MAX = 30
STOP_S_MAX = 60
ALONE_S_MAX = 900
POLL_S = 0.02
LOG_LINES = 40
NEEDED = ("dockerd", "docker-registry", "iptables", "ip", "busybox", "dpkg")
LOCK = Path("/run/lock/runyard-test-engine")
"""Held by who has the machine's engine; what it says is where, so that the next run can sweep up after a killed one."""
BRIDGE_ADDRESS = str(ADDRESSES[1])
POOL = str(list(ADDRESSES.subnets(1))[1])


class AnotherEngine(Exception):
    """Ours may not start beside it."""


class Engine:
    """One that was made is started by `start`. What it keeps in `folder` lasts across `stop` and `start`."""

    def __init__(self, folder: Path, before: Before) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._settings: dict[str, object] = {}
        self.traces_before = host.traces()
        self._before = before
        self._log = folder / "dockerd.log"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        host.make_bridge(BRIDGE, f"{BRIDGE_ADDRESS}/24")
        self._write_settings()
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=host.environment(),
                # Whoever interrupts the tests does not interrupt their sweeping up.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            assert self._daemon.poll() is None, f"dockerd ended with {self._daemon.returncode}\n{self.log()}"
            assert time.monotonic() < deadline, f"dockerd is not ready after {START_S_MAX} s\n{self.log()}"
            time.sleep(POLL_S)

    def kill(self) -> None:
        """As a crash does it. Its containerd dies with it, its containers do not."""
        self._end(signal.SIGKILL)
        self._bury_containerd()

    def terminate(self) -> None:
        """As a package upgrade or a shutdown does it."""
        self._end(signal.SIGTERM)

    @contextmanager
    def down(self, *, kill: bool = False) -> Iterator[None]:
        """It is away meanwhile."""
        if kill:
            self.kill()
        else:
            self.terminate()
        try:
            yield
        finally:
            self.start()

    def restart(self, *, kill: bool = False) -> None:
        with self.down(kill=kill):
            pass

    @contextmanager
    def live_restore(self) -> Iterator[None]:
        """Containers outlive the daemon meanwhile."""
        self._reload({"live-restore": True})
        try:
            yield
        finally:
            self._reload({})

    def stop(self) -> None:
        """End it and take back what it did to the machine: containers, networks, rules. Its images stay in its folder."""
        if self._daemon is not None:
            with suppress(httpx2.TransportError, EngineError), self.client() as client:
                self.clear(client)
            self.kill()
        host.sweep(self.folder, self._before)

    def clear(self, client: EngineClient) -> None:
        """Remove all containers and networks."""
        for container in client.containers():
            with suppress(EngineError):
                client.remove(container["Id"])
        for network in client.networks():
            with suppress(EngineError):
                client.call("DELETE", f"/networks/{network['Id']}")

    def client(self) -> EngineClient:
        """A new one, to be closed by who asks."""
        return EngineClient(self.socket)

    @property
    def pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    def log(self) -> str:
        """The end of what the daemon says."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def _reload(self, settings: dict[str, object]) -> None:
        assert self._daemon is not None, "it is not running"
        self._settings = settings
        self._write_settings()
        self._daemon.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_S_MAX
        with self.client() as client:
            while client.call("GET", "/info")["LiveRestoreEnabled"] != settings.get("live-restore", False):
                assert time.monotonic() < deadline, f"dockerd did not take {settings}\n{self.log()}"
                time.sleep(POLL_S)

    def _write_settings(self) -> None:
        (self.folder / "daemon.json").write_text(json.dumps({"live-restore": False, **self._settings}))

    def _command(self) -> list[str]:
        return [
            "dockerd",
            *("--config-file", str(self.folder / "daemon.json")),
            *("--data-root", str(self.folder / "data")),
            *("--exec-root", str(self.folder / "exec")),
            *("--pidfile", str(self.folder / "dockerd.pid")),
            *("--host", self.url),
            *("--group", "root"),
            *("--log-level", "warn"),
            *("--bridge", BRIDGE),
            *("--default-address-pool", f"base={POOL},size=24"),
            *("--cgroup-parent", f"/{CGROUP}"),
            # A pull that is cut is tried again after 5 s, 10 s and so on: here once, the least that it takes.
            *("--max-download-attempts", "1"),
        ]

    def _answers(self) -> bool:
        # httpx2 leaves a socket open that could not be connected, so it is not what finds out.
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)) != 0:
                return False
        with suppress(httpx2.TransportError), self.client() as client:
            return client.http.get("/_ping").status_code == 200
        return False

    def _bury_containerd(self) -> None:
        """Without this a next daemon waits for it in vain where the machine's init is slow to reap: it takes the zombie for
        a containerd that still runs.
        """
        note = self.folder / "exec/containerd/containerd.pid"
        if not note.exists():
            return
        pid = int(note.read_text())
        deadline = time.monotonic() + STOP_S_MAX
        while host.is_alive(pid):
            assert time.monotonic() < deadline, f"containerd {pid} outlives its daemon"
            time.sleep(POLL_S)
        note.unlink()

    def _end(self, how: signal.Signals) -> None:
        assert self._daemon is not None, "it is not running"
        self._daemon.send_signal(how)
        try:
            self._daemon.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
            raise AssertionError(f"dockerd did not end within {STOP_S_MAX} s\n{self.log()}") from None
        finally:
            self._daemon = None


@contextmanager
def running() -> Iterator[Engine]:
    """The machine's engine, in a new folder. At the end nothing of it is left."""
    with _alone() as lock:
        if reason := host.another_engine():
            raise AnotherEngine(reason)
        folder = Path(tempfile.mkdtemp(prefix="runyard-docker-"))
        # Mapped users of containers have to find their way in.
        folder.chmod(0o711)
        before = Before.seen()
        lock.write_text(json.dumps({"folder": str(folder), "before": asdict(before)}))
        engine = Engine(folder, before)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()
            shutil.rmtree(folder)
            lock.write_text("")
        assert set() == host.traces() - engine.traces_before, "something of the engine is left on this machine"


@contextmanager
def _alone() -> Iterator[Path]:
    """Wait for other runs on this machine to be done with their engine, and sweep up after one that was killed."""
    with LOCK.open("a") as lock:
        deadline = time.monotonic() + ALONE_S_MAX
        while not _locked(lock):
            assert time.monotonic() < deadline, f"another run holds {LOCK} for more than {ALONE_S_MAX} s"
            time.sleep(1)
        if noted := LOCK.read_text():
            left = json.loads(noted)
            host.sweep(Path(left["folder"]), Before(**left["before"]))
            shutil.rmtree(left["folder"], ignore_errors=True)
        yield LOCK


def _locked(lock: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def unavailable() -> str | None:
    """Why there can be no engine here; None: there can."""
    if os.geteuid() != 0:
        return "only root can start a Docker engine"
    missing = [name for name in NEEDED if not shutil.which(name, path=host.PATH)]
    if missing:
        return f"not installed: {', '.join(missing)} (on Debian, as root: make e2e-docker)"
    return None
