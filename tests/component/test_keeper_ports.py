"""Ports that the keeper opens for its servers, without a platform: what is held, passed on, bounded and refused."""

from __future__ import annotations

import selectors
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runyard.adapters.keeper import Hatch
from runyard.keeper import ports as module
from runyard.keeper.lines import Line, Message
from runyard.keeper.ports import Ports, hatch

HOST = "127.0.0.11"


class Holder:
    """The keeper's ports, and a server that asks for them."""

    def __init__(self) -> None:
        self.ports = Ports()
        self.ours, theirs = hatch()
        self.hatch = Hatch(theirs.detach())
        self.selector = selectors.DefaultSelector()
        pair = socket.socketpair()
        self.heard: list[Message] = []
        self.lines = Line(self.selector, pair[0], lambda _: None), Line(self.selector, pair[1], self.heard.append)

    def open(self, host: str, *numbers: int) -> Message:
        self.ports.open(self.lines[0], self.ours, 1, host, list(numbers))
        return self._hear()

    def shut(self, host: str) -> Message:
        self.ports.close(self.lines[0], 1, host)
        return self._hear()

    def _hear(self) -> Message:
        while not self.heard:
            for key, events in self.selector.select(5):
                key.data(events)
        return self.heard.pop()

    def taken(self, host: str) -> int:
        """The number of the port that came through the hatch."""
        [(_, port)] = self.hatch.take([host]).items()
        port.sock.close()
        return port.number

    def close(self) -> None:
        for host in list(self.ports._open):
            self.shut(host)
        for end in (*self.lines, self.ours, self.hatch, self.selector):
            end.close()


@pytest.fixture
def holder() -> Iterator[Holder]:
    holder = Holder()
    yield holder
    holder.close()


def connects(host: str, number: int) -> bool:
    try:
        socket.create_connection((host, number), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_port_is_open_while_no_server_has_it(holder: Holder) -> None:
    assert {"say": "port", "n": 1, "host": HOST} == holder.open(HOST, 0)
    number = holder.taken(HOST)
    assert connects(HOST, number)
    assert holder.shut(HOST)["closed"]

    assert not connects(HOST, number)
    assert holder.shut(HOST)["closed"], "again"


def test_what_is_open_is_given_as_it_is(holder: Holder) -> None:
    holder.open(HOST, 0)
    number = holder.taken(HOST)
    holder.open(HOST, 1, 2, 3)

    assert number == holder.taken(HOST)


def test_the_first_that_is_free_is_opened(holder: Holder) -> None:
    with socket.create_server((HOST, 0)) as taken, socket.create_server((HOST, 0)) as free:
        numbers = [one.getsockname()[1] for one in (taken, free)]
        free.close()
        holder.open(HOST, *numbers, 0)

    assert numbers[1] == holder.taken(HOST)


def test_why_a_port_cannot_be_had_is_said_and_nothing_is_passed(holder: Holder) -> None:
    with socket.create_server((HOST, 0)) as taken:
        answer = holder.open(HOST, taken.getsockname()[1])

    assert "Address already in use" == answer["error"]
    with pytest.raises(BlockingIOError):
        holder.taken(HOST)


def test_a_port_whose_server_ended_before_it_was_passed_stays_open_for_the_next(holder: Holder) -> None:
    holder.hatch.close()
    assert "error" in holder.open(HOST, 0)
    ours, theirs = hatch()
    holder.hatch = Hatch(theirs.detach())

    assert [HOST] == holder.ports.pass_on(ours)
    assert connects(HOST, holder.taken(HOST))
    ours.close()


def test_a_server_that_has_ended_gets_none(holder: Holder) -> None:
    holder.open(HOST, 0)
    holder.hatch.close()

    assert [] == holder.ports.pass_on(holder.ours)


def test_a_new_server_gets_all_of_many(holder: Holder) -> None:
    hosts = [f"127.0.{1 + n // 200}.{1 + n % 200}" for n in range(2 * module.FDS_PER_MESSAGE + 1)]
    numbers: dict[str, int] = {}
    for host in hosts:
        holder.open(host, 0)
        numbers[host] = holder.taken(host)
    assert hosts == holder.ports.pass_on(holder.ours)
    passed = holder.hatch.take(hosts)
    for port in passed.values():
        port.sock.close()

    assert numbers == {host: port.number for host, port in passed.items()}


def test_there_is_a_most(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTS_MAX", 2)
    for host in ("127.0.0.11", "127.0.0.12"):
        holder.open(host, 0)
        holder.taken(host)

    assert "2 ports are open already, which is the most" == holder.open("127.0.0.13", 0)["error"]
    assert "error" not in holder.open("127.0.0.12", 0), "nothing is opened"
    holder.taken("127.0.0.12")
    holder.shut("127.0.0.11")
    assert "error" not in holder.open("127.0.0.13", 0)


def test_an_address_may_come_later(holder: Holder) -> None:
    """Those of documentation are nobody's."""
    for host in ("192.0.2.77", "2001:db8::77"):
        assert "error" not in holder.open(host, 0)
        assert 0 < holder.taken(host)


COMES_AND_GOES = """
import socket, subprocess
from runyard.keeper.ground import bound

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def connects():
    try:
        socket.create_connection(("10.213.7.1", port), timeout=2).close()
    except OSError:
        return False
    return True

sock = bound("10.213.7.1", 0, foreseen=True)
port = sock.getsockname()[1]
ip("link", "set", "lo", "up")
for _ in range(2):
    assert not connects()
    ip("link", "add", "yard", "type", "bridge")
    ip("addr", "add", "10.213.7.1/24", "dev", "yard")
    ip("link", "set", "yard", "up")
    assert connects()
    ip("link", "del", "yard")
print("listens")
"""


def test_a_port_is_open_again_when_its_address_has_gone_and_come_back() -> None:
    """As with a bridge whose engine restarts. In a network of its own, which not everybody may make."""
    if not all(map(shutil.which, ("unshare", "ip"))):
        pytest.skip("needs unshare and ip, of util-linux and iproute2")
    alone = ["unshare", "--net", "--map-root-user", "sh", "-c"]
    possible = subprocess.run([*alone, "ip link add yard type bridge"], capture_output=True, check=False)
    if possible.returncode != 0:
        pytest.skip(f"cannot make a network here: {possible.stderr.decode()}")
    code = [*alone, 'exec "$0" -c "$1"', sys.executable, COMES_AND_GOES]
    done = subprocess.run(code, capture_output=True, text=True, timeout=60, check=False)

    assert "listens\n" == done.stdout, done.stderr
