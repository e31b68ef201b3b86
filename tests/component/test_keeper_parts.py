"""Parts of the keeper that need no platform: spools, lines, workers, what it knows of processes."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.keeper import KeeperLine
from runyard.adapters.runtimes.kept import Kept
from runyard.keeper.ground import children, identity, reachable
from runyard.keeper.lines import Line, Message
from runyard.keeper.spool import SPOOL_BYTES_MAX, Spool
from runyard.keeper.workers import Workers


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(str(tmp_path / "output"))
    yield spool
    spool.close()


def content(spool: Spool, path: Path) -> bytes:
    return path.read_bytes()[spool.read - spool.base :]


def test_a_spool_holds_what_is_not_read(spool: Spool, tmp_path: Path) -> None:
    spool.write(b"one\ntwo\nthr")
    spool.done(8)
    spool.write(b"ee\n")

    assert b"three\n" == content(spool, tmp_path / "output")
    spool.done(14)
    assert (14, 0) == (spool.base, (tmp_path / "output").stat().st_size)


def test_a_spool_is_full_until_enough_of_it_is_read(spool: Spool, tmp_path: Path) -> None:
    piece = b"x" * 65536
    while not spool.full:
        spool.write(piece)
    spool.done(SPOOL_BYTES_MAX // 4)
    assert spool.full, "moving little would cost much"
    spool.done(SPOOL_BYTES_MAX // 2)

    assert not spool.full
    assert SPOOL_BYTES_MAX // 2 == (tmp_path / "output").stat().st_size
    assert {ord("x")} == set(content(spool, tmp_path / "output"))


class House:
    """A table of workers, and the server's end of a line to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.selector = selectors.DefaultSelector()
        self.workers = Workers(self.selector)
        self.sockets = socket.socketpair()
        self.heard: list[Message] = []
        self.ours = Line(self.selector, self.sockets[0], lambda _: None)
        self.theirs = Line(self.selector, self.sockets[1], self.heard.append)

    def spawn(self, id: str, *argv: str, complaints: bool = False) -> None:
        self.workers.spawn(
            self.ours,
            1,
            complaints,
            id=id,
            argv=list(argv),
            cwd=str(self.folder),
            env={},
            spool=str(self.folder / f"{id}.output"),
        )

    def hears(self, wanted: Callable[[Message], bool]) -> Message:
        until = time.monotonic() + 10
        while not (found := [message for message in self.heard if wanted(message)]):
            assert time.monotonic() < until, self.heard
            for key, events in self.selector.select(0.02):
                key.data(events)
            self.workers.bury()
        return found[0]

    def close(self) -> None:
        self.workers.end()
        self.ours.close()
        self.theirs.close()
        self.selector.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def says(what: str, **more: Any) -> Callable[[Message], bool]:
    return lambda message: {"say": what, **more}.items() <= message.items()


def test_output_is_told_once_and_again_when_it_was_read(house: House) -> None:
    house.spawn("w", sys.executable, "-Ic", "print('one')")
    first = house.hears(says("output", id="w"))
    house.hears(says("exited", id="w"))
    assert 1 == len([message for message in house.heard if message["say"] == "output"])
    house.workers.order(house.ours, "read", "w", upto=first["end"], seen=first["end"])
    last = house.hears(says("output", id="w", last=True))

    assert (0, 4) == (first["base"], first["end"])
    assert last["end"] == (house.folder / "w.output").stat().st_size + last["base"]


def test_an_end_that_nobody_heard_is_told_to_who_listens_next(house: House) -> None:
    house.spawn("w", "sh", "-c", "echo bye; exit 3")
    house.workers.deafen(house.ours)
    until = time.monotonic() + 10
    while house.workers.left() and time.monotonic() < until:
        house.workers.bury()
    assert ["w"] == house.workers.ids()
    house.workers.order(house.ours, "listen", "w")

    assert 3 == house.hears(says("exited", id="w"))["code"]
    assert 4 == house.hears(says("output", id="w"))["end"]
    house.workers.order(house.ours, "forget", "w")
    assert [] == house.workers.ids()


def test_complaints_come_with_the_answer(house: House) -> None:
    house.spawn("w", "sh", "-c", "echo cannot >&2; exec 2>&1; echo said", complaints=True)

    assert "cannot\n" == house.hears(says("spawned", n=1))["complaints"]


def test_what_cannot_start_is_answered_with_why(house: House) -> None:
    house.spawn("w", "/no/such/program")
    house.spawn("v", "sleep", "100")
    house.spawn("v", "sleep", "100")

    assert "No such file or directory" == house.hears(says("spawned"))["error"]
    house.hears(says("spawned", error="it runs already"))


def test_the_group_of_a_worker_ends_with_it(house: House) -> None:
    house.spawn("w", "sh", "-c", "sleep 97531 & exit 5")
    house.hears(says("exited", id="w", code=5))

    ps = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 97531" not in ps


def test_who_was_a_child_before_is_left_alone(tmp_path: Path) -> None:
    """As where a shell that has started something becomes the platform by `exec`."""
    with subprocess.Popen(["sleep", "100"]) as stranger:
        house = House(tmp_path)
        house.spawn("w", "sleep", "100")
        house.hears(says("spawned"))
        assert 1 == len(house.workers.left())
        house.close()

        assert set() == house.workers.left()
        assert stranger.poll() is None
        stranger.kill()


def test_a_long_message_arrives_whole(house: House) -> None:
    house.ours.say(say="much", text="é" * 1_000_000)

    assert 1_000_000 == len(house.hears(says("much"))["text"])


def test_a_process_is_known_by_more_than_its_pid() -> None:
    known = identity(os.getpid())
    with subprocess.Popen(["sleep", "100"]) as process:
        other = identity(process.pid)
        assert process.pid in children()
        process.send_signal(signal.SIGKILL)

    assert known == identity(os.getpid()) != other
    assert identity(process.pid) is None


def test_a_deep_folder_can_be_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    with reachable(deep) as folder, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/sock")

    assert (deep / "sock").exists()


async def test_a_worker_that_was_let_go_is_not_read_any_more(tmp_path: Path) -> None:
    line, said = KeeperLine(), list[str]()
    kept = Kept.adopt(line, "w", room=tmp_path, say=said.append)
    (tmp_path / "output").write_text("one\ntwo\n")
    line._hear({"say": "output", "id": "w", "base": 0, "read": 0, "end": 4, "last": False})
    kept.let_go()
    line._hear({"say": "output", "id": "w", "base": 0, "read": 4, "end": 8, "last": False})

    assert ["one"] == said, "the next server reads the rest"
