"""How a process is shut off from the rest of the machine: a pure plan, and the command line that carries it out.

Theory of operation. The platform is root and its data directory is closed to all others, and the interpreter may lie
somewhere closed, too (`/root/.pyenv`). In a mount namespace of its own the process gets another view of the disk:

1. Each directory that is to be hidden, and each one that a stranger cannot pass on the way to what the process needs, is
   *covered*. Of nested ones the topmost is enough.
2. What the process needs under a cover is put back at its own absolute path, so that paths written into environments
   and scripts hold.
3. The covered view is built aside, in the *stage*, while the originals can still be seen; then each part of it is laid
   over the original. So no order of mounts can hide what a later one needs.

All mounts are lines of one table in fstab format, since one `mount -a` costs as much as one mount. `isolate.sh` carries
the plan out, gives up all privileges and becomes the command.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("isolate.sh")
TOOLS = ("setpriv", "unshare", "mount", "timeout", "sh", "env", "sleep", "rm")
TOOLS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where root looks for them: never where a user's PATH says."""

VOLUME = Path("/runpod-volume")
SHARED_MEMORY = Path("/dev/shm")
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))

PROCESSES_MAX = 4096
"""Processes and threads of one user. Many workers of many threads fit; a fork bomb hits the wall."""
FILES_MAX = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Who the process is, and what it may see. Paths are absolute and resolved."""

    uid: int
    tmp: Path
    """Becomes its /tmp: on disk, since temporary files can be larger than memory."""
    hides: tuple[Path, ...] = ()
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    """What it may write if the files' owner and mode let it."""
    volume: Path | None = None


def table(box: Sandbox, stage: Path, passable: Callable[[Path], bool]) -> str:
    """The mounts as fstab text. `stage` is an empty directory; `passable` says whether anyone may pass a directory."""
    # What the stage itself lies under goes last: once it is covered, the stage is out of sight.
    covered = sorted(_covers(box, passable), key=lambda cover: (stage.is_relative_to(cover), cover))
    lines = [_line("runyard", stage, "tmpfs", "mode=755")]
    for number, cover in enumerate(covered):
        lines += _staged(box, cover, stage / str(number))
    if box.volume is not None:
        lines.append(_line(box.volume, VOLUME, "none", "bind"))
    lines += [_line(stage / str(number), cover, "none", "rbind") for number, cover in enumerate(covered)]
    lines.append(_line("runyard", Path("/proc"), "proc", "nosuid,nodev,noexec"))
    return "".join(lines)


def command(
    argv: Sequence[str], *, uid: int, mounts: Path, cwd: Path, env: Path, processes: int, files: int
) -> list[str]:
    """What to run as root, so that `argv` runs isolated: `mounts` holds the table, `env` a script that exports, which is
    deleted as soon as it is open.
    """
    return [
        # Dies with the platform, whatever kills that; see isolate.sh for how the rest follows.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--ipc", "--propagation", "private"),
        *("sh", str(SCRIPT), str(mounts), str(uid), str(processes), str(files), str(cwd), str(env)),
        *argv,
    ]


def exports(env: Mapping[str, str]) -> str:
    """A shell script that exports the variables, whatever their values hold."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


def _covers(box: Sandbox, passable: Callable[[Path], bool]) -> set[Path]:
    closed = {parent for path in (*box.reads, *box.writes) for parent in path.parents if not passable(parent)}
    covers = {*box.hides, *closed, *TEMPORARY, SHARED_MEMORY}
    return {path for path in covers if not covers.intersection(path.parents)}


def _staged(box: Sandbox, cover: Path, place: Path) -> Iterator[str]:
    """The new view of one covered directory: what it is instead, and what shows through."""
    if cover in TEMPORARY:
        yield _line(box.tmp, place, "none", "bind,X-mount.mkdir")
    elif cover == SHARED_MEMORY:
        yield _line("runyard", place, "tmpfs", "mode=1777,X-mount.mkdir")
    else:
        yield _line("runyard", place, "tmpfs", "mode=755,X-mount.mkdir")
    for path in sorted({*box.reads, *box.writes}):
        if path.is_relative_to(cover):
            options = "bind,X-mount.mkdir" if path in box.writes else "bind,ro,X-mount.mkdir"
            yield _line(path, place / path.relative_to(cover), "none", options)


def _line(source: Path | str, target: Path, kind: str, options: str) -> str:
    return f"{_escaped(str(source))} {_escaped(str(target))} {kind} {options} 0 0\n"


def _escaped(text: str) -> str:
    """As getmntent(3) reads it."""
    return "".join(f"\\{ord(sign):03o}" if sign in " \t\n\\#" else sign for sign in text)
