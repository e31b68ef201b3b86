"""Results that go to disk as they come, over real sockets: whole ones, broken ones, and clients good and bad."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters.payloads import FolderPayloads
from runyard.domain.errors import NotFound
from runyard.domain.job import EndpointId, Job, JobId
from runyard.domain.payload import Spilled
from runyard.edge import result_scan
from tests.builders import ENDPOINT, SECRET, WORKER
from tests.component.wire import GET, MIB, POST, SETTINGS, Ports, Reply, Wire, open_ports
from tests.edge_kit import Worker, Yard
from tests.payload_kit import MemoryPayloads

LARGE = replace(SETTINGS, result_bytes_max=32 * MIB, result_inline_bytes=MIB // 32)
OUTPUT = [{"n": n, "text": 'é, "}{" \\' * 40} for n in range(1000)]
BODY = json.dumps({"output": OUTPUT}).encode()


async def taken(ports: Ports, **more: Any) -> tuple[str, Wire]:
    """A job that the worker holds, and the worker's connection."""
    reply = await (await ports.connect()).ask(ports.request(POST, "/run", json.dumps({"input": 1, **more})))
    worker = await ports.connect_worker()
    assert reply.json()["id"] == (await worker.ask(busy_poll(ports))).json()["id"]
    return reply.json()["id"], worker


def busy_poll(ports: Ports) -> bytes:
    """Of a worker that may have jobs in hand, so that it does not count as having lost them."""
    return ports.poll().replace(b"job_in_progress=0", b"job_in_progress=1")


def done(ports: Ports, job_id: str, body: bytes, *more: str) -> bytes:
    return ports.request(POST, f"/job-done/{WORKER}/{job_id}?isStream=false", body, *more, key=SECRET)


def head(ports: Ports, job_id: str, *lines: str) -> bytes:
    """Of a result whose body the test sends as it likes."""
    return ports.request(POST, f"/job-done/{WORKER}/{job_id}?isStream=false", None, *lines, key=SECRET)


async def shown(ports: Ports, job_id: str, path: str = "status") -> Reply:
    return await asked(ports, ports.request(GET, f"/{path}/{job_id}"))


async def asked(ports: Ports, request: bytes) -> Reply:
    """On a connection of its own: `Wire` reads a reply of any size."""
    return await (await ports.connect()).ask(request)


async def stored(ports: Ports, job_id: str) -> Job:
    return await ports.platform.jobs.get(EndpointId(ENDPOINT), JobId(job_id))


async def held(yard: Yard) -> tuple[Worker, str]:
    """A worker of the yard, and a job that it holds."""
    worker = yard.worker()
    job_id = await yard.client.run()
    await worker.take()
    return worker, job_id


async def until_quiet(payloads: MemoryPayloads) -> None:
    for _ in range(100):
        if not payloads.drafts:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{payloads.drafts} drafts are left")


@pytest.mark.parametrize("path", ["status", "status-sync", "requests"])
async def test_a_large_result_is_kept_outside_the_store_and_shown_as_if_it_were_not(path: str) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        assert (200, b"{}") == ((reply := await worker.ask(done(ports, job_id, BODY))).status, reply.body)
        reply = await shown(ports, job_id, path)

        output = (await stored(ports, job_id)).output
        assert isinstance(output, Spilled)
        assert BODY[len('{"output": ') : -1] == payloads.load(output), "byte for byte"
        assert ("COMPLETED", OUTPUT) == (reply.json()["status"], reply.json()["output"])
        assert "application/json" == reply.headers["content-type"]
        assert 0 == payloads.drafts


async def test_a_small_result_goes_to_no_file() -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        body = json.dumps({"output": "x" * (LARGE.result_inline_bytes - 20)}).encode()
        await worker.ask(done(ports, job_id, body))

        assert {} == payloads.held
        assert isinstance((await stored(ports, job_id)).output, bytes)


@pytest.mark.looptime
async def test_who_waits_gets_a_large_result_and_the_connection_goes_on(looptime: object) -> None:
    async with open_ports(LARGE) as ports:
        client = await ports.connect()
        client.send(ports.request(POST, "/runsync", '{"input":1}'))
        worker = await ports.connect_worker()
        job_id = (await worker.ask(busy_poll(ports))).json()["id"]
        others = [await ports.connect() for _ in range(3)]
        for other in others:
            other.send(ports.request(GET, f"/status-sync/{job_id}"))
        await asyncio.sleep(1)
        await worker.ask(done(ports, job_id, BODY))
        replies = [await wire.reply() for wire in (client, *others)]

        assert [OUTPUT] * 4 == [reply.json()["output"] for reply in replies]
        for wire in (client, *others):
            assert 200 == (await wire.ask(ports.request(GET, "/health"))).status


@pytest.mark.looptime
async def test_a_large_result_goes_on_where_an_early_head_has_begun(looptime: object) -> None:
    async with open_ports(LARGE) as ports:
        client = await ports.connect()
        client.send(ports.request(POST, "/runsync", '{"input":1}'))
        worker = await ports.connect_worker()
        job_id = (await worker.ask(busy_poll(ports))).json()["id"]
        await asyncio.sleep(2)
        await worker.ask(done(ports, job_id, BODY))
        reply = await client.reply()

        assert (job_id, "chunked") == (reply.headers["x-runyard-job-id"], reply.headers["transfer-encoding"])
        assert ("COMPLETED", OUTPUT) == (reply.json()["status"], reply.json()["output"])
        assert 200 == (await client.ask(ports.request(GET, "/health"))).status


async def test_a_worker_may_send_chunks_of_any_size_without_saying_how_much_it_will_be() -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        worker.send(head(ports, job_id, "Transfer-Encoding: chunked"))
        step = 7777
        for start in range(0, len(BODY), step):
            piece = BODY[start : start + step]
            worker.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)

        assert 200 == (await worker.ask(b"0\r\n\r\n")).status
        assert OUTPUT == (await shown(ports, job_id)).json()["output"]


async def test_results_sent_one_behind_the_other_are_all_taken() -> None:
    async with open_ports(LARGE) as ports:
        jobs = [(await taken(ports))[0] for _ in range(3)]
        worker = await ports.connect_worker()
        worker.send(b"".join(done(ports, job_id, BODY) for job_id in jobs))
        replies = [await worker.reply() for _ in jobs]

        assert [200] * 3 == [reply.status for reply in replies]
        assert [OUTPUT] * 3 == [(await shown(ports, job_id)).json()["output"] for job_id in jobs]


@pytest.mark.looptime
async def test_a_worker_that_leaves_amid_its_result_has_sent_none(looptime: object) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        worker.send(done(ports, job_id, BODY)[: -len(BODY) // 3])
        await asyncio.sleep(0.1)
        assert 1 == payloads.drafts
        worker.writer.transport.abort()
        await asyncio.sleep(0.1)

        assert (0, {}) == (payloads.drafts, payloads.held)
        assert "IN_PROGRESS" == (await shown(ports, job_id)).json()["status"]
        assert 200 == (await (await ports.connect_worker()).ask(done(ports, job_id, BODY))).status
        assert OUTPUT == (await shown(ports, job_id)).json()["output"]


@pytest.mark.looptime
async def test_a_worker_that_sends_less_than_it_said_is_refused(looptime: object) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        worker.send(head(ports, job_id, f"Content-Length: {len(BODY) + 1}") + BODY)
        reply = await worker.reply()

        assert (408, True) == (reply.status, await worker.is_closed())
        assert 20 < looptime < 23
        await until_quiet(payloads)
        assert "IN_PROGRESS" == (await shown(ports, job_id)).json()["status"]


async def test_what_a_worker_sends_beyond_what_it_said_is_not_of_the_result() -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        worker.send(done(ports, job_id, BODY) + b"more")
        await worker.rest()  # It is no HTTP, so the connection ends.

        assert OUTPUT == (await shown(ports, job_id, "status-sync")).json()["output"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_result_over_the_limit_fails_the_job_and_leaves_nothing(*, chunked: bool) -> None:
    payloads = MemoryPayloads()
    async with open_ports(replace(LARGE, result_bytes_max=MIB), payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        body = json.dumps({"output": "x" * (2 * MIB)}).encode()
        if chunked:
            worker.send(head(ports, job_id, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(body), body))
            reply = await worker.reply()
        else:
            reply = await worker.ask(done(ports, job_id, body))
        job = (await shown(ports, job_id)).json()

        assert 413 == reply.status
        assert "FAILED" == job["status"]
        assert "raise result_bytes_max" in job["error"]
        await until_quiet(payloads)
        assert {} == payloads.held


@pytest.mark.looptime
async def test_without_room_a_result_waits_and_is_kept_when_there_is_some(looptime: object) -> None:
    yard = Yard(settings=LARGE)
    await yard.open()
    worker, job_id = await held(yard)
    yard.payloads.room = MIB // 32
    call = worker.done(job_id, BODY)
    await asyncio.sleep(100)
    assert (False, 1, {}) == (call.answered, yard.payloads.drafts, yard.payloads.held)
    yard.payloads.room = 10 * MIB

    assert 200 == (await call).status
    assert OUTPUT == (await yard.client.status(job_id))["output"]
    await yard.close()


@pytest.mark.looptime
async def test_where_there_is_no_room_for_long_a_result_is_answered_503_and_may_come_again(looptime: object) -> None:
    yard = Yard(settings=LARGE)
    await yard.open()
    worker, job_id = await held(yard)
    yard.payloads.room = MIB // 32
    reply = await worker.done(job_id, BODY)

    assert 503 == reply.status
    assert "free disk space" in reply.json()["error"]
    assert 240 <= looptime < 300
    assert (0, {}) == (yard.payloads.drafts, yard.payloads.held)
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"]
    yard.payloads.room = 10 * MIB
    assert 200 == (await worker.done(job_id, BODY)).status
    assert OUTPUT == (await yard.client.status(job_id))["output"]
    await yard.close()


@pytest.mark.looptime
async def test_a_result_waits_for_payloads_that_are_away_just_when_it_is_whole(looptime: object) -> None:
    yard = Yard(settings=LARGE)
    await yard.open()
    worker, job_id = await held(yard)
    yard.payloads.away = True
    call = worker.done(job_id, BODY)
    await asyncio.sleep(100)
    assert (False, 1, {}) == (call.answered, yard.payloads.drafts, yard.payloads.held)
    await yard.spills.sweep()
    yard.payloads.away = False

    assert 200 == (await call).status
    assert OUTPUT == (await yard.client.status(job_id))["output"]
    await yard.close()


@pytest.mark.looptime
async def test_a_result_of_which_something_is_lost_is_answered_503_at_once(looptime: object) -> None:
    yard = Yard(settings=LARGE)
    await yard.open()
    worker, job_id = await held(yard)
    yard.payloads.away = yard.payloads.spoils = True
    reply = await worker.done(job_id, BODY)

    assert (503, 0, {}) == (reply.status, yard.payloads.drafts, yard.payloads.held)
    assert looptime == 0
    await yard.close()


@pytest.mark.looptime
async def test_a_client_is_told_when_a_result_cannot_be_read_just_now(looptime: object) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        worker = await ports.connect_worker()
        early = await ports.connect()
        early.send(ports.request(POST, "/runsync", '{"input":1}'))
        job_id = (await worker.ask(busy_poll(ports))).json()["id"]
        await asyncio.sleep(2)
        payloads.opens.clear()
        await worker.ask(done(ports, job_id, BODY))
        payloads.away = True
        payloads.opens.set()
        reply = await early.reply()

        assert (200, "payloads are away; wait for them") == (reply.status, reply.json()["error"]), "its head was out"
        assert 503 == (await shown(ports, job_id)).status
        payloads.away = False
        assert OUTPUT == (await shown(ports, job_id)).json()["output"]


@pytest.mark.parametrize("path", ["status", "status-sync", "requests"])
async def test_what_a_disk_does_not_give_just_now_is_no_defect_of_the_platform(path: str, tmp_path: Path) -> None:
    payloads = tmp_path / "payloads"
    small_inputs = replace(LARGE, input_inline_bytes=10)
    async with open_ports(small_inputs, payloads=FolderPayloads(payloads)) as ports:
        job_id, worker = await taken(ports, input="x" * 100)
        [input] = payloads.iterdir()
        await worker.ask(done(ports, job_id, BODY))
        [output] = set(payloads.iterdir()) - {input}
        for file in [output] if path != "requests" else [input, output]:
            file.rename(tmp_path / "away")
            file.symlink_to(file.name)
            assert (503, True) == ((reply := await shown(ports, job_id, path)).status, file.name in reply.error)
            (tmp_path / "away").rename(file)

        assert OUTPUT == (await shown(ports, job_id, path)).json()["output"]


@pytest.mark.looptime
async def test_a_disk_that_is_behind_holds_up_its_worker_and_nobody_else(looptime: object) -> None:
    yard = Yard(settings=LARGE)
    await yard.open()
    worker, job_id = await held(yard)
    yard.payloads.moves.clear()
    body = json.dumps({"output": "x" * 4 * MIB}).encode()
    call = worker.done(job_id, body[: MIB // 4], headers={"Content-Length": str(len(body))})
    for start in range(MIB // 4, len(body), MIB // 4):
        await asyncio.sleep(0.01)
        call.line.send(body[start : start + MIB // 4])
    await asyncio.sleep(100)  # A worker is not blamed for what it is not let send.

    assert 3 * MIB < call.line.unread, "it was not read on"
    assert not call.answered
    assert 200 == (await yard.client.get("/health")).status
    yard.payloads.moves.set()
    assert 200 == (await call).status
    assert 4 * MIB + 2 == yard.payloads.written
    await yard.close()


@pytest.mark.looptime
async def test_an_answer_that_has_begun_comes_whole_though_the_job_is_deleted_meanwhile(looptime: object) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        await worker.ask(done(ports, job_id, json.dumps({"output": "x" * (24 * MIB)}).encode()))
        client = await ports.connect(receive_bytes=4096)
        client.writer.transport.pause_reading()
        client.send(ports.request(GET, f"/status-sync/{job_id}"))
        await asyncio.sleep(1)
        assert 200 == (await asked(ports, ports.request(GET, f"/status/{job_id}?ttl=1000"))).status
        await asyncio.sleep(5)
        assert 404 == (await shown(ports, job_id)).status
        client.writer.transport.resume_reading()

        assert "x" * (24 * MIB) == (await client.reply()).json()["output"]


@pytest.mark.looptime
async def test_a_client_that_leaves_amid_a_large_result_is_forgotten(looptime: object) -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        await worker.ask(done(ports, job_id, json.dumps({"output": "x" * 24 * MIB}).encode()))
        client = await ports.connect(receive_bytes=4096)
        client.writer.transport.pause_reading()
        client.send(ports.request(GET, f"/status/{job_id}"))
        await asyncio.sleep(1)
        client.writer.transport.abort()
        await asyncio.sleep(1)

        assert await ports.lives()


async def test_a_client_of_http_1_0_gets_a_large_result_whole() -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        await worker.ask(done(ports, job_id, BODY))
        client = await ports.connect()
        client.send(ports.request(GET, f"/status/{job_id}").replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await client.rest()

        assert OUTPUT == json.loads(answer.partition(b"\r\n\r\n")[2])["output"]


async def test_what_strict_json_rejects_is_mended_in_a_large_result_too() -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        rows = ["[NaN, -Infinity, Infinity, 1]", r'"\ud800 \ud83d\ude00 é"'] * 20_000
        await worker.ask(done(ports, job_id, f'{{"output": [{", ".join(rows)}], "stopPod": false}}'.encode()))
        output = (await shown(ports, job_id)).json()["output"]

        assert 40_000 == len(output)
        assert all([None, None, None, 1] == row for row in output[::2])
        assert {"\ufffd \U0001f600 é"} == set(output[1::2])


@pytest.mark.parametrize(
    "body",
    [
        b'{"output": "%b"' % (b"x" * MIB),
        b'{"output": ["%b" "y"]}' % (b"x" * MIB),
        b'["%b"]' % (b"x" * MIB),
        b'{"output": %b}' % (b"[" * MIB),
        b"\x80" * MIB,
        b'{"output": 1%b}' % (b"0" * 2 * MIB),
    ],
    ids=["cut", "no comma", "no object", "deep", "binary", "long number"],
)
async def test_a_large_body_that_is_no_result_fails_the_job_and_says_why(body: bytes) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)

        assert 200 == (await worker.ask(done(ports, job_id, body))).status
        job = (await shown(ports, job_id)).json()
        assert "FAILED" == job["status"]
        assert "cannot be read as JSON" in job["error"]
        assert (0, {}) == (payloads.drafts, payloads.held)


async def test_a_failure_keeps_its_large_output_and_a_long_error_is_cut() -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        error = "é\\\n" * MIB
        body = json.dumps({"error": error, "output": OUTPUT}, ensure_ascii=False).encode()
        await worker.ask(done(ports, job_id, body))
        job = (await shown(ports, job_id)).json()

        assert ("FAILED", OUTPUT) == (job["status"], job["output"])
        assert job["error"].endswith(result_scan.CUT)
        assert error.startswith(job["error"].removesuffix(result_scan.CUT))
        assert MIB // 8 < len(job["error"]) < MIB


async def test_a_large_progress_update_is_shown_until_the_next() -> None:
    async with open_ports(LARGE) as ports:
        job_id, worker = await taken(ports)
        await worker.ask(done(ports, job_id, json.dumps({"output": OUTPUT, "status": "IN_PROGRESS"}).encode()))
        job = (await shown(ports, job_id)).json()
        assert ("IN_PROGRESS", OUTPUT) == (job["status"], job["output"])
        await worker.ask(done(ports, job_id, b'{"output": 1}'))

        assert 1 == (await shown(ports, job_id)).json()["output"]
        await ports.platform.spills.sweep()


async def test_a_large_result_that_is_no_longer_wanted_is_not_written() -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        await asked(ports, ports.request(POST, f"/cancel/{job_id}", b""))

        assert 200 == (await worker.ask(done(ports, job_id, BODY))).status
        assert (0, {}) == (payloads.written, payloads.held)
        assert "CANCELLED" == (await shown(ports, job_id)).json()["status"]


@pytest.mark.looptime
@pytest.mark.parametrize("keep_s", [0.0, 3600.0])
async def test_what_no_job_names_any_more_is_forgotten(looptime: object, keep_s: float) -> None:
    payloads = MemoryPayloads()
    async with open_ports(replace(LARGE, keep_s=keep_s), payloads=payloads) as ports:
        jobs = [await taken(ports) for _ in range(3)]
        for job_id, worker in jobs:
            await worker.ask(done(ports, job_id, BODY if job_id != jobs[1][0] else BODY[:-1] + b', "error": "no"}'))
        (expired, _), (retried, _), (kept, _) = jobs
        await asked(ports, ports.request(GET, f"/status/{kept}?ttl=600000"))
        await asked(ports, ports.request(GET, f"/status/{expired}?ttl=1000"))
        await asked(ports, ports.request(POST, f"/retry/{retried}", b""))
        await asyncio.sleep(70)

        assert {kept, expired} - (set() if keep_s else {expired}) == {held.job_id for held, _ in payloads.held.values()}
        assert OUTPUT == (await shown(ports, kept)).json()["output"]
        behind = await asked(ports, ports.request(GET, f"/requests/{expired}"))
        assert (200 if keep_s else 404) == behind.status
        assert (OUTPUT if keep_s else None) == behind.json().get("output")


@pytest.mark.looptime
async def test_what_is_still_coming_in_is_not_forgotten(looptime: object) -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, _ = await taken(ports)
        incoming = await ports.platform.spills.begin(EndpointId(ENDPOINT), JobId(job_id), WORKER)
        assert incoming is not None
        payload = await incoming.keep()
        await ports.platform.spills.sweep()
        assert b"" == payloads.load(payload)
        await incoming.close()
        await ports.platform.spills.sweep()

        with pytest.raises(NotFound):
            payloads.load(payload)


@pytest.mark.looptime
async def test_a_worker_that_leaves_once_its_result_is_whole_has_sent_it(looptime: object) -> None:
    yard = Yard(settings=LARGE)
    await yard.open()
    worker, job_id = await held(yard)
    yard.payloads.moves.clear()
    call = worker.done(job_id, BODY)
    await asyncio.sleep(0.01)
    assert 0 == call.line.unread
    assert "IN_PROGRESS" == (await yard.client.status(job_id))["status"], "it is not kept yet"
    call.leave()
    await asyncio.sleep(0)
    yard.payloads.moves.set()
    job = (await yard.client.get(f"/status-sync/{job_id}")).json()

    assert ("COMPLETED", OUTPUT) == (job["status"], job["output"])
    assert 0 == yard.payloads.drafts
    await yard.close()


async def test_a_result_whose_file_is_gone_is_said_to_be_lost() -> None:
    payloads = MemoryPayloads()
    async with open_ports(LARGE, payloads=payloads) as ports:
        job_id, worker = await taken(ports)
        await worker.ask(done(ports, job_id, BODY))
        payloads.held.clear()
        reply = await shown(ports, job_id)

        assert 404 == reply.status
        assert "is not there" in reply.error


@pytest.mark.parametrize("streams", [False, True])
async def test_an_openai_client_gets_a_large_result_up_to_a_bound(*, streams: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr("runyard.edge.openai.OUTPUT_BYTES_MAX", 4 * MIB)
    async with open_ports(LARGE) as ports:
        answers: list[bytes] = []
        for size in (2, 6):
            client = await ports.connect()
            client.send(ports.request(POST, "/openai/v1/x", json.dumps({"stream": streams}), "Connection: close"))
            worker = await ports.connect_worker()
            job_id = (await worker.ask(busy_poll(ports))).json()["id"]
            await worker.ask(done(ports, job_id, json.dumps({"output": {"text": "x" * size * MIB}}).encode()))
            answers.append(await client.rest())

        assert b"x" * 2 * MIB in answers[0]
        assert answers[0].startswith(b"HTTP/1.1 200")
        assert answers[1].startswith(b"HTTP/1.1 500")
        assert f"/v2/{ENDPOINT}/requests/{job_id}".encode() in answers[1]
