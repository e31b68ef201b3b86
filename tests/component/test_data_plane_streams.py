"""`/stream`: what a running job has made so far, piece by piece."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edge_kit import RESULT_BYTES_MAX, Yard

MIB = 1 << 20
HOLD_S = 8

pytestmark = pytest.mark.looptime


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


async def running(yard: Yard) -> str:
    """A job that `worker-1` has."""
    job_id = await yard.client.run()
    await yard.worker().take()
    return job_id


async def post(yard: Yard, job_id: str, *chunks: object) -> None:
    worker = yard.worker()
    for chunk in chunks:
        assert 200 == (await worker.stream(job_id, chunk)).status


async def read(yard: Yard, job_id: str) -> tuple[str, list[Any]]:
    """The status and the outputs of one reply."""
    body = (await yard.client.get(f"/stream/{job_id}")).json()
    assert [["output"]] * len(body["stream"]) == [list(item) for item in body["stream"]]
    return body["status"], [item["output"] for item in body["stream"]]


@pytest.mark.row("F007")
async def test_a_stream_is_held_8_seconds_while_there_is_nothing_to_read(yard: Yard, looptime: object) -> None:
    job_id = await yard.client.run()

    assert {"id": job_id, "status": "IN_QUEUE", "stream": []} == (await yard.client.get(f"/stream/{job_id}")).json()
    assert looptime == HOLD_S
    await yard.worker().take()
    assert ("IN_PROGRESS", []) == await read(yard, job_id)
    assert looptime == 2 * HOLD_S


@pytest.mark.row("F007", "F122")
async def test_each_chunk_is_read_once_in_order_and_the_last_reply_brings_all_that_is_left(
    yard: Yard, looptime: object
) -> None:
    job_id = await running(yard)
    chunks: list[Any] = ["one", {"two": 2}, None, [3], 4.5, ""]

    await post(yard, job_id, *chunks)
    assert ("IN_PROGRESS", chunks) == await read(yard, job_id)
    await post(yard, job_id, "five", "six")
    await yard.worker().done(job_id, {"output": []})
    assert ("COMPLETED", ["five", "six"]) == await read(yard, job_id)
    assert ("COMPLETED", []) == await read(yard, job_id)
    assert looptime == 0


@pytest.mark.row("F007")
async def test_a_held_stream_is_answered_with_the_chunk_that_comes(yard: Yard, looptime: object) -> None:
    job_id = await running(yard)
    reading = asyncio.create_task(read(yard, job_id))
    await asyncio.sleep(3)
    await post(yard, job_id, "here")

    assert ("IN_PROGRESS", ["here"]) == await reading
    assert looptime == 3


@pytest.mark.row("F007")
@pytest.mark.parametrize(
    ("report", "state"), [({"output": []}, "COMPLETED"), ({"error": "boom"}, "FAILED"), (None, "CANCELLED")]
)
async def test_a_held_stream_is_answered_when_the_job_ends(
    yard: Yard, looptime: object, report: object, state: str
) -> None:
    job_id = await running(yard)
    reading = yard.client.get(f"/stream/{job_id}")
    await asyncio.sleep(3)
    await (yard.client.post(f"/cancel/{job_id}") if report is None else yard.worker().done(job_id, report))
    body = (await reading).json()

    assert looptime == 3
    assert {"id": job_id, "status": state, "stream": []} == {name: body[name] for name in ("id", "status", "stream")}
    assert ("boom" if state == "FAILED" else None) == body.get("error")


@pytest.mark.row("F007")
async def test_a_stream_is_read_by_post_too(yard: Yard) -> None:
    job_id = await running(yard)
    await post(yard, job_id, "one")

    reply = await yard.client.post(f"/stream/{job_id}")

    assert (200, [{"output": "one"}]) == (reply.status, reply.json()["stream"])


@pytest.mark.row("F007")
async def test_a_chunk_that_comes_after_its_reader_has_left_is_read_by_the_next(yard: Yard) -> None:
    job_id = await running(yard)
    reading = yard.client.get(f"/stream/{job_id}")
    await asyncio.sleep(1)
    posting = yard.worker().stream(job_id, "one")
    reading.leave()  # Before the chunk is there; the platform learns of it after.
    await posting

    assert ("IN_PROGRESS", ["one"]) == await read(yard, job_id)


@pytest.mark.row("F007")
async def test_what_a_cancelled_job_had_made_can_still_be_read(yard: Yard) -> None:
    job_id = await running(yard)
    await post(yard, job_id, "one")
    await yard.client.post(f"/cancel/{job_id}")

    assert ("CANCELLED", ["one"]) == await read(yard, job_id)


@pytest.mark.row("F007")
async def test_a_running_jobs_reply_is_bounded_and_the_rest_comes_with_the_next(yard: Yard) -> None:
    job_id = await running(yard)
    chunk = "x" * (MIB - 2)
    await post(yard, job_id, *[chunk] * 20)

    lengths = [len((await read(yard, job_id))[1]) for _ in range(2)]
    await yard.worker().done(job_id, {"output": []})

    assert [8, 8] == lengths
    assert ("COMPLETED", [chunk] * 4) == await read(yard, job_id)


@pytest.mark.row("F008")
@pytest.mark.parametrize("text", ["x" * 3 * MIB, "ä\n😀" * (MIB // 6)], ids=["ascii", "escapes"])
async def test_a_string_over_1_mb_comes_in_pieces_of_at_most_1_mb(yard: Yard, text: str) -> None:
    job_id = await running(yard)
    await post(yard, job_id, text)
    await yard.worker().done(job_id, {"output": []})

    _, pieces = await read(yard, job_id)

    assert text == "".join(pieces)
    assert len(pieces) > 1
    assert [] == [piece for piece in pieces if len(piece.encode()) > MIB]


@pytest.mark.row("F008")
async def test_a_chunk_of_1_mb_comes_whole(yard: Yard) -> None:
    job_id = await running(yard)
    chunks = ["x" * (MIB - 2), [1] * ((MIB - 1) // 3)]  # `1, ` is three bytes.
    await post(yard, job_id, *chunks)

    assert ("IN_PROGRESS", chunks) == await read(yard, job_id)


@pytest.mark.row("F008")
async def test_any_other_chunk_over_1_mb_is_refused_and_the_stream_says_so_in_its_place(yard: Yard) -> None:
    job_id = await running(yard)
    await post(yard, job_id, "before")
    refused = await yard.worker().stream(job_id, {"text": "x" * MIB})
    await post(yard, job_id, "after")

    assert 413 == refused.status
    state, (before, refusal, after) = await read(yard, job_id)
    assert ("IN_PROGRESS", "before", "after") == (state, before, after)
    assert "over 1 MB only strings are split" in refusal["error"]


@pytest.mark.row("F122")
@pytest.mark.parametrize("body", [b"{}", b'{"error": "x"}', b"not json"])
async def test_a_chunk_without_output_is_refused_and_the_job_goes_on(yard: Yard, body: bytes) -> None:
    job_id = await running(yard)
    worker = yard.worker()

    assert 400 == (await worker.post(f"/job-stream/{worker.id}/{job_id}", body)).status
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]


@pytest.mark.row("F122")
@pytest.mark.parametrize(
    ("body", "shown"),
    [(b'{"output": [NaN]}', [None]), (rb'{"output": "a\ud800"}', "a\ufffd"), (b'{"output": "\xff"}', "\ufffd")],
)
async def test_a_chunk_that_strict_json_rejects_is_mended(yard: Yard, body: bytes, shown: object) -> None:
    job_id = await running(yard)
    worker = yard.worker()
    await worker.post(f"/job-stream/{worker.id}/{job_id}", body)

    assert ("IN_PROGRESS", [shown]) == await read(yard, job_id)


@pytest.mark.row("F122")
async def test_only_the_holder_of_a_job_adds_to_its_stream(yard: Yard) -> None:
    job_id = await running(yard)
    other = yard.worker("worker-2")

    assert 200 == (await other.stream(job_id, "another's")).status
    assert ("IN_PROGRESS", []) == await read(yard, job_id)


async def test_a_chunk_over_the_limit_of_results_is_refused_and_the_job_goes_on(yard: Yard) -> None:
    job_id = await running(yard)

    assert 413 == (await yard.worker().stream(job_id, "x" * RESULT_BYTES_MAX)).status
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]
