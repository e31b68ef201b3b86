"""`/openai/...`: requests of OpenAI clients become jobs, and are answered as their clients expect (contract I.6)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.builders import ENDPOINT, WORKER
from tests.component.sse import Answer, UserPort, asked

pytestmark = [pytest.mark.looptime, pytest.mark.row("F178")]

OTHER = "worker-2"
CHAT = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = {"object": "chat.completion", "choices": [{"message": {"content": "Hello"}}]}
VLLM_ERROR = {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400}
DONE = "data: [DONE]\n\n"


def delta(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


class Clients(UserPort):
    """OpenAI clients, and a worker that the test plays."""

    def ask(
        self, body: Any = None, path: str = CHAT, *headers: str, **more: str
    ) -> AbstractAsyncContextManager[Answer]:
        return asked(self.port, self.request(body, path, *headers, **more))

    def request(
        self, body: Any, path: str, *headers: str, method: str = "", key: str = "", version: str = "1.1"
    ) -> bytes:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [
            f"{method or ('GET' if body is None else 'POST')} /v2/{ENDPOINT}/openai{path} HTTP/{version}",
            "Host: yard.test",
            f"Authorization: Bearer {key or self.yard.key}",
            f"Content-Length: {len(data)}",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + data

    async def take(self, worker: str = WORKER) -> dict[str, Any]:
        """The job that comes."""
        return (await self.yard.worker(worker).take()).json()

    async def done(self, job_id: str, body: object) -> None:
        await self.yard.worker().done(job_id, body)

    async def state(self, job_id: str) -> str:
        return (await self.yard.client.status(job_id))["status"]

    async def serve(self, report: object, *chunks: Any) -> str:
        """Take the job that comes, stream, and report."""
        job_id = (await self.take())["id"]
        await self.post(job_id, *chunks)
        await self.done(job_id, report)
        return job_id

    async def answered(self, asking: AbstractAsyncContextManager[Answer], report: object, *chunks: Any) -> Answer:
        """A whole answer to what a worker serves."""
        serving = asyncio.create_task(self.serve(report, *chunks))
        async with asking as answer:
            await serving
            answer.text = await text_of(answer)  # type: ignore[attr-defined]
            return answer


async def text_of(answer: Answer) -> str:
    if (size := answer.headers.get("content-length")) is not None:
        return (await answer.wire.reader.readexactly(int(size))).decode()
    pieces: list[bytes] = []
    while (piece := await answer.piece()) is not None:
        pieces.append(piece)
    assert answer.whole
    return b"".join(pieces).decode()


def told(answer: Any) -> tuple[int, dict[str, Any]]:
    """An error, which must have the shape that the clients read."""
    assert "application/json" == answer.headers["content-type"]
    body = json.loads(answer.text)
    assert {"error": {"message", "type", "param", "code"}} == {"error": body["error"].keys()}
    return answer.status, body["error"]


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    async with Clients.opened() as clients:
        yield clients


# In


@pytest.mark.parametrize(
    ("path", "body", "input"),
    [
        (CHAT, ASKED, {"openai_route": CHAT, "openai_input": ASKED}),
        ("/v1/completions", {"prompt": "é"}, {"openai_route": "/v1/completions", "openai_input": {"prompt": "é"}}),
        ("/v1/models", None, {"openai_route": "/v1/models"}),
        ("/v1/models/org%2Fname?x=1", None, {"openai_route": "/v1/models/org%2Fname"}),
        ("/anything", {}, {"openai_route": "/anything", "openai_input": {}}),
    ],
)
async def test_path_and_body_become_the_input(clients: Clients, path: str, body: Any, input: Any) -> None:
    taking = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(body, path))

        job = await taking
        assert input == job["input"]
        assert job["id"].startswith("sync-")


# Whole answers


@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
@pytest.mark.parametrize(
    ("report", "chunks"),
    [
        ({"output": ANSWER}, []),
        ({"output": [ANSWER]}, [ANSWER]),
        ({"output": []}, [ANSWER]),
        ({"output": json.dumps(ANSWER)}, []),
        ({"output": [json.dumps(ANSWER)]}, []),
    ],
    ids=["handler", "aggregating generator", "generator", "text", "text of a generator"],
)
async def test_the_result_is_the_answer(clients: Clients, path: str, report: object, chunks: list[Any]) -> None:
    asking = clients.ask(None if path.endswith("models") else ASKED, path)
    answer: Any = await clients.answered(asking, report, *chunks)

    assert (200, "application/json", ANSWER) == (answer.status, answer.headers["content-type"], json.loads(answer.text))
    assert answer.headers["x-request-id"].startswith("sync-")


async def test_bytes_of_a_result_are_not_touched(clients: Clients) -> None:
    job = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED, CHAT))
        worker, raw = clients.yard.worker(), b'{"a":  1.50, "b": "\\u00e9"}'
        await worker.post(f"/job-done/{worker.id}/{(await job)['id']}", b'{"output": [ %b ]}' % raw)
        reply = await wire.reply()

    assert reply is not None
    assert raw == reply.body


async def test_an_answer_is_waited_for_as_long_as_its_client_does(clients: Clients, looptime: object) -> None:
    async def later() -> None:
        await asyncio.sleep(500)
        await clients.serve({"output": ANSWER})

    serving = asyncio.create_task(later())
    async with clients.ask(ASKED) as answer:
        assert 200 == answer.status
    await serving
    assert looptime == 500


# Streams


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([delta("Hel"), delta("lo"), DONE], delta("Hel") + delta("lo") + DONE),
        ([delta("Hel") + delta("lo") + DONE], delta("Hel") + delta("lo") + DONE),
        ([delta("Hel"), delta("lo")], delta("Hel") + delta("lo") + DONE),
        ([delta("Hello")[:9], delta("Hello")[9:] + "data: [DO", "NE]\n\n"], delta("Hello") + DONE),
        ([delta("Hello") + "data: [DONE]"], delta("Hello") + DONE),
        ([delta("Hello").strip()], delta("Hello") + DONE),
        (["data: 1\r\n\r\n"], "data: 1\r\n\r\n" + DONE),
        ([[{"n": 1}, {"n": 2}], [{"n": 3}]], 'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: {"n": 3}\n\n' + DONE),
        ([{"n": 1}, None, "", {"n": 2}], 'data: {"n": 1}\n\ndata: {"n": 2}\n\n' + DONE),
        ([delta("[DONE]")], delta("[DONE]") + DONE),
        ([], DONE),
    ],
    ids=[
        "events", "a batch", "without end", "cut anywhere", "no line break", "no line break, no end", "other breaks",
        "objects in batches", "objects", "the word of the end", "nothing",
    ],
)  # fmt: skip
async def test_a_stream_is_passed_on_as_it_is_and_ends_as_it_should(
    clients: Clients, chunks: list[Any], text: str
) -> None:
    answer: Any = await clients.answered(clients.ask(ASKED | {"stream": True}), {"output": []}, *chunks)

    assert (200, "text/event-stream; charset=utf-8") == (answer.status, answer.headers["content-type"])
    assert text == answer.text


@pytest.mark.parametrize("output", [[delta("Hello")], delta("Hello"), [delta("Hel"), delta("lo")]])
async def test_a_handler_that_does_not_stream_is_passed_on_at_its_end(clients: Clients, output: Any) -> None:
    answer: Any = await clients.answered(clients.ask(ASKED | {"stream": True}), {"output": output})

    assert (output if isinstance(output, str) else "".join(output)) + DONE == answer.text


async def test_each_chunk_goes_out_as_it_comes(clients: Clients, looptime: object) -> None:
    taking = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED | {"stream": True}, CHAT))
        job_id = (await taking)["id"]
        await clients.post(job_id, delta("one"))
        answer = await Answer.on(wire)
        assert delta("one").encode() == await answer.piece()
        await clients.post(job_id, delta("two"))
        assert delta("two").encode() == await answer.piece()
        assert ("IN_PROGRESS", job_id) == (await clients.state(job_id), answer.headers["x-request-id"])
        await clients.done(job_id, {"output": []})
        assert DONE == await text_of(answer)
    assert looptime == 0


async def test_a_client_that_streams_hears_something_while_a_worker_starts(clients: Clients, looptime: object) -> None:
    async with clients.ask(ASKED | {"stream": True}) as answer:
        assert looptime == 15
        assert [b": nothing new\n\n"] * 2 == [await answer.piece() for _ in range(2)]
        await clients.serve({"output": []}, delta("Hello"))
        assert delta("Hello") + DONE == await text_of(answer)


# Errors


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("report", "chunks", "status", "error"),
    [
        ({"output": [VLLM_ERROR]}, [VLLM_ERROR], 400, {"message": "too long", "type": "BadRequestError", "code": 400}),
        ({"output": [{"error": VLLM_ERROR}]}, [{"error": VLLM_ERROR}], 400, {"message": "too long", "code": 400}),
        ({"error": str(VLLM_ERROR)}, [], 400, {"message": "too long", "type": "BadRequestError", "code": 400}),
        (
            {"error": str({"message": f"vLLM returned HTTP 404: {json.dumps({'error': VLLM_ERROR})}", "type": "x"})},
            [],
            404,
            {"message": "too long", "type": "BadRequestError"},
        ),
        ({"error": "vLLM returned HTTP 429: slow down"}, [], 429, {"message": "slow down", "type": "rate_limit_error"}),
        ({"error": "boom"}, [], 500, {"message": "boom", "type": "server_error", "code": "job_failed"}),
        ({"error": {"code": 3}}, [], 500, {"message": '{"code":3}', "code": "job_failed"}),
        ({"error": "{not python"}, [], 500, {"message": "{not python"}),
        ({"error": str({"message": "x", "code": 799})}, [], 500, {"message": "x", "code": 799}),
    ],
    ids=[
        "result", "wrapped result", "text of an object", "quoted", "quoted words", "words", "an object of its own",
        "no object", "no status",
    ],
)  # fmt: skip
async def test_a_workers_error_keeps_its_meaning(
    clients: Clients, stream: bool, report: object, chunks: list[Any], status: int, error: dict[str, Any]
) -> None:
    answer: Any = await clients.answered(clients.ask(ASKED | {"stream": stream}), report, *chunks)

    assert status == told(answer)[0]
    assert error == {name: told(answer)[1][name] for name in error}
    assert (None if status in (400, 404, 429) else "false") == answer.headers.get("x-should-retry")


async def test_an_error_amid_a_stream_is_its_last_event(clients: Clients) -> None:
    asking = clients.ask(ASKED | {"stream": True})
    answer: Any = await clients.answered(asking, {"error": "boom"}, delta("Hel"), "data: {")

    begun, _, rest = answer.text.partition("data: {\n\n")
    assert (200, delta("Hel")) == (answer.status, begun)
    error = {"message": "boom", "type": "server_error", "param": None, "code": "job_failed"}
    assert {"error": error} == json.loads(rest.removeprefix("data: "))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"--boundary", "not valid JSON"),
        (b"[1]", "wrong type"),
        (b'{"stream": "yes"}', "wrong type"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": %b}' % (b"1" * 5000), "digits"),
    ],
)
async def test_a_body_that_is_none_is_refused(clients: Clients, body: bytes, message: str) -> None:
    async with clients.ask(body) as answer:
        answer.text = await text_of(answer)  # type: ignore[attr-defined]

    status, error = told(answer)
    assert (400, "invalid_request_error", "bad_request") == (status, error["type"], error["code"])
    assert message in error["message"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"key": "rpa_wrong"}, 401, "invalid_api_key"),
        ({"method": "DELETE"}, 405, "method_not_allowed"),
        ({"body": b"x" * (21 << 20)}, 413, "too_large"),
    ],
)
async def test_the_platforms_own_errors_have_the_shape_too(
    clients: Clients, change: dict[str, Any], status: int, code: str
) -> None:
    async with clients.ask(change.pop("body", ASKED), CHAT, **change) as answer:
        answer.text = await text_of(answer)  # type: ignore[attr-defined]

    assert (status, code) == (told(answer)[0], told(answer)[1]["code"])


async def test_a_platform_that_stops_takes_no_more(clients: Clients) -> None:
    clients.yard.jobs.closing = True
    async with clients.ask(ASKED) as answer:
        answer.text = await text_of(answer)  # type: ignore[attr-defined]

    assert (503, "too_busy") == (told(answer)[0], told(answer)[1]["code"])
    assert "1" == answer.headers["retry-after"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_job_that_somebody_cancels_is_a_conflict(clients: Clients, stream: bool) -> None:
    taking = asyncio.create_task(clients.take())
    asking = asyncio.create_task(clients.ask(ASKED | {"stream": stream}).__aenter__())
    job_id = (await taking)["id"]
    await clients.yard.client.post(f"/cancel/{job_id}")
    answer: Any = await asking
    answer.text = await text_of(answer)

    assert (409, "job_cancelled", "false") == (
        *(told(answer)[0], told(answer)[1]["code"]),
        answer.headers["x-should-retry"],
    )


async def test_a_job_that_runs_too_long_is_a_timeout(clients: Clients) -> None:
    taking = asyncio.create_task(clients.take())
    async with clients.ask(ASKED) as answer:
        answer.text = await text_of(answer)  # type: ignore[attr-defined]
    await taking

    assert (504, "job_timed_out") == (told(answer)[0], told(answer)[1]["code"])


async def test_nobody_is_kept_for_more_than_an_hour(clients: Clients, looptime: object) -> None:
    async with clients.ask(ASKED) as answer:
        answer.text = await text_of(answer)  # type: ignore[attr-defined]

    assert (504, "timeout") == (told(answer)[0], told(answer)[1]["code"])
    assert looptime == 3600
    assert "CANCELLED" == await clients.state(answer.headers["x-request-id"])
    await clients.close()


# Ends before the end


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_takes_its_job_with_it(clients: Clients, stream: bool, begun: bool) -> None:
    stopping = asyncio.create_task(_stopped(clients))
    taking = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED | {"stream": stream}, CHAT))
        job_id = (await taking)["id"]
        if begun:
            await clients.post(job_id, delta("Hel"))
            await asyncio.sleep(0.1)

    assert [job_id] == await stopping
    assert "CANCELLED" == await clients.state(job_id)


async def _stopped(clients: Clients) -> list[str]:
    return (await clients.yard.worker().stop()).json()["jobsToStop"]


async def test_a_client_that_leaves_while_its_job_waits_takes_it_out_of_the_queue(clients: Clients) -> None:
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED, CHAT))
        await asyncio.sleep(0.1)
        assert 1 == (await clients.yard.jobs.counts(ENDPOINT)).in_queue
    await asyncio.sleep(0.1)

    assert (0, 1) == ((counts := await clients.yard.jobs.counts(ENDPOINT)).in_queue, counts.cancelled)


async def test_an_answer_once_given_cancels_nothing(clients: Clients) -> None:
    answer: Any = await clients.answered(clients.ask(ASKED), {"output": ANSWER})

    assert "COMPLETED" == await clients.state(answer.headers["x-request-id"])


@pytest.mark.parametrize("stop", ["shutdown", "hurry"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_is_replaced_asks_for_the_request_again(clients: Clients, stop: str, stream: bool) -> None:
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED | {"stream": stream}, CHAT))
        await asyncio.sleep(1)
        for connection in clients.connections():
            getattr(connection, stop)()
        answer: Any = await Answer.on(wire)
        answer.text = await text_of(answer)

    assert (503, "stopping", "1") == (told(answer)[0], told(answer)[1]["code"], answer.headers["retry-after"])
    assert "CANCELLED" == await clients.state(answer.headers["x-request-id"])


async def test_a_stream_under_way_is_told_that_the_server_is_replaced(clients: Clients) -> None:
    taking = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED | {"stream": True}, CHAT))
        await clients.post((await taking)["id"], delta("Hel"))
        answer = await Answer.on(wire)
        await answer.piece()
        for connection in clients.connections():
            connection.hurry()
        text = await text_of(answer)

    assert "stopping" == json.loads(text.removeprefix("data: "))["error"]["code"]


async def test_a_worker_that_is_lost_before_its_first_word_is_replaced_unnoticed(clients: Clients) -> None:
    taking = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED | {"stream": True}, CHAT))
        job_id = (await taking)["id"]
        await clients.yard.dispatch.worker_gone(clients.yard.worker().live, "it died")
        await clients.take(OTHER)
        await clients.post(job_id, delta("Hello"), worker=OTHER)
        await clients.yard.worker(OTHER).done(job_id, {"output": []})

        assert delta("Hello") + DONE == await text_of(await Answer.on(wire))


async def test_a_worker_that_is_lost_amid_its_words_is_an_error_not_a_repetition(clients: Clients) -> None:
    taking = asyncio.create_task(clients.take())
    async with clients.wire() as wire:
        wire.send(clients.request(ASKED | {"stream": True}, CHAT))
        job_id = (await taking)["id"]
        await clients.post(job_id, delta("Hel"))
        answer = await Answer.on(wire)
        await answer.piece()
        await clients.yard.dispatch.worker_gone(clients.yard.worker().live, "it died")
        text = await text_of(answer)

    assert "worker_lost" == json.loads(text.removeprefix("data: "))["error"]["code"]
    await asyncio.sleep(0.1)
    assert "CANCELLED" == await clients.state(job_id)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_http_1_0_is_answered(clients: Clients, stream: bool) -> None:
    asking = clients.ask(ASKED | {"stream": stream}, CHAT, version="1.0")
    serving = asyncio.create_task(clients.serve({"output": [ANSWER]}, *([delta("Hello")] if stream else [])))
    async with asking as answer:
        await serving
        text = (await answer.wire.reader.read()).decode()

    assert None is answer.headers.get("transfer-encoding")
    assert (delta("Hello") + DONE if stream else ANSWER) == (text if stream else json.loads(text))
