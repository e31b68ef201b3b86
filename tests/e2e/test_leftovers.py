"""Only what is surely ours is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.adapters.runtimes import leftovers


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process
        process.kill()


def test_a_noted_process_is_known_again(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    leftovers.note(tmp_path, stranger.pid)

    assert leftovers.noted(tmp_path) == leftovers.identify(stranger.pid)


@pytest.mark.parametrize("change", [{"started": "1"}, {"boot": "another"}])
def test_a_process_that_only_has_the_same_pid_is_left_alone(
    tmp_path: Path, stranger: subprocess.Popen[bytes], change: dict[str, str]
) -> None:
    identity = leftovers.identify(stranger.pid)
    assert identity is not None
    other = replace(identity, **change)
    (tmp_path / leftovers.NOTE).write_text(f"{other.pid} {other.started} {other.boot}\n")

    assert leftovers.noted(tmp_path) is None
    leftovers.kill(other)
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.1)


def test_a_dead_process_and_a_broken_note_are_nobody(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    assert leftovers.noted(tmp_path) is None
    leftovers.note(tmp_path, stranger.pid)
    stranger.kill()
    stranger.wait()
    assert leftovers.noted(tmp_path) is None
    (tmp_path / leftovers.NOTE).write_text("12")
    assert leftovers.noted(tmp_path) is None


def test_the_mark_finds_a_process_that_left_its_session(tmp_path: Path) -> None:
    def start(room: Path) -> subprocess.Popen[bytes]:
        env = {**os.environ, leftovers.MARK: str(room)}
        return subprocess.Popen(["sleep", "100"], env=env, start_new_session=True)

    ours, neighbour = start(tmp_path / "rooms/w1"), start(tmp_path / "rooms2/w1")
    try:
        assert [identity.pid for identity in leftovers.marked(tmp_path / "rooms")] == [ours.pid]
        assert leftovers.kill_marked(tmp_path / "rooms")
        assert ours.wait() == -9
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()
