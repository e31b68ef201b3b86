"""One container's end, told by an Engine that does as old ones do. No Engine is asked: what it answers is written here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from runyard.adapters.docker.contained import Contained
from runyard.adapters.docker.engine import Engine
from runyard.adapters.docker.notes import Note
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit

pytestmark = pytest.mark.looptime
LINES = 3_000
BEGAN, APART_NS = 1_795_884_783, 100_000
"""When the first line was written, in Unix seconds, and how far apart they are."""


def entry(number: int, stream: int = 1) -> bytes:
    """One line of a log, as the Engine frames it."""
    text = f"2026-11-28T16:53:03.{number * APART_NS:09}Z line {number}\n".encode()
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4) + text


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class OldEngine:
    """Has one container that has ended, and `LINES` lines of its log; following ends after `followed` of them."""

    def __init__(self, followed: int, state: dict[str, Any]) -> None:
        self.followed = followed
        self.state = state
        self.reads: list[dict[str, str]] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path, query = request.url.path, dict(request.url.params)
        if path == "/version":
            return httpx2.Response(200, json={"ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        if path.endswith("/json"):
            return httpx2.Response(200, json={"State": self.state, "Config": {}})
        assert path.endswith("/logs"), path
        self.reads.append(query)
        seconds, _, ns = query["since"].partition(".")
        first = max(0, ((int(seconds) - BEGAN) * 10**9 + int(ns or 0)) // APART_NS)
        last = self.followed if query["follow"] == "true" else LINES
        numbers = range(first, last)
        if "tail" in query:
            numbers = numbers[-int(query["tail"]) :]
        return httpx2.Response(200, content=pieces(b"".join(map(entry, numbers))))


async def see_out(answer: Callable[[httpx2.Request], httpx2.Response]) -> tuple[Exit, list[str]]:
    engine = Engine("unix:///nowhere")
    engine._http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://engine")
    up, said = asyncio.Event(), list[str]()
    up.set()
    contained = Contained(engine, up, WorkerId("w1"), Note(endpoint_id=EndpointId("e1")), said.append)
    contained.started = True
    contained.died()
    exit = await contained.see_out()
    await engine.close()
    return exit, said


@pytest.mark.parametrize("followed", [0, 10, LINES - 10, LINES])
async def test_the_last_of_a_log_is_read_though_following_ends_early(followed: int) -> None:
    old = OldEngine(followed, {"Status": "exited", "ExitCode": 3})
    exit, said = await see_out(old.answer)

    assert Exit(3) == exit
    assert [f"line {number}" for number in range(LINES)] == said


async def test_a_log_that_was_heard_is_not_read_again_from_its_beginning() -> None:
    old = OldEngine(LINES, {"Status": "exited", "ExitCode": 0})
    await see_out(old.answer)

    assert ["1000"] == [read["tail"] for read in old.reads if read["follow"] == "false" and "tail" in read]
    assert all(read["since"] != "0" for read in old.reads if read["follow"] == "false")


async def test_a_container_that_is_gone_has_ended_with_whoever_removed_it() -> None:
    def nothing(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/version":
            return httpx2.Response(200, json={"ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        return httpx2.Response(404, json={"message": "No such container: runyard-w1"})

    assert (Exit(None, 9, with_platform=True), []) == await see_out(nothing)
