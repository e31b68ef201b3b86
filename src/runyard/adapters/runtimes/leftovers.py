"""Processes that may outlive what started them: how they are known again, and ended.

Each room (see rooms.py) notes the process that was started in it, by pid, start time and boot, so that a pid given to
someone else since is never touched. A variable in the environment of everything started in a room finds what has left
the process group, or was started in the moment before the note was written.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "RUNYARD_ROOM"
"""The variable; its value is the room's path."""
NOTE = "process"
KILL_SECONDS_MAX = 10.0
"""How long the end of killed processes is awaited. More means a process that the kernel itself cannot end."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process in the whole life of a machine."""

    pid: int
    started: str
    """Clock ticks since boot."""
    boot: str


def identify(pid: int) -> Identity | None:
    """None when there is no such process, or only its zombie."""
    try:
        # The command's name stands in parentheses and may hold anything, parentheses too.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else Identity(pid, fields[19], _boot())
    except OSError:
        return None


def note(room: Path, pid: int, name: str = NOTE) -> None:
    """Remember that `pid` was started in the room."""
    if (identity := identify(pid)) is not None:
        (room / name).write_text(f"{identity.pid} {identity.started} {identity.boot}\n")


def noted(room: Path, name: str = NOTE) -> Identity | None:
    """The process that the room's note speaks of, if it still runs."""
    try:
        pid, started, boot = (room / name).read_text().split()
        remembered = Identity(int(pid), started, boot)
    except (OSError, ValueError):
        return None
    return remembered if identify(remembered.pid) == remembered else None


def marked(within: Path, spared: Collection[Path] = ()) -> list[Identity]:
    """All processes whose mark is `within` or a path under it, but not one of `spared`.

    Costs some 20 microseconds a process on the machine.
    """
    return [identity for pid in _pids() if _is_marked(pid, within, spared) and (identity := identify(pid)) is not None]


def kill_marked(within: Path, extra: Callable[[], list[Identity]] = list, *, spared: Collection[Path] = ()) -> bool:
    """Kill what is marked, and `extra`, again and again until there is none; False when some will not die in time."""
    deadline = time.monotonic() + KILL_SECONDS_MAX
    pause = 0.001
    while found := {*marked(within, spared), *extra()}:
        if time.monotonic() > deadline:
            return False
        for identity in found:
            kill(identity)
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return True


def kill(identity: Identity) -> None:
    """SIGKILL to just this process: the handle is taken first, then checked, so no other can get the signal."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(identity.pid)
        try:
            if identify(identity.pid) == identity:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _is_marked(pid: int, within: Path, spared: Collection[Path]) -> bool:
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    name = os.fsencode(f"{MARK}=")
    rooms = [Path(os.fsdecode(entry.removeprefix(name))) for entry in environ.split(b"\0") if entry.startswith(name)]
    return any(room.is_relative_to(within) and room not in spared for room in rooms)


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
