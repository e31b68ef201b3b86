"""What only real sockets show of the edge: delays, full buffers, clients that go, and an orderly end."""

import asyncio
import json
import socket

import pytest

from runyard.domain.job import JobState
from runyard.edge.listener import listening
from tests.builders import ENDPOINT, SECRET, WORKER
from tests.component.wire import GET, MIB, POST, SETTINGS, Ports, Wire, echo, open_ports

pytestmark = pytest.mark.looptime


def asgi(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: yard.test\r\n\r\n".encode()


async def submitted(ports: Ports, input: object = 1) -> str:
    body = json.dumps({"input": input})
    return (await (await ports.connect()).ask(ports.request(POST, "/run", body))).json()["id"]


async def state_of(ports: Ports, job_id: str) -> str:
    return (await (await ports.connect()).ask(ports.request(GET, f"/status/{job_id}"))).json()["status"]


async def test_an_answer_in_two_writes_waits_for_no_acknowledgement(looptime: object) -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        for _ in range(3):
            await wire.ask(asgi("/anything"))

        # A delayed acknowledgement is 40 ms of real time, in which this loop's clock would run far ahead.
        assert looptime == 0


async def test_a_thousand_pipelined_requests_are_answered_in_order() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        ids = [f"job-{number}" for number in range(1000)]
        wire.send(b"".join(ports.request(GET, f"/status/{id}") for id in ids))

        for id in ids:
            assert f"job {id} " in (await wire.reply()).error
        assert await ports.lives()


async def test_a_thousand_wishes_for_another_protocol_are_passed_over_one_by_one() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        wish = ("Connection: upgrade", "Upgrade: h2c")
        wire.send(b"".join(ports.request(GET, f"/status/job-{number}", None, *wish) for number in range(1000)))

        for number in range(1000):
            assert f"job job-{number} " in (await wire.reply()).error
        assert await ports.lives()


@pytest.mark.parametrize("target", ["elsewhere:443", f"/v2/{ENDPOINT}/health"])
async def test_a_request_for_a_tunnel_is_refused(target: str) -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        reply = await wire.ask(f"CONNECT {target} HTTP/1.1\r\nHost: yard.test\r\n\r\n")

        assert "this is no proxy: CONNECT is not served here" == reply.error
        assert await wire.is_closed()
        assert await ports.lives()


async def test_hot_and_other_requests_share_a_pipeline_in_order() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        for number in range(100):
            wire.send(asgi(f"/slow/{number}" if number == 7 else f"/{number}"))
            wire.send(ports.request(POST, "/run", '{"input":1}'))
            wire.send(ports.request(POST, "/nothing", "12345"))
        for number in range(100):
            first, run, last = await wire.reply(), await wire.reply(), await wire.reply()

            assert first.json()["path"].endswith(f"/{number}")
            assert "IN_QUEUE" == run.json()["status"]
            assert (POST, 5) == (last.json()["method"], last.json()["body"])


async def test_what_was_pipelined_behind_a_held_request_waits_for_it(looptime: object) -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        wire.send(ports.request(POST, "/runsync?wait=3000", '{"input":1}'))
        wire.send(ports.request(GET, "/health"))
        wire.send(asgi("/last"))
        replies = [await wire.reply() for _ in range(3)]

        assert ["status", "jobs", "path"] == [
            next(key for key in ("status", "jobs", "path") if key in reply.json()) for reply in replies
        ]
        assert looptime == 3


async def test_a_client_that_says_it_sends_no_more_still_gets_its_answer() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        wire.send(ports.request(POST, "/run", '{"input":1}'))
        wire.half_close()

        assert 200 == (await wire.reply()).status
        assert await wire.is_closed()


async def test_a_body_cut_short_is_no_request() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        wire.send(ports.request(POST, "/run", '{"input":1}')[:-1])
        wire.half_close()

        assert await wire.is_closed()
        assert 0 == (await ports.platform.jobs.counts(ENDPOINT)).in_queue


async def test_a_worker_that_resets_its_connection_gets_no_job() -> None:
    async with open_ports() as ports:
        wire = await ports.connect_worker()
        wire.send(ports.poll())
        await asyncio.sleep(1)
        wire.writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        wire.writer.transport.abort()
        await asyncio.sleep(0.1)

        assert "IN_QUEUE" == await state_of(ports, await submitted(ports))


async def test_a_job_handed_out_is_read_once_and_whole(looptime: object) -> None:
    async with open_ports() as ports:
        wire = await ports.connect_worker()
        wire.send(ports.poll())
        await asyncio.sleep(1)
        text = "x" * (MIB // 2)
        job_id = await submitted(ports, text)
        job = (await wire.reply()).json()

        assert (job_id, text) == (job["id"], job["input"])
        assert looptime == 1
        assert JobState.IN_PROGRESS == await state_of(ports, job_id)


async def big_reply(ports: Ports) -> tuple[Wire, bytes]:
    """A client that reads nothing, and the request for an answer of many megabytes that it has not sent."""
    job_id = await submitted(ports)
    worker = await ports.connect_worker()
    await worker.ask(ports.poll())
    result = json.dumps({"output": "x" * (24 * MIB)})
    await worker.ask(ports.request(POST, f"/job-done/{WORKER}/{job_id}?isStream=false", result, key=SECRET))
    return await ports.connect(receive_bytes=4096), ports.request(GET, f"/status/{job_id}")


LARGE = SETTINGS.__class__(result_bytes_max=32 * MIB)


async def test_a_client_that_does_not_read_holds_up_nobody_and_is_cut_off_in_the_end(looptime: object) -> None:
    async with open_ports(LARGE) as ports:
        wire, request = await big_reply(ports)
        wire.writer.transport.pause_reading()
        wire.send(request)
        await asyncio.sleep(50)
        assert await ports.lives()
        await asyncio.sleep(30)
        wire.writer.transport.resume_reading()

        assert len(await wire.rest()) < 24 * MIB
        assert await ports.lives()


async def test_a_client_that_reads_slowly_gets_all(looptime: object) -> None:
    async with open_ports(LARGE) as ports:
        wire, request = await big_reply(ports)
        wire.send(request)
        read = 0
        while read < 24 * MIB:
            read += len(await wire.reader.readexactly(MIB))  # Nobody else reads: it pauses when it has that much.
            await asyncio.sleep(10)

        assert looptime > 200
        assert await ports.lives()


async def test_held_requests_are_answered_as_they_stand_when_the_port_closes(looptime: object) -> None:
    async with open_ports() as ports:
        extra = socket.create_server(("127.0.0.1", 0))
        async with listening(extra, ports.platform.job_routes.paths, echo):
            sock = socket.create_connection(extra.getsockname())
            wire = Wire(*await asyncio.open_connection(sock=sock))
            wire.send(ports.request(POST, "/runsync", '{"input":1}'))
            await asyncio.sleep(0.5)
        reply = await wire.reply()

        assert (200, "IN_QUEUE", "close") == (reply.status, reply.json()["status"], reply.headers["connection"])
        assert looptime < 2
        assert await wire.is_closed()
        wire.leave()
