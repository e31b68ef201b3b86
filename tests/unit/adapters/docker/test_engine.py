"""What answers may be anything: over a transport that answers as it is told to."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from runyard.adapters.docker.engine import Engine, EngineError
from runyard.domain.errors import StartFailed

VERSION = '{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}'


async def pieces(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


def engine_that_says(said: str, *, version: str = VERSION) -> Engine:
    def answer(request: httpx2.Request) -> httpx2.Response:
        text = version if request.url.path == "/version" else said
        return httpx2.Response(200, content=pieces(text), headers={"content-type": "application/json"})

    engine = Engine("unix:///nowhere")
    engine._http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://engine")
    return engine


@pytest.mark.parametrize("version", ["<html>", "", "[]", "null", "5", '{"ApiVersion": "x.y"}', '{"ApiVersion": 1.41}'])
async def test_what_is_no_engine_is_said_with_where_it_is_named(version: str) -> None:
    with pytest.raises(StartFailed, match=r"at unix:///nowhere is no Docker Engine.* docker_host"):
        await engine_that_says("{}", version=version).call("GET", "/info")


async def test_an_answer_that_cannot_be_read_is_an_error_of_the_engine() -> None:
    with pytest.raises(EngineError, match=r"answer to GET /v1.41/info is no JSON"):
        await engine_that_says("{not").call("GET", "/info")


@pytest.mark.parametrize("said", ["5", "[]", "null", '"error"', "<html>"])
async def test_what_is_no_object_ends_a_stream_of_them(said: str) -> None:
    async with engine_that_says(said).messages("GET", "/events") as events:
        with pytest.raises(EngineError, match="in a stream of objects"):
            assert [] == [event async for event in events]
