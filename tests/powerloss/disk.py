"""A disk as it may look after the power has gone: what was synced is there, all else may be.

1. *A file's bytes* go to disk in sectors of 512, each whole, in any order, at any time after the write. So a sector
   that was written since the file's last sync holds what it held at some moment since then, each sector its own moment.
   What a write does not cover it does not change, in the same sector neither.
2. *A file's size* is of some moment since the last sync, too. Where no bytes have arrived within it there are zeros.
   Of what a truncation takes away, a disk that has the new size has nothing, and one that has the old size has nothing
   that came later.
3. *A sync* makes durable what was done to that file before it began, once it has succeeded. One that failed promises
   nothing, ever: the kernel takes pages it could not write for clean, so the next sync succeeds without them. Only
   sectors that are written again count again.
4. *Names* are their directory's. A create, link, rename or unlink is durable once that directory was synced; of a rename
   between two, the new one. Until then it has happened or not, each by itself, a rename as a whole.
5. *A new file's name* becomes durable with the file's own sync as well, as ext4, xfs and btrfs have it, and so do the
   names of the new directories above it. `strict` takes that away.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.powerloss.log import Kind, Record, Unmodelled

SECTOR_BYTES = 512
_ZEROS = bytes(SECTOR_BYTES)


class Survival:
    """What the power failure spared, decided by chance: one way for a whole disk, so that cuts are unlike each other."""

    WAYS = ("nothing", "everything", "writes", "sectors")
    WEIGHTS = (3, 1, 4, 4)

    def __init__(self, chance: Random, way: str | None = None) -> None:
        self.way = way or chance.choices(self.WAYS, self.WEIGHTS)[0]
        self._chance = chance.random
        self._share = chance.choice([0.1, 0.5, 0.9])
        self._kept: dict[int, bool] = {}

    def keeps(self, record: int) -> bool:
        """Whether an operation on names, or a write as a whole, has happened."""
        match self.way:
            case "nothing":
                return False
            case "everything":
                return True
            case _:
                if record not in self._kept:
                    self._kept[record] = self._chance() < self._share
                return self._kept[record]

    def moment(self, moments: int) -> int:
        """Which of a file's sizes it has: 0 for the one that was synced, and so on to `moments`."""
        if self.way == "nothing":
            return 0
        if self.way == "everything" or self._chance() < 0.5:
            return moments
        return int(self._chance() * (moments + 1))

    def version(self, versions: list[Version], first: int, end: int) -> int:
        """Which of `versions[first:end]` a sector has; `first` may be -1, for the one that was synced."""
        match self.way:
            case "nothing":
                return first
            case "everything":
                return end - 1
            case "writes":
                kept = (number for number in range(end - 1, first, -1) if self.keeps(versions[number].record))
                return next(kept, first)
            case _:
                return first + int(self._chance() * (end - first))


class Version(NamedTuple):
    """What a sector held from this record on."""

    record: int
    data: bytes
    shrank: bool = False
    failed: bool = False  # A sync of it has failed.


class Size(NamedTuple):
    record: int
    size: int


@dataclass(eq=False, slots=True)
class Node:
    """A file or a directory: what is durable, and beside it what has been done since."""

    mode: int
    names: dict[str, Node] = field(default_factory=dict["str", "Node"])
    size: int = 0
    image: bytearray = field(default_factory=bytearray)  # Whole sectors, maybe more or fewer than the size asks for.
    sectors: dict[int, list[Version]] = field(default_factory=dict[int, list[Version]])
    sizes: list[Size] = field(default_factory=list[Size])
    shrank: bool = False

    def write(self, record: int, offset: int, data: bytes) -> None:
        end = offset + len(data)
        for sector in range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1):
            start = sector * SECTOR_BYTES - offset
            if start >= 0 and start + SECTOR_BYTES <= len(data):
                whole = data[start : start + SECTOR_BYTES]
            else:
                before = self._newest(sector)
                part = data[max(start, 0) : start + SECTOR_BYTES]
                whole = before[: max(-start, 0)] + part + before[max(-start, 0) + len(part) :]
            self.sectors.setdefault(sector, []).append(Version(record, whole))
        if end > self._newest_size():
            self.sizes.append(Size(record, end))

    def truncate(self, record: int, size: int) -> None:
        before = self._newest_size()
        if size < before:
            self.shrank = True
            for sector in range(size // SECTOR_BYTES, (before - 1) // SECTOR_BYTES + 1):
                kept = self._newest(sector)[: max(size - sector * SECTOR_BYTES, 0)]
                version = Version(record, kept + _ZEROS[len(kept) :], shrank=True)
                self.sectors.setdefault(sector, []).append(version)
        if size != before:
            self.sizes.append(Size(record, size))

    def sync(self, begun: int) -> None:
        """What was done before record `begun` is durable, but for what an earlier sync has failed to write."""
        for sector, versions in list(self.sectors.items()):
            covered = sum(version.record < begun for version in versions)
            if not covered or versions[covered - 1].failed:
                continue
            self._store(sector, versions[covered - 1].data)
            if covered == len(versions):
                del self.sectors[sector]
            else:
                del versions[:covered]
        for size in self.sizes:
            if size.record < begun:
                self.size = size.size
        self.sizes = [size for size in self.sizes if size.record >= begun]
        self.shrank = any(version.shrank for versions in self.sectors.values() for version in versions)

    def fail(self, begun: int) -> None:
        """A sync of what was done before record `begun` has failed."""
        for versions in self.sectors.values():
            versions[:] = [v._replace(failed=True) if v.record < begun else v for v in versions]

    def survivor(self, survival: Survival) -> bytearray:
        """The bytes that are on disk."""
        moment = survival.moment(len(self.sizes))
        last, size = self.sizes[moment - 1] if moment else (-1, self.size)
        data = self.image[:size]
        data.extend(bytes(size - len(data)))
        for sector, versions in self.sectors.items():
            first, end = self._allowed(versions, last) if self.shrank else (-1, len(versions))
            chosen = survival.version(versions, first, end)
            start = sector * SECTOR_BYTES
            if chosen >= 0 and start < size:
                data[start : start + SECTOR_BYTES] = versions[chosen].data
        del data[size:]
        return data

    @staticmethod
    def _allowed(versions: list[Version], last: int) -> tuple[int, int]:
        """From the newest truncation that the size has seen to the oldest that it has not."""
        first, end = -1, len(versions)
        for number, version in enumerate(versions):
            if version.shrank and version.record <= last:
                first = number
            elif version.shrank:
                return first, number
        return first, end

    def _newest(self, sector: int) -> bytes:
        if versions := self.sectors.get(sector):
            return versions[-1].data
        stored = bytes(self.image[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
        return stored or _ZEROS

    def _newest_size(self) -> int:
        return self.sizes[-1].size if self.sizes else self.size

    def _store(self, sector: int, data: bytes) -> None:
        start = sector * SECTOR_BYTES
        if len(self.image) < start:
            self.image.extend(bytes(start - len(self.image)))
        self.image[start : start + SECTOR_BYTES] = data


@dataclass(slots=True)
class Naming:
    """One operation on names. A rename has an old place, an unlink has no new one."""

    record: int
    kind: int
    node: Node
    folder: Node  # Whose sync makes it durable.
    name: str
    old_folder: Node | None = None
    old_name: str = ""
    durable: bool = False

    def perform(self, names: Callable[[Node], dict[str, Node]]) -> None:
        if self.old_folder is not None and names(self.old_folder).get(self.old_name) is self.node:
            del names(self.old_folder)[self.old_name]
        if self.kind != Kind.UNLINK:
            names(self.folder)[self.name] = self.node
        elif names(self.folder).get(self.name) is self.node:
            del names(self.folder)[self.name]


class Disk:
    """The disk under one folder, as records are told to it; `rebuild` is a power failure after the last one told."""

    def __init__(self, root: int, *, strict: bool = False) -> None:
        self._root = Node(stat.S_IFDIR | 0o700)
        self._nodes = {root: self._root}
        self._strict = strict
        self._namings: list[Naming] = []
        self._syncs: dict[int, int] = {}

    def tell(self, number: int, record: Record) -> None:
        """Record `number` has happened. Numbers rise."""
        match record.kind:
            case Kind.WRITE:
                self._node(record).write(number, record.offset, record.payload)
            case Kind.TRUNCATE:
                self._node(record).truncate(number, record.offset)
            case Kind.SYNC_BEGIN:
                self._syncs[record.other] = number
            case Kind.SYNC_END:
                self._end_sync(self._node(record), self._syncs.pop(record.other), failed=bool(record.offset))
            case Kind.CREATE:
                self._nodes[record.inode] = Node(record.offset)  # The number may have been another file's before.
                self._name(number, record)
            case Kind.UNLINK if record.other not in self._nodes:
                pass  # A process without the shim had made the directory. So nobody holds what was in it to be safe.
            case Kind.LINK | Kind.UNLINK | Kind.RENAME:
                self._name(number, record)
            case _:
                pass

    def rebuild(self, folder: Path, survival: Survival) -> None:
        """Put what survived into `folder`, which is made."""
        names: dict[Node, dict[str, Node]] = {}

        def names_of(node: Node) -> dict[str, Node]:
            return names.setdefault(node, dict(node.names))

        for naming in self._namings:
            if naming.durable or survival.keeps(naming.record):
                naming.perform(names_of)
        self._build(self._root, folder, names, survival)

    def _build(self, node: Node, path: Path, names: dict[Node, dict[str, Node]], survival: Survival) -> None:
        if not stat.S_ISDIR(node.mode):
            path.write_bytes(node.survivor(survival))
        else:
            path.mkdir()
            for name, child in names.get(node, node.names).items():
                self._build(child, path / name, names, survival)
        path.chmod(stat.S_IMODE(node.mode))

    def _name(self, number: int, record: Record) -> None:
        folder, name = self._folder(record.other), record.payload.decode(errors="surrogateescape")
        naming = Naming(number, record.kind, self._node(record), folder, name)
        if record.kind == Kind.RENAME:
            naming.old_folder, naming.folder = folder, self._folder(record.offset)
            naming.old_name, _, naming.name = name.partition("/")
        self._namings.append(naming)

    def _end_sync(self, node: Node, begun: int, *, failed: bool) -> None:
        if failed:
            node.fail(begun)
            return
        node.sync(begun)
        for naming in self._namings:
            if naming.folder is node and naming.record < begun:
                naming.durable = True
        if not self._strict:
            self._keep_creation(node, begun)
        while self._namings and self._namings[0].durable:
            self._namings.pop(0).perform(lambda folder: folder.names)

    def _keep_creation(self, node: Node, begun: int) -> None:
        for naming in self._namings:
            if naming.node is node and naming.kind == Kind.CREATE and naming.record < begun:
                naming.durable = True
                self._keep_creation(naming.folder, begun)

    def _node(self, record: Record) -> Node:
        # A file without a name, as for temporary data, is first heard of by a write.
        return self._nodes.setdefault(record.inode, Node(stat.S_IFREG | 0o600))

    def _folder(self, inode: int) -> Node:
        if inode not in self._nodes:
            raise Unmodelled("a file was named in a directory that a process without the shim has made")
        return self._nodes[inode]
