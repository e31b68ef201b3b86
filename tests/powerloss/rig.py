"""Runs a process with `shim.c` between it and its disk: all that it does to one folder is recorded, and faults are played.

    recording = record([sys.executable, "-m", "store_under_test", str(folder)], folder, scratch=tmp_path)
    findings = recording.examine(what_is_missing, cuts=1_000, seed=7)
    assert not findings.problems, str(findings)

`Rig` is the same in steps, for a process that is talked to while it runs.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.powerloss.log import FAULTS, FOLDER, LOG, Acks, Kind, Record, packed
from tests.powerloss.recording import Recording

SHIM = Path(__file__).parent / "shim.c"
ROOT = Path(__file__).parents[2]
NO_COMPILER = "there is no C compiler to build the shim with; on Debian or Ubuntu: apt-get install gcc libc6-dev"
RUN_SECONDS_MAX = 120.0


class Faults:
    """What is wrong with the disk. Changes reach the running process at once."""

    _LAYOUT = struct.Struct("=iiqqqqqqq")
    _FIELDS: tuple[str, ...] = tuple(
        "write_error sync_error write_bytes syncs sync_failures sync_delay_us syncs_begun syncs_failed writes_failed".split()
    )

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(self._LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self._LAYOUT.size)

    def fill_disk(self, *, after_bytes: int = 0, error: int = errno.ENOSPC) -> None:
        """Writes fail once this many bytes more were written. The last one may be written in part."""
        self._set(write_bytes=after_bytes)
        self._set(write_error=error)

    def fail_syncs(self, *, after: int = 0, times: int | None = None, error: int = errno.EIO) -> None:
        """Syncs fail once this many more have succeeded: for ever, or so many times."""
        self._set(syncs=after, sync_failures=-1 if times is None else times)
        self._set(sync_error=error)

    def slow_syncs(self, seconds: float) -> None:
        """Each sync takes this long."""
        self._set(sync_delay_us=round(seconds * 1e6))

    def lift(self) -> None:
        """The disk works and has room."""
        self._set(write_error=0, sync_error=0, sync_delay_us=0)

    @property
    def syncs(self) -> int:
        """How many syncs have begun."""
        return self._get("syncs_begun")

    @property
    def failed_syncs(self) -> int:
        return self._get("syncs_failed")

    @property
    def failed_writes(self) -> int:
        return self._get("writes_failed")

    def close(self) -> None:
        self._memory.close()

    def _get(self, name: str) -> int:
        return self._LAYOUT.unpack(self._memory[:])[self._FIELDS.index(name)]

    def _set(self, **values: int) -> None:
        # Field by field: the process counts in the others meanwhile.
        for name, value in values.items():
            place = self._FIELDS.index(name)
            code, offset = ("=i", 4 * place) if place < 2 else ("=q", 8 + 8 * (place - 2))
            struct.pack_into(code, self._memory, offset, value)


class Rig:
    """One folder and one log: what processes with this `environment` do beneath `folder`.

    What is in the folder already counts as durable. The log and the faults lie in `scratch`, which is made.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve(strict=True)
        self.log = scratch / "log"
        self.log.write_bytes(b"".join(packed(record) for record in _found(self.folder)))
        self.faults = Faults(scratch / "faults")
        self.acks = Acks(self.log)
        self._faults_path = scratch / "faults"

    def environment(self) -> dict[str, str]:
        """This process's environment, and what puts the shim into those that are started with it."""
        return {
            **os.environ,
            "LD_PRELOAD": " ".join(filter(None, [str(shim()), os.environ.get("LD_PRELOAD")])),
            FOLDER: str(self.folder),
            LOG: str(self.log.resolve()),
            FAULTS: str(self._faults_path.resolve()),
        }

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = RUN_SECONDS_MAX
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the repository's root."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment(), **(env or {})},
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=False,
        )

    def recording(self) -> Recording:
        """What has been recorded, once the processes have ended."""
        return Recording(self.log)

    def close(self) -> None:
        self.acks.close()
        self.faults.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def record(
    command: Sequence[str], folder: Path, *, scratch: Path, timeout_s: float = RUN_SECONDS_MAX, slow_s: float = 0
) -> Recording:
    """Run a command that must succeed, each sync taking `slow_s`, and hand back what it did beneath `folder`."""
    with Rig(folder, scratch) as rig:
        rig.faults.slow_syncs(slow_s)
        done = rig.run(command, timeout_s=timeout_s)
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return rig.recording()


@functools.cache
def shim() -> Path:
    """The library, built once a session."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError(NO_COMPILER)
    library = Path(_build_folder().name, "shim.so")
    flags = "-shared -fPIC -O2 -std=gnu11 -pthread -Wall -Wextra -Werror".split()
    done = subprocess.run([compiler, *flags, "-o", library, SHIM], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{SHIM} does not compile:\n{done.stderr}")
    return library


@functools.cache
def _build_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="powerloss-shim-")


def _found(root: Path) -> list[Record]:
    """Records that make an empty disk into what the folder holds, all of it durable."""
    records: list[Record] = []
    inode = root.stat().st_ino

    def add(folder: Path, folder_inode: int) -> None:
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path} is neither a file nor a folder, and nothing else is modelled")
            if path.name.endswith("-shm"):
                continue
            status = path.stat()
            records.append(Record(Kind.CREATE, status.st_ino, status.st_mode, folder_inode, os.fsencode(path.name)))
            if path.is_dir():
                add(path, status.st_ino)
            elif data := path.read_bytes():
                records.append(Record(Kind.WRITE, status.st_ino, 0, 0, data))
            records.extend(_synced(status.st_ino))
        records.extend(_synced(folder_inode))

    add(root, inode)
    return [*records, Record(Kind.START, inode, 0, 0, b"")]


def _synced(inode: int) -> list[Record]:
    token = 1 << 63 | inode  # Never one of the shim's, which count from zero.
    return [Record(Kind.SYNC_BEGIN, inode, 0, token, b""), Record(Kind.SYNC_END, inode, 0, token, b"")]
