"""The official OpenAI client, given our base URL and key, against a worker that answers as worker-vllm does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.compat.gate import Gate
from tests.compat.platform import JOB_S_MAX, Endpoint, until

pytestmark = pytest.mark.row("F178")

HEARD = "You said: "


def base_url(endpoint: Endpoint) -> str:
    return f"{endpoint.platform.url}/v2/{endpoint.id}/openai/v1"


@pytest.fixture
def client(talking: Endpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url(talking), api_key=talking.platform.key, timeout=JOB_S_MAX) as client:
        yield client


@pytest.fixture
async def async_client(talking: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url(talking), api_key=talking.platform.key) as client:
        yield client


def saying(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "parrot", "messages": [{"role": "user", "content": prompt}], **more}


def said(chunk: Any) -> str:
    return chunk.choices[0].delta.content or ""


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert ["parrot"] == [model.id for model in client.models.list()]


def test_a_chat_is_answered(client: openai.OpenAI, talking: Endpoint) -> None:
    completion = client.chat.completions.create(**saying("good day"))

    assert (HEARD + "good day", "stop") == (completion.choices[0].message.content, completion.choices[0].finish_reason)
    assert completion.usage is not None
    assert 3 == completion.usage.total_tokens
    assert "COMPLETED" == talking.status(completion._request_id or "")["status"]


@pytest.mark.row("F137", "F139")
def test_a_chat_is_streamed_word_by_word(client: openai.OpenAI, gate: Gate) -> None:
    with client.chat.completions.create(**saying(f"wait {gate.port}", stream=True)) as stream:
        chunks = iter(stream)
        early = [next(chunks) for _ in range(5)]  # While the worker waits in the middle of its answer.
        gate.next().let_go()
        late = list(chunks)

    assert f"{HEARD}wait {gate.port} " == "".join(map(said, early))
    assert ["stop"] == [chunk.choices[0].finish_reason for chunk in late]


@pytest.mark.parametrize("prompt", ["good day", "no end"])
def test_a_stream_ends_with_the_word_that_says_so(talking: Endpoint, prompt: str) -> None:
    body = saying(prompt, stream=True)
    reply = talking.platform.http.post(f"/v2/{talking.id}/openai/v1/chat/completions", json=body)

    assert "text/event-stream; charset=utf-8" == reply.headers["content-type"]
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert ("[DONE]", 1) == (events[-1], events.count("[DONE]"))
    assert (
        HEARD + prompt == "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1]).strip()
    )


async def test_the_async_client_streams_several_chats_at_once(async_client: openai.AsyncOpenAI) -> None:
    streams = [await async_client.chat.completions.create(**saying(f"number {n}", stream=True)) for n in range(4)]
    texts = ["".join([said(chunk) async for chunk in stream]) for stream in streams]

    assert [f"{HEARD}number {n} " for n in range(4)] == texts


def test_the_stream_helper_gathers_the_whole_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**saying("good day")) as stream:
        completion = stream.get_final_completion()

    assert f"{HEARD}good day " == completion.choices[0].message.content


def test_a_raw_completion_is_answered(client: openai.OpenAI) -> None:
    completion: Any = client.completions.create(model="parrot", prompt="good day")

    assert f"{HEARD}good day" == completion.choices[0].message["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_engine_is_raised_as_what_it_is(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**saying("too long", stream=stream))

    error = raised.value
    assert ("prompt too long", "BadRequestError", "messages") == (error.body["message"], error.type, error.param)  # type: ignore[index]


@pytest.mark.parametrize("stream", [False, True])
def test_a_handler_that_raises_is_an_error_and_not_run_again(client: openai.OpenAI, stream: bool) -> None:
    jobs = _counts(client)
    with pytest.raises(openai.InternalServerError, match="the engine is broken"):
        client.chat.completions.create(**saying("crash", stream=stream))

    assert jobs + 1 == _counts(client)


def _counts(client: openai.OpenAI) -> int:
    """How many jobs have failed."""
    url = str(client.base_url).removesuffix("/openai/v1/")
    return client.get(f"{url}/health", cast_to=dict[str, Any])["jobs"]["failed"]


def test_an_answer_that_breaks_off_is_not_taken_for_whole(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**saying("break", stream=True))
    heard: list[str] = []
    with pytest.raises(openai.APIError, match="the engine broke amid its answer"):
        heard.extend(map(said, stream))

    assert f"{HEARD}break " == "".join(heard)


def test_a_wrong_key_and_a_wrong_endpoint_are_what_the_client_has_words_for(talking: Endpoint) -> None:
    for url, key, error in (
        (base_url(talking), "rpa_wrong", openai.AuthenticationError),
        (f"{talking.platform.url}/v2/nothing/openai/v1", talking.platform.key, openai.NotFoundError),
    ):
        with openai.OpenAI(base_url=url, api_key=key) as client, pytest.raises(error):
            client.models.list()


@pytest.mark.row("F009")
def test_a_client_that_closes_its_stream_stops_the_handler(
    client: openai.OpenAI, gate: Gate, talking: Endpoint
) -> None:
    stream = client.chat.completions.create(**saying(f"wait {gate.port}", stream=True))
    next(iter(stream))
    guest = gate.next()
    stream.close()

    assert "cancelled" == guest.last_words()  # The handler got a CancelledError.
    assert "CANCELLED" == talking.ended(guest.job_id)["status"]


@pytest.mark.row("F009")
def test_a_client_that_gives_up_waiting_stops_the_handler(client: openai.OpenAI, gate: Gate, talking: Endpoint) -> None:
    hasty = client.with_options(timeout=1, max_retries=0)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(hasty.chat.completions.create, **saying(f"wait {gate.port}"))
        guest = gate.next()
        assert "cancelled" == guest.last_words()
        with pytest.raises(openai.APITimeoutError):
            asking.result()

    until(lambda: talking.status(guest.job_id)["status"] == "CANCELLED", "the job is cancelled")
