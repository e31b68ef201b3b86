"""The official Python client's asyncio face. It looks at no status code, so every answer has to be JSON it can read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from runpod import AsyncioEndpoint

from tests.compat.gate import Gate
from tests.compat.platform import Endpoint, result_of


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.row("F001", "F005", "F138")
async def test_run_status_and_output(awaited: Endpoint, session: aiohttp.ClientSession, gate: Gate) -> None:
    job = await AsyncioEndpoint(awaited.id, session).run({"do": "wait", "gate": gate.port, "value": {"n": 1}})
    guest = gate.next()

    assert "IN_PROGRESS" == await job.status()
    guest.let_go()
    assert {"n": 1} == await job.output(timeout=60)
    assert "COMPLETED" == await job.status()


@pytest.mark.row("F007")
async def test_stream(async_generating: Endpoint, session: aiohttp.ClientSession, gate: Gate) -> None:
    job = await AsyncioEndpoint(async_generating.id, session).run({"chunks": ["one", {"two": 2}], "gate": gate.port})
    stream = job.stream()
    guest = gate.next()

    assert ["one", {"two": 2}] == [await anext(stream), await anext(stream)]
    guest.let_go()
    assert ["after the gate"] == [chunk async for chunk in stream]


@pytest.mark.row("F009")
async def test_cancel(awaited: Endpoint, session: aiohttp.ClientSession, gate: Gate) -> None:
    job = await AsyncioEndpoint(awaited.id, session).run({"do": "wait", "gate": gate.port})
    guest = gate.next()

    reply = await job.cancel()

    assert {"id": job.job_id, "status": "CANCELLED"} == reply
    assert ("CANCELLED", "cancelled") == (await job.status(), guest.last_words())


@pytest.mark.row("F011", "F012")
async def test_health_and_purge_queue(outcomes: Endpoint, session: aiohttp.ClientSession, gate: Gate) -> None:
    endpoint = AsyncioEndpoint(outcomes.id, session)
    running = await endpoint.run({"do": "wait", "gate": gate.port, "value": 1})
    gate.next()
    waiting = await endpoint.run({"do": "worker"})

    jobs = (await endpoint.health())["jobs"]
    assert (1, 1) == (jobs["inProgress"], jobs["inQueue"])
    assert {"removed": 1, "status": "completed"} == await endpoint.purge_queue()
    assert "CANCELLED" == await waiting.status()
    gate.close()
    assert {"status": "COMPLETED", "output": 1} == result_of(outcomes.ended(running.job_id))


async def test_a_wrong_key_is_answered_in_json(outcomes: Endpoint, session: aiohttp.ClientSession) -> None:
    stranger = AsyncioEndpoint(outcomes.id, session, api_key="rpa_wrong")

    assert ["error"] == list(await stranger.health())
    with pytest.raises(KeyError, match="id"):
        await stranger.run({"do": "worker"})


@pytest.mark.row("F002")
async def test_an_answer_whose_head_comes_early_is_read_as_any_other(
    awaited: Endpoint, session: aiohttp.ClientSession, gate: Gate
) -> None:
    url = f"{awaited.platform.url}/v2/{awaited.id}/runsync"
    headers = {"Authorization": f"Bearer {awaited.platform.key}"}
    body = {"input": {"do": "wait", "gate": gate.port, "value": {"n": 1}}}
    async with session.post(url, json=body, headers=headers) as reply:
        assert "x-runyard-job-id" in reply.headers
        gate.next().let_go()
        told = await reply.json()

    assert (200, "COMPLETED", {"n": 1}) == (reply.status, told["status"], told["output"])
    assert reply.headers["x-runyard-job-id"] == told["id"]
