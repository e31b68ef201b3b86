"""Both faces of the client against a scripted platform."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from runyard.client import ApiError, AsyncEndpoint, ClientError, ConnectionLost, Endpoint, Unreachable
from runyard.client.aio import AsyncConnection
from runyard.client.settings import Address, address
from runyard.client.sync import Connection

TO = Address("http://yard.test", "rpa_key")
Reply = dict[str, Any] | Callable[[], httpx2.Response] | Exception


class Platform:
    """Gives one reply after another; the last one for ever. Remembers what it was asked."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return httpx2.Response(200, json=reply) if isinstance(reply, dict) else reply()

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.asked]


def answer(status: int, **content: Any) -> Callable[[], httpx2.Response]:
    """A response is read once, so each call gets its own."""
    return lambda: httpx2.Response(status, **content)


class SyncFace:
    """The sync face, called as the async one is."""

    def __init__(self, platform: Platform) -> None:
        self.pauses: list[float] = []
        connection = Connection(TO, httpx2.MockTransport(platform), pause=self.pauses.append)
        self.endpoint = Endpoint("one/two", connection=connection)

    def call(self, ask: Callable[[Any], Any]) -> Any:
        return ask(self.endpoint)

    def all(self, ask: Callable[[Any], Iterator[Any]]) -> list[Any]:
        return list(ask(self.endpoint))


class AsyncFace:
    def __init__(self, platform: Platform) -> None:
        self.pauses: list[float] = []

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        connection = AsyncConnection(TO, httpx2.MockTransport(platform), pause=pause)
        self.endpoint = AsyncEndpoint("one/two", connection=connection)

    def call(self, ask: Callable[[Any], Any]) -> Any:
        async def run() -> Any:
            asked = ask(self.endpoint)
            return await asked if hasattr(asked, "__await__") else asked

        return asyncio.run(run())

    def all(self, ask: Callable[[Any], Any]) -> list[Any]:
        async def run() -> list[Any]:
            return [item async for item in ask(self.endpoint)]

        return asyncio.run(run())


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> type[SyncFace]:
    return request.param


DONE = {
    "id": "j",
    "status": "COMPLETED",
    "output": {"n": [1, None]},
    "delayTime": 5,
    "executionTime": 7,
    "workerId": "w",
}
WAITING = {"id": "j", "status": "IN_QUEUE", "queueReason": {"code": "starting_worker", "message": "it starts"}}


def test_a_job_is_queued_with_its_options(face: type[SyncFace]) -> None:
    platform = Platform({"id": "j", "status": "IN_QUEUE"})
    job = face(platform).call(
        lambda e: e.run({"a": 1}, webhook="http://x", policy={"ttl": 10_000}, s3_config={"bucketName": "b"})
    )

    [request] = platform.asked
    assert job.id == "j"
    assert platform.calls == ["POST /v2/one%2Ftwo/run"]
    assert request.headers["authorization"] == "Bearer rpa_key"
    assert json.loads(request.content) == {
        "input": {"a": 1},
        "webhook": "http://x",
        "policy": {"ttl": 10_000},
        "s3Config": {"bucketName": "b"},
    }


def test_a_status_has_everything_the_platform_says(face: type[SyncFace]) -> None:
    done = face(Platform(DONE | {"newField": 1})).call(lambda e: e.job("j").status())
    waiting = face(Platform(WAITING)).call(lambda e: e.job("j").status())

    assert (done.ended, done.ok, done.output, done.delay_ms, done.execution_ms, done.worker_id) == (
        True,
        True,
        {"n": [1, None]},
        5,
        7,
        "w",
    )
    assert (waiting.ended, waiting.ok, waiting.queue_reason.code) == (False, False, "starting_worker")


def test_a_detail_has_the_attempts_that_gave_no_result(face: type[SyncFace]) -> None:
    attempt = {"run": 1, "workerId": "w", "takenAt": "then", "endedAt": "now", "cause": "worker_died", "counted": True}
    attempt |= {"reason": "it died", "exitCode": 3, "lastLines": ["boom"]}
    platform = Platform({"id": "j", "status": "FAILED", "input": {}, "quarantined": True, "attempts": [attempt]})
    found = face(platform).call(lambda e: e.job("j").detail())

    assert platform.calls == ["GET /v2/one%2Ftwo/requests/j"]
    assert (found.quarantined, [("w", 3, None, ["boom"])]) == (
        True,
        [(a.worker_id, a.exit_code, a.signal, a.last_lines) for a in found.attempts],
    )


def test_waiting_asks_again_until_the_job_has_ended(face: type[SyncFace]) -> None:
    platform = Platform(WAITING, WAITING, DONE)

    assert face(platform).call(lambda e: e.job("j").wait()).ok
    assert platform.calls == ["GET /v2/one%2Ftwo/status-sync/j?wait=300000"] * 3


def test_waiting_has_an_end(face: type[SyncFace]) -> None:
    platform = Platform(WAITING)

    assert not face(platform).call(lambda e: e.job("j").wait(0)).ended
    assert platform.calls == ["GET /v2/one%2Ftwo/status-sync/j?wait=0"]


def test_a_synchronous_run_goes_on_waiting_when_the_first_wait_is_over(face: type[SyncFace]) -> None:
    platform = Platform(WAITING, WAITING, DONE)
    status = face(platform).call(lambda e: e.run_sync("x"))

    assert status.ok
    assert platform.calls == [
        "POST /v2/one%2Ftwo/runsync?wait=300000",
        *["GET /v2/one%2Ftwo/status-sync/j?wait=300000"] * 2,
    ]
    assert face(Platform(DONE)).call(lambda e: e.run_sync("x", timeout_s=5)).ok
    assert not face(Platform(WAITING)).call(lambda e: e.run_sync("x", timeout_s=0)).ended


def test_a_stream_gives_each_chunk_once_to_the_end(face: type[SyncFace]) -> None:
    platform = Platform(
        {"status": "IN_PROGRESS", "stream": [{"output": 1}, {"output": {"a": 2}}]},
        {"status": "IN_PROGRESS", "stream": []},
        {"status": "COMPLETED", "stream": [{"output": None}]},
        {"status": "COMPLETED", "stream": []},
    )

    assert face(platform).all(lambda e: e.job("j").stream()) == [1, {"a": 2}, None]
    assert platform.calls == ["GET /v2/one%2Ftwo/stream/j"] * 4


def test_the_other_operations(face: type[SyncFace]) -> None:
    queued = {"id": "j", "status": "IN_QUEUE"}
    cases: list[tuple[Callable[[Any], Any], dict[str, Any], str]] = [
        (lambda e: e.job("j/k").cancel(), queued, "POST /v2/one%2Ftwo/cancel/j%2Fk"),
        (lambda e: e.job("j").retry(), queued, "POST /v2/one%2Ftwo/retry/j"),
        (lambda e: e.health(), {"jobs": {}, "workers": {}}, "GET /v2/one%2Ftwo/health"),
    ]
    for ask, reply, call in cases:
        platform = Platform(reply)
        answer = face(platform).call(ask)

        assert platform.calls == [call]
        assert answer == reply if isinstance(answer, dict) else answer.status == "IN_QUEUE"
    assert face(Platform({"removed": 2, "status": "completed"})).call(lambda e: e.purge()) == 2


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (answer(401, json={"error": "no API key"}), ApiError, "no API key"),
        (answer(422, json={"title": "x", "detail": "why", "errors": ["$: a", 7]}), ApiError, "why"),
        (answer(502, text="<html>"), ApiError, "HTTP 502, and not Runyard's"),
        (answer(500, json=[1]), ApiError, "HTTP 500, and not Runyard's"),
        (answer(404), ApiError, "HTTP 404"),
        (answer(418, json={}), ApiError, "HTTP 418"),
        (answer(200, text="<html>"), ClientError, "RUNYARD_URL"),
        (answer(200, json={"id": 7, "status": "x"}), ClientError, "RUNYARD_URL"),
        (httpx2.ConnectError("refused"), Unreachable, "runyard serve"),
        (httpx2.ReadTimeout("slow"), ClientError, "did not answer: slow"),
        (httpx2.RemoteProtocolError(""), ClientError, "did not answer: RemoteProtocolError"),
    ],
    ids=["401", "422", "proxy", "not-ours", "wordless", "empty", "html", "shape", "refused", "slow", "broken"],
)
def test_whatever_goes_wrong_is_said_in_one_error(
    face: type[SyncFace], reply: Reply, error: type[ClientError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        face(Platform(reply)).call(lambda e: e.job("j").status())
    if isinstance(raised.value, ApiError) and raised.value.status == 422:
        assert raised.value.problems == ("$: a", "7")


def test_the_address_comes_from_arguments_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNYARD_URL", "RUNYARD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    default = address()
    monkeypatch.setenv("RUNYARD_URL", "https://yard.example/")
    monkeypatch.setenv("RUNYARD_API_KEY", " rpa_x\n")

    assert (default, default.local, default.headers) == (Address("http://127.0.0.1:8000", None), True, {})
    assert (address(), address().local) == (Address("https://yard.example", "rpa_x"), False)
    assert address("http://[::1]:1", "rpa_y") == Address("http://[::1]:1", "rpa_y")
    for url in ("yard.example", "ftp://x", "http://", "http://[", "http://x:99999", "http://x:0"):
        with pytest.raises(ClientError, match="RUNYARD_URL"):
            address(url)
    for key in ("é", "a\nb"):
        with pytest.raises(ClientError, match="RUNYARD_API_KEY"):
            address(api_key=key)


# Names, and connections that are lost

LOST = (
    httpx2.ReadError("connection reset"),
    httpx2.RemoteProtocolError("server disconnected"),
    httpx2.WriteError("pipe"),
)
ASKS: list[Callable[[Any], Any]] = [lambda e: e.run(1), lambda e: e.run_sync(1), lambda e: e.job("j").wait()]


def keys(platform: Platform) -> list[str | None]:
    return [request.headers.get("idempotency-key") for request in platform.asked]


def test_each_request_has_a_name_of_its_own(face: type[SyncFace]) -> None:
    platform = Platform(DONE)
    calls = face(platform)
    for ask in ASKS[:2] * 2:
        calls.call(ask)

    assert 4 == len({uuid.UUID(key) for key in keys(platform) if key})


def test_a_caller_may_name_its_request(face: type[SyncFace]) -> None:
    platform = Platform(DONE)
    calls = face(platform)
    calls.call(lambda e: e.run(1, idempotency_key="mine"))
    calls.call(lambda e: e.run_sync(1, id="order-1"))

    assert ["mine", None] == keys(platform)
    assert [{"input": 1}, {"input": 1, "runyard": {"id": "order-1"}}] == [
        json.loads(request.content) for request in platform.asked
    ]


def test_a_request_has_one_name(face: type[SyncFace]) -> None:
    with pytest.raises(ClientError, match="not both"):
        face(Platform(DONE)).call(lambda e: e.run(1, idempotency_key="mine", id="order-1"))


@pytest.mark.parametrize("ask", ASKS, ids=["run", "run_sync", "wait"])
def test_a_call_whose_connection_is_lost_is_sent_again_under_its_name(
    face: type[SyncFace], ask: Callable[[Any], Any]
) -> None:
    """Also when, in between, nothing listens: the platform is being replaced."""
    platform = Platform(*LOST, httpx2.ConnectError("refused"), DONE)
    calls = face(platform)
    calls.call(ask)

    assert 5 == len(platform.asked)
    assert 1 == len(set(keys(platform)))
    assert 1 == len({request.content for request in platform.asked})
    assert [0.1, 0.5, 2.0, 5.0] == calls.pauses


@pytest.mark.parametrize("ask", ASKS, ids=["run", "run_sync", "wait"])
def test_a_connection_that_is_lost_again_and_again_is_given_up(face: type[SyncFace], ask: Callable[[Any], Any]) -> None:
    platform = Platform(LOST[0])
    with pytest.raises(ConnectionLost, match="connection reset"):
        face(platform).call(ask)

    assert 5 == len(platform.asked)


@pytest.mark.parametrize(
    "error",
    [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), httpx2.ConnectTimeout("slow")],
    ids=["refused", "slow", "far"],
)
def test_where_nothing_answers_from_the_start_or_in_time_that_is_said_at_once(
    face: type[SyncFace], error: Exception
) -> None:
    platform = Platform(error)
    calls = face(platform)
    with pytest.raises(ClientError):
        calls.call(ASKS[0])

    assert (1, []) == (len(platform.asked), calls.pauses)


@pytest.mark.parametrize(
    "ask",
    [lambda e: e.job("j").retry(), lambda e: e.job("j").cancel(), lambda e: e.purge()],
    ids=["retry", "cancel", "purge"],
)
def test_what_is_not_the_same_twice_is_sent_once(face: type[SyncFace], ask: Callable[[Any], Any]) -> None:
    platform = Platform(LOST[0])
    with pytest.raises(ConnectionLost):
        face(platform).call(ask)

    assert 1 == len(platform.asked)


def test_a_stream_whose_connection_is_lost_is_not_read_on(face: type[SyncFace]) -> None:
    """The pieces that were lost would be missing."""
    platform = Platform(LOST[0])
    with pytest.raises(ConnectionLost):
        face(platform).all(lambda e: e.job("j").stream())

    assert 1 == len(platform.asked)


def test_a_refusal_after_a_loss_is_the_answer(face: type[SyncFace]) -> None:
    platform = Platform(LOST[0], answer(409, json={"error": "another body"}))
    with pytest.raises(ApiError, match="another body"):
        face(platform).call(ASKS[0])

    assert 2 == len(platform.asked)
