import subprocess
from pathlib import Path

import pytest

from runyard.adapters.runtimes.isolation import Sandbox, command, exports, table

DATA = Path("/var/lib/runyard")
ROOM = DATA / "workers/w1"
STAGE = ROOM / "stage"


def mounts(
    *closed: str,
    data: Path = DATA,
    reads: tuple[str, ...] = (),
    volume: Path | None = None,
) -> list[tuple[str, ...]]:
    """Source, target and options of each mount, in order."""
    room = data / "workers/w1"
    box = Sandbox(
        uid=200_001, tmp=room / "tmp", hides=(data,), reads=tuple(map(Path, reads)), writes=(room,), volume=volume
    )
    lines = table(box, room / "stage", lambda folder: str(folder) not in closed).splitlines()
    return [(source, target, options) for source, target, _, options, _, _ in (line.split() for line in lines)]


def targets(rows: list[tuple[str, ...]], options: str = "rbind") -> list[str]:
    return [target for _, target, has in rows if has == options]


def place_of(rows: list[tuple[str, ...]], cover: str) -> str:
    """Where in the stage the new view of a folder is built."""
    return next(source for source, target, options in rows if target == cover and options == "rbind")


def test_the_data_and_what_is_shared_with_strangers_is_covered() -> None:
    assert sorted(targets(mounts())) == ["/dev/shm", "/tmp", str(DATA), "/var/tmp"]


def test_the_room_shows_through_at_its_own_path_and_can_be_written() -> None:
    rows = mounts()

    assert (str(ROOM), f"{place_of(rows, str(DATA))}/workers/w1", "bind,X-mount.mkdir") in rows


def test_an_interpreter_in_a_closed_folder_shows_through_read_only() -> None:
    rows = mounts("/root", reads=("/root/.pyenv/versions/3.11", "/usr"))

    python = "/root/.pyenv/versions/3.11"
    assert (python, f"{place_of(rows, '/root')}/.pyenv/versions/3.11", "bind,ro,X-mount.mkdir") in rows
    assert not [row for row in rows if row[0] == "/usr"], "what anyone can reach is left as it is"


def test_of_nested_closed_folders_the_topmost_is_covered() -> None:
    rows = mounts("/root", "/root/.runyard", "/root/.runyard/workers", data=Path("/root/.runyard"))

    assert sorted(targets(rows)) == ["/dev/shm", "/root", "/tmp", "/var/tmp"]
    room = "/root/.runyard/workers/w1"
    assert (room, f"{place_of(rows, '/root')}/.runyard/workers/w1", "bind,X-mount.mkdir") in rows


@pytest.mark.parametrize("data", [Path("/tmp/data"), Path("/var/lib/runyard"), Path("/dev/shm/data")])
def test_nothing_is_laid_over_the_stage_while_it_is_needed(data: Path) -> None:
    laid = targets(mounts(data=data))

    assert [target for target in laid if (data / "workers/w1/stage").is_relative_to(target)] == laid[-1:]


def test_temporary_files_go_to_the_room() -> None:
    rows = mounts()

    assert (str(ROOM / "tmp"), place_of(rows, "/tmp"), "bind,X-mount.mkdir") in rows
    assert (str(ROOM / "tmp"), place_of(rows, "/var/tmp"), "bind,X-mount.mkdir") in rows


def test_the_volume_is_bound_while_it_can_still_be_seen() -> None:
    rows = mounts(volume=DATA / "volume")

    bound = rows.index((str(DATA / "volume"), "/runpod-volume", "bind"))
    assert bound < min(number for number, row in enumerate(rows) if row[2] == "rbind")


def test_the_view_of_processes_comes_last() -> None:
    assert mounts()[-1][1] == "/proc"


def test_paths_with_spaces_stay_one_field() -> None:
    rows = mounts(data=Path("/srv/my data\\1"))

    assert (r"/srv/my\040data\1341/workers/w1/stage", "mode=755") in {(row[1], row[2]) for row in rows}


def test_the_command_says_who_may_run_what() -> None:
    argv = command(
        ["python", "handler.py"],
        uid=200_001,
        mounts=ROOM / "mounts",
        cwd=ROOM / "work",
        env=ROOM / "environ",
        processes=10,
        files=20,
    )

    assert argv[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert argv[-8:] == [
        *(f"{ROOM}/mounts", "200001", "10", "20", f"{ROOM}/work", f"{ROOM}/environ"),
        *("python", "handler.py"),
    ]


def test_exports_keep_any_value(tmp_path: Path) -> None:
    env = {"A": "it's", "B": 'two\nlines $HOME `id` \\ "', "C": "", "D": "\udcff é"}
    script = tmp_path / "environ"
    script.write_bytes(exports(env).encode("utf-8", "surrogateescape"))

    seen = subprocess.run(["sh", "-c", f". {script}; env -0"], env={}, capture_output=True, check=True).stdout
    pairs = dict(pair.split("=", 1) for pair in seen.decode("utf-8", "surrogateescape").split("\0") if pair)
    assert env.items() <= pairs.items()
