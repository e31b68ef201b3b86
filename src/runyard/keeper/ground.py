"""What the keeper stands on: the data directory, the ports, processes of this machine, the log."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

BACKLOG = 2048
STALE_S_MAX = 10.0
"""How long a server whose keeper was killed may take to go."""
_IP_FREEBIND = 15


class reachable:  # noqa: N801 - Read as a word: `with reachable(folder) as path`.
    """A short path to a folder: the address of a unix socket may have 107 bytes, and data directories have more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> str:
        self._handle = os.open(self._folder, os.O_PATH | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._handle}"

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def claim(data: Path) -> int:
    """One platform for each data directory; the claim ends with this process, whatever ends it."""
    handle = os.open(data / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(handle, 32).decode() or "unknown"
        fail(f"another platform (process {pid}) serves from {data}; stop it, or choose another --data-dir")
    os.ftruncate(handle, 0)
    with suppress(OSError):  # On a full disk the claim holds without a name.
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def end_stale_servers(data: Path) -> None:
    """Servers of a keeper that was killed go by themselves; when they are gone the ports and the stores are free."""
    notes = data / "servers"
    for known in notes.read_text().splitlines() if notes.exists() else ():
        pid = int(known.split()[0])
        if identity(pid) == known:
            _see_out(pid)
    notes.write_text("")


def _see_out(pid: int) -> None:
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(1000 * STALE_S_MAX):
        say(f"killing server {pid}, whose keeper was killed before")
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        poll.poll(1000 * STALE_S_MAX)
    os.close(handle)


def listen(host: str, port: int) -> socket.socket:
    try:
        return bound(host, port)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; choose another port")


def bound(host: str, port: int, *, foreseen: bool = False) -> socket.socket:
    """A socket that listens there. `foreseen`: the address need not be this machine's yet, and it may go and come back, as
    that of a bridge does when its engine restarts; whoever connects while it is there is heard. Raises `OSError`.
    """
    # Named as TCP, since asyncio turns off Nagle's delays only where it says so: an answer in two writes took 40 ms more.
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if foreseen:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # Of IPv6 sockets, too.
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def identity(pid: int) -> str | None:
    """One process in the whole life of a machine: its pid, its start in ticks since boot, and the boot."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{pid} {fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except OSError:
        return None


def children() -> list[int]:
    """Everyone whose parent we are, zombies too."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


def say(event: str) -> None:
    """A line of the platform's log, as `telemetry.py` would write it."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {"event": event, "level": "warning", "logger": "runyard.keeper", "timestamp": now}
    with suppress(OSError):
        print(f"{now} [keeper] {event}" if os.isatty(2) else json.dumps(entry), file=sys.stderr, flush=True)


def fail(message: str) -> NoReturn:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)
