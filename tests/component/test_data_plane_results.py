"""What workers report, and what clients then read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edge_kit import RESULT_BYTES_MAX, Worker, Yard

pytestmark = pytest.mark.looptime


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    await yard.open()
    yield yard
    await yard.close()


async def taken(yard: Yard, worker: Worker, **fields: Any) -> str:
    """A job that the worker has."""
    job_id = await yard.client.run(**fields)
    assert job_id == (await worker.take()).json()["id"]
    return job_id


def end_of(shown: Any) -> dict[str, Any]:
    return {name: shown[name] for name in ("status", "output", "error") if name in shown}


READ_AS = [
    pytest.param({"output": {"a": [1, "ä"]}}, {"status": "COMPLETED", "output": {"a": [1, "ä"]}}, id="object"),
    pytest.param({"output": None}, {"status": "COMPLETED", "output": None}, id="null"),
    pytest.param({"output": []}, {"status": "COMPLETED", "output": []}, id="generator"),
    pytest.param({}, {"status": "COMPLETED"}, id="nothing"),
    pytest.param({"output": 1, "error": None}, {"status": "COMPLETED", "output": 1}, id="no error"),
    pytest.param(
        {"output": {"detail": 7}, "error": "bad input"},
        {"status": "FAILED", "output": {"detail": 7}, "error": "bad input"},
        id="error and output",
    ),
    pytest.param({"error": {"code": 3}}, {"status": "FAILED", "error": '{"code": 3}'}, id="error object"),
    pytest.param({"error": [1, "a"]}, {"status": "FAILED", "error": '[1, "a"]'}, id="error list"),
    pytest.param({"error": 5}, {"status": "FAILED", "error": "5"}, id="error number"),
    pytest.param({"error": True}, {"status": "FAILED", "error": "true"}, id="error bool"),
    pytest.param({"output": 1, "stopPod": True}, {"status": "COMPLETED", "output": 1}, id="stopPod"),
    pytest.param(
        b'{"output": [NaN, Infinity, -Infinity, 1.5]}',
        {"status": "COMPLETED", "output": [None, None, None, 1.5]},
        id="NaN",
    ),
    pytest.param(rb'{"output": "a\ud800b"}', {"status": "COMPLETED", "output": "a\ufffdb"}, id="lone surrogate"),
    pytest.param(rb'{"error": "a\udc00"}', {"status": "FAILED", "error": "a\ufffd"}, id="lone surrogate in error"),
    pytest.param(
        rb'{"error": {"a": "\udc00"}}', {"status": "FAILED", "error": '{"a":"\ufffd"}'}, id="and inside an error"
    ),
    pytest.param(
        rb'{"output": {"\ud83d\ude00": "\ud83d"}}', {"status": "COMPLETED", "output": {"😀": "\ufffd"}}, id="pair"
    ),
    pytest.param(b'{"output": "\xff"}', {"status": "COMPLETED", "output": "\ufffd"}, id="not UTF-8"),
]


@pytest.mark.row("F121", "F033")
@pytest.mark.parametrize(("body", "shown"), READ_AS)
async def test_a_report_ends_the_job_whatever_json_it_is(yard: Yard, body: object, shown: dict[str, Any]) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)

    assert 200 == (await worker.done(job_id, body)).status
    assert shown == end_of(await yard.client.status(job_id))


@pytest.mark.row("F121")
@pytest.mark.parametrize("body", [b"", b"not json", b'{"output": ', b"[]", b'"text"', b'{"output": tru}', b"[" * 9999])
async def test_a_report_that_is_not_json_fails_the_job_and_says_so(yard: Yard, body: bytes) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)

    assert 200 == (await worker.done(job_id, body)).status
    shown = await yard.client.status(job_id)
    assert "FAILED" == shown["status"]
    assert "cannot be read as JSON" in shown["error"]


@pytest.mark.row("F121")
async def test_a_result_counts_once_and_from_the_worker_that_holds_the_job(yard: Yard) -> None:
    worker, other = yard.worker(), yard.worker("worker-2")
    job_id = await taken(yard, worker)

    replies = [
        await other.done(job_id, {"output": "another's"}),
        await worker.done(job_id, {"output": "first"}),
        await worker.done(job_id, {"error": "second"}),
        await worker.done(job_id, {"status": "IN_PROGRESS", "output": "late progress"}),
        await worker.stream(job_id, "late chunk"),
        await worker.done("no-such-job", {"output": 1}),
    ]

    assert [200] * 6 == [reply.status for reply in replies]
    assert {"status": "COMPLETED", "output": "first"} == end_of(await yard.client.status(job_id))
    assert [] == (await yard.client.get(f"/stream/{job_id}")).json()["stream"]


@pytest.mark.row("F121")
async def test_the_result_of_a_cancelled_job_is_taken_and_dropped(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)
    await yard.client.post(f"/cancel/{job_id}")

    assert 200 == (await worker.done(job_id, {"output": 1})).status
    assert {"status": "CANCELLED"} == end_of(await yard.client.status(job_id))


@pytest.mark.row("F035")
async def test_the_latest_progress_is_the_output_of_a_running_job_until_it_ends(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)

    for progress in ("25%", {"done": 3}):
        await worker.done(job_id, {"status": "IN_PROGRESS", "output": progress})
        assert {"status": "IN_PROGRESS", "output": progress} == end_of(await yard.client.status(job_id))
    await worker.done(job_id, {"error": "boom"})

    assert {"status": "FAILED", "error": "boom"} == end_of(await yard.client.status(job_id))


@pytest.mark.row("F121")
async def test_a_result_over_the_limit_fails_the_job_and_says_how_large_it_may_be(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)
    body = b'{"output": "%b"}' % (b"x" * RESULT_BYTES_MAX)

    refused = await worker.done(job_id, body)

    assert 413 == refused.status
    shown = await yard.client.status(job_id)
    assert "FAILED" == shown["status"]
    assert f"too large: the body is larger than {RESULT_BYTES_MAX} bytes" in shown["error"]


@pytest.mark.row("F121")
async def test_a_result_of_the_largest_size_is_kept(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await taken(yard, worker)
    body = b'{"output":"%b"}' % (b"x" * (RESULT_BYTES_MAX - len(b'{"output":""}')))

    assert 200 == (await worker.done(job_id, body)).status
    assert "COMPLETED" == (await yard.client.status(job_id))["status"]


@pytest.mark.row("F031", "F032")
async def test_a_job_tells_how_long_it_waited_and_ran_and_where(yard: Yard) -> None:
    worker = yard.worker()
    job_id = await yard.client.run()
    assert {"id", "status", "input"} == set(await yard.client.status(job_id))
    await asyncio.sleep(3)
    await worker.take()
    running = await yard.client.status(job_id)
    await asyncio.sleep(2)
    await worker.done(job_id, {"output": 1})

    assert {"delayTime": 3000, "workerId": worker.id} == {name: running[name] for name in ("delayTime", "workerId")}
    assert "executionTime" not in running
    assert {
        "id": job_id,
        "status": "COMPLETED",
        "delayTime": 3000,
        "executionTime": 2000,
        "workerId": worker.id,
        "output": 1,
    } == await yard.client.status(job_id)


@pytest.mark.row("F024")
async def test_storage_credentials_reach_the_worker_and_no_reply(yard: Yard) -> None:
    worker = yard.worker()
    given = {"accessId": "id-1", "accessSecret": "hush", "bucketName": "b", "endpointUrl": "https://s3.test"}
    hook = "https://hook.test/done"
    waiting = asyncio.ensure_future(
        yard.client.post("/runsync", {"input": {"n": 1}, "s3Config": given, "webhook": hook})
    )
    await asyncio.sleep(0.1)
    [listed] = (await yard.client.get("/requests")).json()["requests"]
    job_id = listed["id"]
    reads = [f"/status/{job_id}", f"/stream/{job_id}?wait=1000", f"/requests/{job_id}", "/requests"]
    seen = [(await yard.client.get(path)).body for path in reads]
    taken = (await worker.take()).json()
    seen += [(await yard.client.get(path)).body for path in reads]
    await worker.done(job_id, {"error": "boom"})
    seen += [(await yard.client.get(path)).body for path in reads]
    seen += [(await waiting).body, (await yard.client.post(f"/retry/{job_id}")).body]
    seen += [(await yard.client.post(f"/cancel/{job_id}")).body]

    assert {"id": job_id, "input": {"n": 1}, "s3Config": given, "webhook": hook} == taken
    assert [] == [body for body in seen if b"s3Config" in body or b"hush" in body or b"id-1" in body]


@pytest.mark.row("F019", "F119")
@pytest.mark.parametrize("input", [None, 0, "text", [], {}, {"a": {"b": 1.5}}])
async def test_the_input_reaches_the_worker_as_it_was_sent(yard: Yard, input: Any) -> None:
    job_id = await yard.client.run(input)

    assert {"id": job_id, "input": input} == (await yard.worker().take()).json()


@pytest.mark.row("F125")
async def test_a_worker_that_says_it_is_unfit_is_counted_as_such_with_its_reason(yard: Yard) -> None:
    worker = yard.worker()

    reply = await worker.ping("&status=unhealthy&check=gpu_ok&reason=RuntimeError%3A+no+GPU&runpod_version=1.12.0")

    assert 200 == reply.status
    assert "gpu_ok: RuntimeError: no GPU" == worker.live.worker.unhealthy_reason
    assert "1.12.0" == worker.live.worker.sdk_version
    workers = (await yard.client.get("/health")).json()["workers"]
    assert {"unhealthy": 1} == {name: count for name, count in workers.items() if count}
