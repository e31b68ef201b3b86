"""What every `WorkerPorts` promises."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import pytest
import pytest_asyncio

from runyard.adapters.keeper import KeeperLine
from runyard.adapters.worker_ports import HeldWorkerPorts, OwnSockets
from runyard.domain.errors import BadRequest
from runyard.keeper.lines import Line, Message
from runyard.keeper.ports import Ports, hatch

HOSTS = ("127.0.0.21", "127.0.0.22")
GREETING = b"hello"


class Site(NamedTuple):
    ports: HeldWorkerPorts
    worker_port: int

    async def serve(self) -> None:
        """The platform opens."""
        await self.ports.serve_with(serve)


async def serve(sock: socket.socket) -> Callable[[], None]:
    return (await asyncio.get_running_loop().create_server(Greeter, sock=sock)).close


class Greeter(asyncio.Protocol):
    """Answers whatever it hears."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(GREETING)


@pytest_asyncio.fixture(params=["own", "kept"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as worker_port:
        number = worker_port.getsockname()[1]
        if request.param == "own":
            async with closing(Site(HeldWorkerPorts(OwnSockets(), [1, number]), number)) as site:
                yield site
            return
        with keeper() as ends:
            line = await KeeperLine.on(*ends)
            async with closing(Site(HeldWorkerPorts(line, [1, number]), number)) as site:
                yield site
        await line.lost.wait()


@asynccontextmanager
async def closing(site: Site) -> AsyncIterator[Site]:
    yield site
    for host in list(site.ports.hosts):
        await site.ports.close(host)


@contextmanager
def keeper() -> Iterator[tuple[int, int]]:
    """What a keeper does for ports, in a thread. Gives the server's ends of line and hatch."""
    selector, ports, over = selectors.DefaultSelector(), Ports(), threading.Event()
    (ours, theirs), (our_hatch, their_hatch) = socket.socketpair(), hatch()

    def hear(message: Message) -> None:
        match message.pop("do"):
            case "open-port":
                ports.open(line, our_hatch, **message)
            case "close-port":
                ports.close(line, **message)
            case order:
                raise AssertionError(order)

    def run() -> None:
        while not over.is_set():
            for key, events in selector.select(0.05):
                key.data(events)

    line = Line(selector, ours, hear)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield theirs.detach(), their_hatch.detach()
    finally:
        over.set()
        thread.join()
        for end in (line, our_hatch, selector):
            end.close()


class Client:
    """A connection to an URL without a path."""

    def __init__(self, url: str) -> None:
        self.host, _, number = url.removeprefix("http://").rpartition(":")
        self.number = int(number)

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.number)

    async def is_served(self) -> bool:
        self.writer.write(b"anything")
        async with asyncio.timeout(5):
            answer = await self.reader.readexactly(len(GREETING))
        self.writer.close()
        return answer == GREETING


async def a_client(url: str) -> Client:
    client = Client(url)
    await client.connect()
    return client


async def test_who_comes_to_an_open_port_is_served(site: Site) -> None:
    await site.serve()
    client = await a_client(await site.ports.open(HOSTS[0]))

    assert await client.is_served()


async def test_who_comes_before_the_platform_opens_waits_for_it(site: Site) -> None:
    client = await a_client(await site.ports.open(HOSTS[0]))
    answer = asyncio.create_task(client.is_served())
    await asyncio.sleep(0.01)
    assert not answer.done()
    await site.serve()

    assert await answer


async def test_an_address_has_the_worker_ports_number_if_that_is_free_else_another(site: Site) -> None:
    urls = [f"http://{host}:{site.worker_port}" for host in HOSTS]
    with socket.create_server((HOSTS[1], site.worker_port)):
        opened = [await site.ports.open(host) for host in HOSTS]

    assert urls[0] == opened[0]
    assert urls[1] != opened[1]
    assert opened[1].startswith(f"http://{HOSTS[1]}:")


async def test_a_port_that_somebody_remembers_is_tried_first(site: Site) -> None:
    with socket.create_server((HOSTS[0], 0)) as free:
        number = free.getsockname()[1]

    assert f"http://{HOSTS[0]}:{number}" == await site.ports.open(HOSTS[0], port=number)
    assert number in site.ports


async def test_repeated_calls_return_the_same(site: Site) -> None:
    first = await site.ports.open(HOSTS[0], port=0)
    again = await asyncio.gather(*(site.ports.open(HOSTS[0], port=port) for port in (0, 1, 2)))

    assert [first] * 3 == again
    assert [HOSTS[0]] == list(site.ports.hosts)


async def test_an_ipv6_address_has_a_port_too_however_it_is_written(site: Site) -> None:
    if isinstance(site.ports._sockets, OwnSockets):
        pytest.skip("only the keeper listens at addresses that are not here")
    url = await site.ports.open("2001:DB8::0:77")

    assert f"http://[2001:db8::77]:{site.worker_port}" == url
    assert ["2001:db8::77"] == list(site.ports.hosts)


async def test_a_closed_port_refuses(site: Site) -> None:
    await site.serve()
    urls = [await site.ports.open(host) for host in HOSTS]
    await site.ports.close(HOSTS[0])
    with pytest.raises(ConnectionRefusedError):
        await a_client(urls[0])

    assert [HOSTS[1]] == list(site.ports.hosts)
    assert await (await a_client(urls[1])).is_served()


async def test_a_closed_port_may_be_closed_again_and_opened_again(site: Site) -> None:
    await site.serve()
    await site.ports.open(HOSTS[0])
    for _ in range(2):
        await site.ports.close(HOSTS[0])
    client = await a_client(await site.ports.open(HOSTS[0]))

    assert await client.is_served()


async def test_who_hears_of_the_addresses_hears_of_changes(site: Site) -> None:
    hosts = site.ports.hosts
    await site.ports.open(HOSTS[0])
    assert HOSTS[0] in hosts
    await site.ports.close(HOSTS[0])

    assert HOSTS[0] not in hosts


@pytest.mark.parametrize("host", ["gateway", "", "10.0.0.0/8", "0.0.0.0", "::", "127.0.0.1", "224.0.0.1"])
async def test_what_is_no_address_of_one_network_is_refused(site: Site, host: str) -> None:
    with pytest.raises(BadRequest, match="gateway"):
        await site.ports.open(host)


async def test_an_open_that_is_given_up_spoils_nothing(site: Site) -> None:
    opening = asyncio.create_task(site.ports.open(HOSTS[0]))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    urls = [await site.ports.open(host) for host in HOSTS]

    assert [f"http://{host}:{site.worker_port}" for host in HOSTS] == urls
