"""What a process did to its disk, and the disks that power failures would have left of it."""

from __future__ import annotations

import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.powerloss.disk import Disk, Survival
from tests.powerloss.log import Kind, Record, read_log

RAM_DISK = Path("/dev/shm")
PROBLEMS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One power failure: just before `record`, with what was acknowledged by then and the folder that is left."""

    record: int
    records: int
    acks: tuple[bytes, ...]
    folder: Path  # Gone when the next cut is asked for; the check may write to it.
    way: str
    chance: str  # `Recording.cut(record, chance, ...)` makes it again.

    def __str__(self) -> str:
        return (
            f"cut({self.record}, {self.chance!r}) of {self.records} records, of what was unsynced survived: {self.way}"
        )


@dataclass(slots=True)
class Findings:
    """What a check said about many cuts."""

    log: Path
    seed: int
    cuts: int = 0
    acks: int = 0
    problems: list[str] = field(default_factory=list[str])
    cuts_with_problems: int = 0

    def __str__(self) -> str:
        counts = (
            f"{self.cuts} cuts, seed {self.seed}, {self.acks} acknowledgements looked for: "
            f"problems after {self.cuts_with_problems} cuts; log: {self.log}"
        )
        return "\n  ".join([counts, *self.problems[:PROBLEMS_SHOWN_MAX]])


class Recording:
    """A finished log. It holds all that is needed: the same log and seed give the same folders."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.records = list(read_log(log))
        starts = [number for number, record in enumerate(self.records) if record.kind == Kind.START]
        if len(starts) != 1:
            raise ValueError(f"{log} is no recording: it has {len(starts)} beginnings")
        self._start = starts[0]
        self._acks = [number for number, record in enumerate(self.records) if record.kind == Kind.ACK]
        self._tokens = [self.records[number].payload for number in self._acks]

    def done(self) -> list[Record]:
        """What the process did, without what was there before."""
        return self.records[self._start + 1 :]

    def acks_before(self, record: int) -> tuple[bytes, ...]:
        return tuple(self._tokens[: bisect_left(self._acks, record)])

    def cuts(self, count: int, seed: int, *, strict: bool = False, scratch: Path | None = None) -> Iterator[Cut]:
        """`count` power failures in the order of time, half of them anywhere and half right after an acknowledgement.

        Folders are built beneath `scratch`, by default in memory, and removed one by one.
        """
        chance = Random(seed)
        picks = sorted((self._pick(chance, number), number) for number in range(count))
        disk, told = self._empty(strict=strict), 0
        with tempfile.TemporaryDirectory(prefix="powerloss-", dir=scratch or _ram_disk()) as place:
            for record, number in picks:
                for new in range(told, record):
                    disk.tell(new, self.records[new])
                told = record
                yield self._build(disk, record, f"{seed}/{number}", Path(place, "disk"))
                shutil.rmtree(Path(place, "disk"), ignore_errors=True)

    def cut(self, record: int, chance: str, folder: Path, *, strict: bool = False, way: str | None = None) -> Cut:
        """One power failure again, in a folder that is made and stays."""
        disk = self._empty(strict=strict)
        for number in range(record):
            disk.tell(number, self.records[number])
        return self._build(disk, record, chance, folder, way)

    def examine(self, check: Callable[[Cut], Iterable[str]], *, cuts: int, seed: int, strict: bool = False) -> Findings:
        """Let `check` name the problems of each cut's folder."""
        findings = Findings(self.log, seed)
        for cut in self.cuts(cuts, seed, strict=strict):
            problems = list(check(cut))
            findings.cuts += 1
            findings.acks += len(cut.acks)
            findings.cuts_with_problems += bool(problems)
            findings.problems += [f"{cut}: {problem}" for problem in problems]
        return findings

    def _pick(self, chance: Random, number: int) -> int:
        if self._acks and number % 2:
            return chance.choice(self._acks) + 1
        return chance.randint(self._start + 1, len(self.records))

    def _empty(self, *, strict: bool) -> Disk:
        return Disk(self.records[self._start].inode, strict=strict)

    def _build(self, disk: Disk, record: int, chance: str, folder: Path, way: str | None = None) -> Cut:
        survival = Survival(Random(chance), way)
        disk.rebuild(folder, survival)
        return Cut(
            record=record,
            records=len(self.records),
            acks=self.acks_before(record),
            folder=folder,
            way=survival.way,
            chance=chance,
        )


def _ram_disk() -> Path | None:
    return RAM_DISK if RAM_DISK.is_dir() else None
