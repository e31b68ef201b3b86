"""What the shim records is what happened, and the faults it plays are felt."""

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.powerloss.log import Kind, Unmodelled
from tests.powerloss.recording import Cut
from tests.powerloss.rig import ROOT, Rig, record

pytestmark = pytest.mark.usefixtures("shim")


def writer(name: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.powerloss.writers", name, str(folder), *options]


def python(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", program, *map(str, arguments)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def rig(folder: Path, tmp_path: Path) -> Iterator[Rig]:
    with Rig(folder, tmp_path / "rig") as rig:
        yield rig


def contents(folder: Path) -> dict[str, bytes | int]:
    """Files with their bytes, all with their modes. SQLite's maps are no files of ours."""
    found: dict[str, bytes | int] = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.endswith("-shm"):
            name = str(path.relative_to(folder))
            found[f"{name} mode"] = path.stat().st_mode
            if path.is_file():
                found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_disk_that_lost_nothing_is_the_disk_that_the_process_left(folder: Path, tmp_path: Path, seed: int) -> None:
    (folder / "found").mkdir()
    (folder / "found" / "before").write_bytes(b"there before")
    recording = record(writer("anything", folder, str(seed), "200"), folder, scratch=tmp_path / "rig")

    recording.cut(len(recording.records), "0", tmp_path / "rebuilt", way="everything")

    assert contents(folder) == contents(tmp_path / "rebuilt")


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
def test_a_database_that_lost_nothing_is_the_same_file(folder: Path, tmp_path: Path, journal: str) -> None:
    program = """if True:
        import os, sqlite3, sys
        rows = sqlite3.connect(sys.argv[1], isolation_level=None)
        rows.execute(f"pragma journal_mode = {sys.argv[2]}")
        rows.execute("create table rows (text)")
        for number in range(50):
            rows.execute("insert into rows values (?)", (str(number) * 1000,))
        rows.execute("delete from rows where rowid % 3")
        rows.execute("vacuum")
        rows.execute("insert into rows values ('last')")
        os._exit(0)  # Leaves the -wal behind.
    """
    recording = record(python(program, folder / "rows.db", journal), folder, scratch=tmp_path / "rig")

    recording.cut(len(recording.records), "0", tmp_path / "rebuilt", way="everything")

    assert contents(folder) == contents(tmp_path / "rebuilt")


def test_threads_have_their_writes_and_acknowledgements_in_order(folder: Path, tmp_path: Path) -> None:
    recording = record(writer("threads", folder, "100"), folder, scratch=tmp_path / "rig", slow_s=0.001)

    names: dict[int, str] = {}
    synced = Counter[str]()
    for item in recording.done():
        if item.kind == Kind.CREATE:
            names[item.inode] = item.payload.decode()
        elif item.kind == Kind.SYNC_END:
            synced[names[item.inode]] += 1
        elif item.kind == Kind.ACK:
            name, number = item.payload.decode().split(":")
            assert int(number) + 1 == synced[name]
    assert {"0": 100, "1": 100, "2": 100, "3": 100} == synced


def test_threads_lose_nothing_that_they_synced(folder: Path, tmp_path: Path) -> None:
    recording = record(writer("threads", folder, "50"), folder, scratch=tmp_path / "rig", slow_s=0.001)

    def missing(cut_folder: Path, acks: tuple[bytes, ...]) -> list[str]:
        told = [ack.decode().split(":") for ack in acks]
        return [f"{n}:{line}" for n, line in told if f"{line:0>6}\n" not in (cut_folder / n).read_text()]

    findings = recording.examine(lambda cut: missing(cut.folder, cut.acks), cuts=200, seed=1)

    assert not findings.problems, str(findings)


def test_what_lies_outside_the_folder_is_not_recorded(folder: Path, tmp_path: Path) -> None:
    beside = tmp_path / "data-beside"  # Starts like the folder.
    beside.mkdir()

    recording = record(writer("files", beside, "sync", "3"), folder, scratch=tmp_path / "rig")

    assert [Kind.ACK] * 3 == [item.kind for item in recording.done()]


@pytest.mark.parametrize(
    ("what", "program"),
    [
        ("shared mapping", "import mmap; mmap.mmap(os.open(path, os.O_RDWR | os.O_CREAT), 1)"),
        ("O_SYNC", "os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC)"),
        ("from outside", "open('/tmp/powerloss-moved', 'w').close(); os.rename('/tmp/powerloss-moved', path)"),
    ],
)
def test_what_is_not_modelled_is_refused(folder: Path, tmp_path: Path, what: str, program: str) -> None:
    (folder / "file").write_bytes(b"x")
    if what == "from outside":
        program = program.replace("/tmp/", f"{tmp_path}/")

    with pytest.raises(Unmodelled, match=what):
        record(
            python(f"import os, sys; path = sys.argv[1]; {program}", folder / "file"), folder, scratch=tmp_path / "r"
        )


def test_a_copy_inside_the_kernel_is_recorded_as_writes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"copied" * 1000)
    copy = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"

    recording = record(python(copy, tmp_path / "from", folder / "to"), folder, scratch=tmp_path / "rig")

    assert b"copied" * 1000 == b"".join(item.payload for item in recording.records if item.kind == Kind.WRITE)


class Stubborn:
    """A process that commits one row each time it is asked, whatever comes of it."""

    def __init__(self, rig: Rig) -> None:
        self.process = subprocess.Popen(
            writer("sqlite_stubborn", rig.folder),
            cwd=ROOT,
            env=rig.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._killer = threading.Timer(60, self.process.kill)
        self._killer.start()

    def commit(self) -> str:
        """How long it took in seconds, or SQLite's name for the error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self._killer.cancel()
        self.process.communicate(timeout=30)


@pytest.fixture
def stubborn(rig: Rig) -> Iterator[Stubborn]:
    process = Stubborn(rig)
    assert float(process.commit()) < 30
    yield process
    process.close()


def rows(database: Path) -> set[int]:
    connection = sqlite3.connect(database)
    try:
        assert [("ok",)] == connection.execute("pragma integrity_check").fetchall()
        return {number for (number,) in connection.execute("select number from rows")}
    finally:
        connection.close()


def rows_lost(cut: Cut) -> list[str]:
    lost = {int(ack) for ack in cut.acks} - rows(cut.folder / "rows.db") if cut.acks else set[int]()
    return [f"lost {sorted(lost)}"] if lost else []


def test_a_full_disk_refuses_commits_until_there_is_room(rig: Rig, stubborn: Stubborn) -> None:
    rig.faults.fill_disk(after_bytes=10_000)
    outcomes = [stubborn.commit() for _ in range(10)]
    rig.faults.lift()
    after = stubborn.commit()

    assert {"SQLITE_FULL"} == {outcome for outcome in outcomes if outcome.startswith("SQLITE")}
    assert "SQLITE_FULL" != outcomes[0]
    assert "SQLITE_FULL" == outcomes[-1]
    assert rig.faults.failed_writes > 0
    assert float(after) < 30


def test_syncs_fail_as_often_as_asked(rig: Rig, stubborn: Stubborn) -> None:
    rig.faults.fail_syncs(after=2, times=3)
    outcomes = [stubborn.commit().startswith("SQLITE_IOERR") for _ in range(8)]

    assert [False, False, True, True, True, False, False, False] == outcomes
    assert 3 == rig.faults.failed_syncs


def test_syncs_fail_until_the_fault_is_lifted(rig: Rig, stubborn: Stubborn) -> None:
    rig.faults.fail_syncs()
    outcomes = {stubborn.commit() for _ in range(3)}
    rig.faults.lift()
    after = stubborn.commit()

    assert {"SQLITE_IOERR_FSYNC"} == outcomes
    assert float(after) < 30


def test_slow_syncs_are_felt(rig: Rig, stubborn: Stubborn) -> None:
    syncs = rig.faults.syncs
    rig.faults.slow_syncs(0.1)
    slow = float(stubborn.commit())

    assert 0.1 <= slow
    assert syncs < rig.faults.syncs


def test_a_database_that_met_faults_keeps_what_it_acknowledged(rig: Rig, stubborn: Stubborn) -> None:
    for _ in range(3):
        rig.faults.fail_syncs(after=5, times=1)
        for _ in range(10):
            stubborn.commit()
        rig.faults.fill_disk(after_bytes=20_000)
        for _ in range(10):
            stubborn.commit()
        rig.faults.lift()
    stubborn.close()

    findings = rig.recording().examine(rows_lost, cuts=200, seed=2)

    assert not findings.problems, str(findings)


def test_a_recording_may_end_with_a_kill(rig: Rig, stubborn: Stubborn) -> None:
    for _ in range(10):
        stubborn.commit()
    stubborn.process.kill()
    stubborn.process.wait(30)

    findings = rig.recording().examine(rows_lost, cuts=50, seed=2)

    assert not findings.problems, str(findings)
    assert 11 == len(rig.recording().acks_before(sys.maxsize))


def test_a_sync_that_is_retried_until_it_succeeds_proves_nothing(rig: Rig) -> None:
    rig.faults.fail_syncs(times=1)

    done = rig.run(writer("retries", rig.folder))
    findings = rig.recording().examine(
        lambda cut: [] if not cut.acks or any((cut.folder / "0").read_bytes()) else ["lost"], cuts=50, seed=3
    )

    assert f"{errno.EIO}\n" == done.stdout
    assert findings.problems


def test_the_client_that_drives_the_process_can_acknowledge(rig: Rig) -> None:
    rig.run(writer("files", rig.folder, "sync", "1"))
    rig.acks.tell("seen")

    recording = rig.recording()

    assert ((b"0",), (b"0", b"seen")) == tuple(recording.acks_before(len(recording.records) - back) for back in (1, 0))


def test_descriptors_that_programs_count_on_stay_free(rig: Rig) -> None:
    program = "import os; print(os.open(os.devnull, os.O_RDONLY))"

    assert subprocess.check_output(python(program), text=True) == rig.run(python(program)).stdout
    assert os.path.exists(rig.log)  # noqa: PTH110
