"""The rig tells programs that keep what they acknowledged from those that do not."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.powerloss.recording import Cut, Findings, Recording
from tests.powerloss.rig import record

pytestmark = pytest.mark.usefixtures("shim")

CUTS = 200
SEED = 20


def recorded(tmp_path: Path, writer: str, *options: str) -> Recording:
    folder = tmp_path / "data"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.powerloss.writers", writer, str(folder), *options]
    return record(command, folder, scratch=tmp_path / "rig")


def rows_lost(cut: Cut) -> Iterator[str]:
    connection = sqlite3.connect(cut.folder / "rows.db")
    try:
        verdict = connection.execute("pragma integrity_check").fetchone()[0]
        if verdict != "ok":
            yield f"broken: {verdict}"
        tables = connection.execute("select count(*) from sqlite_schema").fetchone()[0]
        there: set[int] = {row[0] for row in connection.execute("select number from rows")} if tables else set()
    except sqlite3.DatabaseError as error:
        yield f"broken: {error}"
        return
    finally:
        connection.close()
    if lost := sorted({int(ack) for ack in cut.acks} - there):
        yield f"{len(lost)} of {len(cut.acks)} rows lost, the first {lost[0]}"


def files_lost(cut: Cut) -> Iterator[str]:
    for ack in cut.acks:
        path = cut.folder / ack.decode()
        if not path.exists() or path.read_bytes() != ack * 1000:
            yield f"lost {path.name}"


def replacement_lost(cut: Cut) -> Iterator[str]:
    if cut.acks:
        current = cut.folder / "current"
        data = current.read_bytes() if current.exists() else b""
        number = data[: len(data) // 1000]
        if not number.isdigit() or data != number * 1000 or int(number) < int(cut.acks[-1]):
            yield f"{cut.acks[-1].decode()} was acknowledged, there is {number!r}"


def broken(findings: Findings) -> list[str]:
    return [problem for problem in findings.problems if "broken" in problem]


@pytest.mark.parametrize(
    ("journal", "synchronous"), [("wal", "full"), ("wal", "extra"), ("delete", "extra"), ("truncate", "full")]
)
def test_sqlite_keeps_every_row_where_it_promises_to(tmp_path: Path, journal: str, synchronous: str) -> None:
    recording = recorded(tmp_path, "sqlite", journal, synchronous, "150")

    findings = recording.examine(rows_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)
    assert findings.acks > CUTS


# In the mode DELETE a commit is an unlink, and only EXTRA syncs the directory after it.
@pytest.mark.parametrize(("journal", "synchronous"), [("wal", "normal"), ("delete", "full")])
def test_sqlite_loses_rows_but_breaks_nothing_where_it_promises_that(
    tmp_path: Path, journal: str, synchronous: str
) -> None:
    recording = recorded(tmp_path, "sqlite", journal, synchronous, "150")

    findings = recording.examine(rows_lost, cuts=CUTS, seed=SEED)

    assert findings.problems
    assert [] == broken(findings)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite_breaks_databases_where_it_promises_nothing(tmp_path: Path, journal: str) -> None:
    recording = recorded(tmp_path, "sqlite", journal, "off", "150")

    findings = recording.examine(rows_lost, cuts=CUTS, seed=SEED)

    assert len(broken(findings)) not in {0, len(findings.problems)}


def test_sqlite_syncs_the_directory_of_a_new_database(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "sqlite", "wal", "full", "20")

    findings = recording.examine(rows_lost, cuts=CUTS, seed=SEED, strict=True)

    assert not findings.problems, str(findings)


def test_files_that_are_synced_are_kept(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "files", "sync", "30").examine(files_lost, cuts=CUTS, seed=SEED)

    assert not findings.problems, str(findings)


def test_files_that_are_not_synced_are_lost(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "files", "none", "30").examine(files_lost, cuts=CUTS, seed=SEED)

    assert findings.cuts_with_problems > CUTS / 2


def test_files_whose_directory_is_not_synced_are_lost_on_a_strict_disk(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "files", "sync", "30").examine(files_lost, cuts=CUTS, seed=SEED, strict=True)

    assert findings.problems


def test_a_replaced_file_is_kept_when_all_is_synced(tmp_path: Path) -> None:
    findings = recorded(tmp_path, "renames", "all", "30").examine(replacement_lost, cuts=CUTS, seed=SEED, strict=True)

    assert not findings.problems, str(findings)


@pytest.mark.parametrize("what", ["file", "nothing"])
def test_a_rename_that_is_not_synced_is_lost(tmp_path: Path, what: str) -> None:
    findings = recorded(tmp_path, "renames", what, "30").examine(replacement_lost, cuts=CUTS, seed=SEED)

    assert findings.problems


def test_a_failing_case_can_be_made_again(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "sqlite", "wal", "normal", "50")
    findings = recording.examine(rows_lost, cuts=CUTS, seed=SEED)

    again = Recording(recording.log).examine(rows_lost, cuts=CUTS, seed=SEED)
    for number, cut in enumerate(recording.cuts(CUTS, SEED)):
        once_more = recording.cut(cut.record, cut.chance, tmp_path / f"{number}")
        for path in cut.folder.iterdir():
            assert path.read_bytes() == (once_more.folder / path.name).read_bytes()

    assert (findings.problems, findings.acks) == (again.problems, again.acks)
    assert f"seed {SEED}" in str(findings)
