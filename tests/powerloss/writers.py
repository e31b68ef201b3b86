"""Small programs that write to a folder and acknowledge, well or badly: what the rig's own tests put under it."""

import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.powerloss.log import Acks


def sqlite(folder: Path, journal: str, synchronous: str, rows: str) -> None:
    """Commit rows one by one, checkpointing often, and acknowledge each."""
    acks = Acks()
    connection = sqlite3.connect(folder / "rows.db", isolation_level=None)
    for pragma in (f"journal_mode = {journal}", f"synchronous = {synchronous}", "wal_autocheckpoint = 16"):
        connection.execute(f"pragma {pragma}")
    connection.execute("create table if not exists rows (number integer primary key, text blob not null)")
    for number in range(int(rows)):
        connection.execute("insert into rows values (?, ?)", (number, os.urandom(number % 7 * 300)))
        acks.tell(number)
    connection.close()


def sqlite_stubborn(folder: Path) -> None:
    """Commit rows for as long as standard input is open, through all errors, and say how each went."""
    acks = Acks()
    connection = sqlite3.connect(folder / "rows.db", isolation_level=None)
    for pragma in ("journal_mode = wal", "synchronous = full", "wal_autocheckpoint = 16"):
        connection.execute(f"pragma {pragma}")
    connection.execute("create table rows (number integer primary key, text blob not null)")
    for number, _ in enumerate(sys.stdin):
        start = time.monotonic()
        try:
            connection.execute("insert into rows values (?, zeroblob(1000))", (number,))
        except sqlite3.OperationalError as error:
            say(error.sqlite_errorname)
        else:
            acks.tell(number)
            say(f"{time.monotonic() - start:.3f}")


def files(folder: Path, sync: str, count: str) -> None:
    """Write one new file after the other."""
    acks = Acks()
    for number in range(int(count)):
        with (folder / f"{number}").open("wb") as file:
            file.write(b"%d" % number * 1000)
            file.flush()
            if sync == "sync":
                os.fsync(file.fileno())
        acks.tell(number)


def retries(folder: Path) -> None:
    """Sync a file until it works, as if a sync that succeeds made up for one that failed."""
    with (folder / "0").open("wb") as file:
        file.write(b"0" * 1000)
        file.flush()
        while True:
            try:
                os.fsync(file.fileno())
            except OSError as error:
                say(str(error.errno))
            else:
                break
    Acks().tell(0)


def renames(folder: Path, what: str, count: str) -> None:
    """Replace one file again and again: written aside, synced, renamed, with the directory synced or not."""
    acks = Acks()
    for number in range(int(count)):
        with (folder / "new").open("wb") as file:
            file.write(b"%d" % number * 1000)
            file.flush()
            if what != "nothing":
                os.fsync(file.fileno())
        (folder / "new").replace(folder / "current")
        if what == "all":
            sync_folder(folder)
        acks.tell(number)


def threads(folder: Path, count: str) -> None:
    """Four threads that each append to a file of its own, sync it, and acknowledge."""
    acks = Acks()

    def append(name: int) -> None:
        file = os.open(folder / f"{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        for number in range(int(count)):
            os.write(file, b"%06d\n" % number)
            os.fsync(file)
            acks.tell(f"{name}:{number}")

    workers = [threading.Thread(target=append, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def anything(folder: Path, seed: str, count: str) -> None:
    """Whatever the shim models, at random, with two processes at it."""
    chance = random.Random(int(seed))
    child = os.fork()
    mine = folder / ("child" if child == 0 else "parent")
    mine.mkdir()
    for number in range(int(count)):
        change(chance, mine, number)
    if child:
        assert os.waitpid(child, 0)[1] == 0


def change(chance: random.Random, folder: Path, number: int) -> None:
    # The path that a name leads to must be free now and then, and taken as often.
    paths = [folder / name for name in "abc"]
    path, other = chance.sample(paths, 2)
    data, offset = chance.randbytes(chance.choice([1, 100, 512, 5000])), chance.choice([0, 7, 512, 3000])
    match number % 13:
        case 0:
            path.write_bytes(data)
        case 1:
            with path.open("ab", buffering=0) as file:
                file.write(data)
        case 2 if path.exists():
            path.replace(other)
        case 3:
            path.unlink(missing_ok=True)
        case 4:
            on(path, lambda file: os.pwrite(file, data, offset))
        case 5:
            on(path, lambda file: os.ftruncate(file, offset))
        case 6:
            on(path, lambda file: os.pwritev(file, [data, b"end"], offset))
        case 7:
            on(path, lambda file: os.posix_fallocate(file, offset, 1000))
        case 8:
            on(path, lambda file: (os.lseek(file, offset, os.SEEK_SET), os.writev(os.dup(file), [b"x", data])))
        case 9 if path.exists() and not other.exists():
            os.link(path, other)
            os.truncate(path, offset)
        case 10:
            (folder / "sub" / f"{number}").mkdir(parents=True)
            (folder / "sub" / f"{number}" / "file").touch(0o640)
        case 11 if path.exists():
            path.rename(folder / f"sub/{number - 1}/moved") if (folder / f"sub/{number - 1}").exists() else None
        case _:
            on(path, os.fsync)


def on(path: Path, work: Callable[[int], object]) -> None:
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        work(file)
    finally:
        os.close(file)


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    _, writer, where, *rest = sys.argv
    {name: value for name, value in vars().items() if callable(value)}[writer](Path(where), *rest)
