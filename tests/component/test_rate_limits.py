"""Limits of what a key may ask of an endpoint: who is refused, with what words, and when it may come again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runyard.config import Settings
from runyard.domain.limits import Limit
from tests.builders import ENDPOINT
from tests.edge_kit import Call, Client, Yard

pytestmark = pytest.mark.looptime

UNTIL_EVERY_CONNECTION_HAS_READ_S = 0.001


@asynccontextmanager
async def limited(**changes: Limit) -> AsyncIterator[Yard]:
    """A yard with the preset, but for these."""
    yard = Yard(settings=Settings(limits="runpod", **changes))
    await yard.open()
    try:
        yield yard
    finally:
        await yard.close()


def status(client: Client) -> Call:
    return client.get("/status/none")


def status_sync(client: Client) -> Call:
    return client.get("/status-sync/none")


def stream(client: Client) -> Call:
    return client.get("/stream/none")


def cancel(client: Client) -> Call:
    return client.post("/cancel/none")


def run(client: Client) -> Call:
    return client.post("/run", {"input": 1})


def runsync(client: Client) -> Call:
    return client.post("/runsync", {"input": 1})


def purge(client: Client) -> Call:
    return client.post("/purge-queue")


@pytest.mark.parametrize(
    ("ask", "operation", "requests", "answer"),
    [
        pytest.param(run, "run", 1000, 200, marks=pytest.mark.row("F036", "F041")),
        pytest.param(status, "status", 2000, 404, marks=pytest.mark.row("F041")),
        pytest.param(status_sync, "status", 2000, 404, marks=pytest.mark.row("F037")),
        pytest.param(stream, "stream", 2000, 404, marks=pytest.mark.row("F037")),
        pytest.param(cancel, "cancel", 100, 404, marks=pytest.mark.row("F038")),
        pytest.param(purge, "purge-queue", 2, 200, marks=pytest.mark.row("F038")),
    ],
)
async def test_the_preset_takes_so_many_requests_in_10_seconds(
    ask: Callable[[Client], Call], operation: str, requests: int, answer: int, looptime: object
) -> None:
    async with limited() as yard:
        taken = [(await ask(yard.client)).status for _ in range(requests)]
        refused = await ask(yard.client)

        assert [answer] * requests == taken
        assert (429, "10") == (refused.status, refused.headers["retry-after"])
        assert ["error"] == list(refused.json())
        assert f"{requests} {operation} requests in 10 s" in refused.json()["error"]
        assert f"limits_{operation.replace('-', '_')}" in refused.json()["error"]
        await asyncio.sleep(9.9)
        assert 429 == (await ask(yard.client)).status
        await asyncio.sleep(0.1)
        assert answer == (await ask(yard.client)).status


@pytest.mark.row("F037")
async def test_the_preset_takes_so_many_synchronous_requests_in_10_seconds() -> None:
    async with limited() as yard:
        worker = yard.worker()
        for _ in range(2000):
            asked = runsync(yard.client)
            job_id = (await worker.take()).json()["id"]
            await worker.done(job_id, {"output": 1})
            assert 200 == (await asked).status

        assert 429 == (await runsync(yard.client)).status


@pytest.mark.row("F037")
async def test_the_preset_takes_so_many_openai_requests_in_10_seconds() -> None:
    async with limited() as yard:
        taken = [(await yard.client.post("/openai/v1/embeddings", b"none")).status for _ in range(2000)]

        assert [400] * 2000 == taken
        assert 429 == (await yard.client.post("/openai/v1/embeddings", b"none")).status


@pytest.mark.row("F037")
@pytest.mark.parametrize(
    ("limit", "path", "body"),
    [("limits_stream", "/stream/{}", None), ("limits_openai", "/openai/v1/chat/completions", {"stream": True})],
)
async def test_an_answer_in_pieces_is_open_until_its_client_leaves(limit: str, path: str, body: Any) -> None:
    async with limited(**{limit: Limit(requests=100, in_flight=1)}) as yard:
        path, headers = path.format(await yard.client.run()), {"Accept": "text/event-stream"}
        method = "GET" if body is None else "POST"

        def ask() -> Call:
            return yard.client.call(method, path, body, headers)

        first = ask()
        await asyncio.sleep(20)  # By now it has begun.
        assert 429 == (await ask()).status
        first.leave()
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        assert 200 == (await ask()).status


async def test_who_comes_back_when_told_is_taken(looptime: object) -> None:
    async with limited(limits_run=Limit(requests=3)) as yard:
        for _ in range(3):
            assert 200 == (await run(yard.client)).status
            await asyncio.sleep(2.25)
        refused = await run(yard.client)

        assert (429, "4") == (refused.status, refused.headers["retry-after"])
        await asyncio.sleep(4)
        assert 200 == (await run(yard.client)).status


@pytest.mark.row("F037")
@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("/runsync", "limits_runsync"),
        ("/stream/{job}", "limits_stream"),
        ("/status-sync/{job}", "limits_status"),
        ("/openai/v1/chat/completions", "limits_openai"),
    ],
)
async def test_the_preset_takes_so_many_requests_at_once(path: str, setting: str) -> None:
    async with limited() as yard:
        path = path.format(job=await yard.client.run())
        held = [yard.client.post(path, {"input": 1}) for _ in range(400)]
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        refused = await yard.client.post(path, {"input": 1})

        assert (429, "1") == (refused.status, refused.headers["retry-after"])
        assert all(word in refused.body for word in (b"400", b"open", b"in_flight", setting.encode()))
        held.pop().leave()
        held.pop().leave()
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)
        held += [yard.client.post(path, {"input": 1}) for _ in range(2)]
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)
        assert not any(call.answered for call in held)
        assert 429 == (await yard.client.post(path, {"input": 1})).status
        for call in held:
            call.leave()


async def test_a_client_that_leaves_takes_what_it_has_pipelined_with_it() -> None:
    async with limited(limits_runsync=Limit(requests=100, in_flight=3)) as yard:
        head = f"POST /v2/{ENDPOINT}/runsync HTTP/1.1\r\nHost: x\r\nAuthorization: {yard.key}\r\nContent-Length: 12\r\n\r\n"
        line = yard.client.line()
        line.send((head + '{"input": 1}').encode() * 3)
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)
        assert 429 == (await runsync(yard.client)).status

        line.leave()

        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)
        assert {200} == {(await yard.client.post("/runsync?wait=1000", {"input": 1})).status for _ in range(3)}


@pytest.mark.row("F036")
@pytest.mark.parametrize(("operation", "in_flight"), [("run", 200), ("cancel", 20)])
async def test_bodies_that_are_still_on_their_way_count_as_open(operation: str, in_flight: int) -> None:
    path = {"run": "/run", "cancel": "/cancel/none"}[operation]
    async with limited() as yard:
        head = (
            f"POST /v2/{ENDPOINT}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {yard.key}\r\nContent-Length: 12\r\n\r\n"
        )
        lines = [yard.client.line() for _ in range(in_flight + 1)]
        for line in lines:
            line.send(head.encode())
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        assert [line is lines[-1] for line in lines] == [line.answered for line in lines]
        assert 429 == (await lines[-1].reply()).status
        lines[0].send(b'{"input": 1}')
        assert 429 != (await lines[0].reply()).status
        assert 429 != (await yard.client.post(path, {"input": 1})).status


async def test_a_request_refused_for_another_reason_is_no_longer_open() -> None:
    async with limited(limits_run=Limit(requests=100, in_flight=1)) as yard:
        too_large, too_long = {"Content-Length": str(1 << 30)}, b"x" * 1000
        for _ in range(3):
            assert 413 == (await yard.client.post("/run", headers=too_large)).status
            assert 400 == (await yard.client.post("/run", too_long)).status
            assert 405 == (await yard.client.get("/run")).status

        assert 200 == (await run(yard.client)).status


async def test_a_waiting_request_that_is_answered_is_no_longer_open(looptime: object) -> None:
    async with limited(limits_runsync=Limit(requests=100, in_flight=1)) as yard:
        for _ in range(3):
            assert 200 == (await yard.client.post("/runsync?wait=1000", {"input": 1})).status

        assert looptime == 3


@pytest.mark.row("F037")
async def test_openai_requests_of_all_paths_count_together_and_are_refused_in_their_words() -> None:
    async with limited(limits_openai=Limit(requests=2)) as yard:
        held = [yard.client.get("/openai/v1/models"), yard.client.post("/openai/v1/chat/completions", {"model": "m"})]
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        refused = await yard.client.get("/openai/v1/models")

        error = refused.json()["error"]
        assert (429, "10") == (refused.status, refused.headers["retry-after"])
        assert "x-should-retry" not in refused.headers
        assert ("rate_limit_error", "too_many_requests") == (error["type"], error["code"])
        assert all(word in error["message"] for word in ("2 openai requests in 10 s", "limits_openai"))
        for call in held:
            call.leave()


@pytest.mark.row("F037")
async def test_a_streamed_answer_is_open_until_its_end() -> None:
    async with limited(limits_openai=Limit(requests=100, in_flight=1)) as yard:
        chat, worker = ("/openai/v1/chat/completions", {"model": "m", "stream": True}), yard.worker()
        answer = yard.client.post(*chat)
        job_id = (await worker.take()).json()["id"]
        await worker.stream(job_id, "data: {}\n\n")
        assert b"HTTP/1.1 200" in answer.line.received or answer.answered

        assert 429 == (await yard.client.post(*chat)).status
        await worker.done(job_id, {"output": []})
        again = yard.client.post(*chat)
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)
        assert not again.answered
        again.leave()
        answer.leave()


async def test_requests_on_one_connection_count_each() -> None:
    async with limited(limits_status=Limit(requests=3)) as yard:
        line = yard.client.line()
        for _ in range(5):  # The third and later ones are known heads, which take a shorter way.
            line.send(
                f"GET /v2/{ENDPOINT}/status/none HTTP/1.1\r\nHost: x\r\nAuthorization: {yard.key}\r\n\r\n".encode()
            )
            await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        assert [404, 404, 404, 429] == [(await line.reply()).status for _ in range(4)]


async def test_each_key_endpoint_and_operation_has_limits_of_its_own() -> None:
    one = Limit(requests=1)
    async with limited(limits_run=one, limits_status=one) as yard:
        _, other_key = await yard.access.create("other")
        other_caller = Client(yard, yard.user_port, f"/v2/{ENDPOINT}", other_key)
        callers = (yard.client, yard.client_of("endpoint-2"), other_caller)

        first = [(await run(caller)).status for caller in callers]
        second = [(await run(caller)).status for caller in callers]

        assert ([200] * 3, [429] * 3) == (first, second)
        assert [404, 429, 429] == [(await ask(yard.client)).status for ask in (status, status_sync, status)]


async def test_a_key_in_another_form_is_the_same_key() -> None:
    async with limited(limits_run=Limit(requests=1)) as yard:
        bare = Client(yard, yard.user_port, f"/v2/{ENDPOINT}", yard.key)

        assert [200, 429] == [(await run(caller)).status for caller in (yard.client, bare)]


async def test_strangers_and_unknown_endpoints_are_told_so_and_use_up_nothing() -> None:
    async with limited(limits_run=Limit(requests=1)) as yard:
        stranger = Client(yard, yard.user_port, f"/v2/{ENDPOINT}", "rpa_wrong")

        assert [401, 401] == [(await run(stranger)).status for _ in range(2)]
        assert [404, 404] == [(await run(yard.client_of("nowhere"))).status for _ in range(2)]
        assert [200, 429] == [(await run(yard.client)).status for _ in range(2)]


@pytest.mark.row("F039", "F040")
@pytest.mark.parametrize(("workers", "requests"), [(0, 1000), (5, 1000), (6, 1200)])
async def test_the_limit_grows_with_the_workers_that_run(workers: int, requests: int) -> None:
    async with limited() as yard:
        polls = [yard.worker(f"worker-{n}").take(busy=n % 2 == 0) for n in range(workers)]
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        taken = [(await run(yard.client)).status for _ in range(requests)]
        refused = await run(yard.client)

        assert [200] * requests == taken
        assert 429 == refused.status
        assert f"{requests} run requests in 10 s" in refused.json()["error"]
        assert "200 for each" in refused.json()["error"]
        for poll in polls:
            poll.leave()


@pytest.mark.row("F040")
async def test_what_each_worker_adds_can_be_set() -> None:
    async with limited(limits_cancel=Limit(requests=1, per_worker=3)) as yard:
        poll = yard.worker().take()
        await asyncio.sleep(UNTIL_EVERY_CONNECTION_HAS_READ_S)

        assert [404, 404, 404, 429] == [(await cancel(yard.client)).status for _ in range(4)]
        poll.leave()


async def test_what_has_no_limit_has_none() -> None:
    async with limited(limits_run=Limit(requests=0)) as yard:
        job_id = await yard.client.run()
        paths = ("/health", "/requests", f"/requests/{job_id}")

        assert {200} == {(await yard.client.get(path)).status for path in paths for _ in range(500)}
        assert {409} == {(await yard.client.post(f"/retry/{job_id}")).status for _ in range(500)}
        assert {200} == {(await run(yard.client)).status for _ in range(1500)}


async def test_workers_are_not_limited() -> None:
    async with limited() as yard:
        worker = yard.worker()

        assert {200} == {(await worker.ping()).status for _ in range(2500)}


async def test_limits_are_off_unless_set() -> None:
    yard = Yard()
    await yard.open()

    assert {200} == {(await run(yard.client)).status for _ in range(1100)}
    assert {200} == {(await purge(yard.client)).status for _ in range(3)}
    await yard.close()


async def test_refusals_are_counted_by_operation() -> None:
    async with limited(limits_run=Limit(requests=1)) as yard:
        for _ in range(3):
            await run(yard.client)

        answers = yard.job_routes.paths.answers()
        assert {("run", 200): 1, ("run", 429): 2} == dict(answers)
