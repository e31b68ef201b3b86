"""A worker that speaks the worker protocol over raw sockets: no SDK, no sleeps, a handler that does nothing.

It shows what the platform costs. It takes jobs in batches over one connection, as a worker of concurrency N does, and
sends results over another, several in one write when several are ready. BENCH_CORE pins it, BENCH_CONCURRENCY is N.
"""

import asyncio
import os
from urllib.parse import urlsplit

WORKER = os.environ["RUNPOD_POD_ID"]
SECRET = os.environ["RUNPOD_AI_API_KEY"]
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "64"))
TAKE = urlsplit(os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", WORKER))
DONE = urlsplit(os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", WORKER))
RESULT = b'{"output":{"ok":true}}'

_take_path = TAKE.path.replace("/job-take/", "/job-take-batch/")
_common = f"Host: {TAKE.netloc}\r\nAuthorization: {SECRET}\r\n"
TAKE_REQUEST = (
    f"GET {_take_path}?{TAKE.query}&batch_size={CONCURRENCY}&job_in_progress=1 HTTP/1.1\r\n{_common}\r\n".encode()
)
DONE_HEAD = f"POST {DONE.path}?{DONE.query}&isStream=false HTTP/1.1\r\n{_common}Content-Length: {len(RESULT)}\r\n\r\n"
DONE_BEFORE, DONE_AFTER = (part.encode() for part in DONE_HEAD.split("$ID"))


class Results(asyncio.Protocol):
    """Where results go; the answers say nothing new."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def send(self, job_ids: list[bytes]) -> None:
        self.transport.write(b"".join(DONE_BEFORE + job_id + DONE_AFTER + RESULT for job_id in job_ids))


class Takes(asyncio.Protocol):
    """One open poll after the other."""

    def __init__(self, results: Results, over: asyncio.Event) -> None:
        self.results, self.over, self.buffer = results, over, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(TAKE_REQUEST)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, _, body = self.buffer.partition(b"\r\n\r\n")
        if not body and not head.startswith(b"HTTP/1.1 204") and b"content-length: 0" not in head:
            return
        if not head.startswith(b"HTTP/1.1 204"):
            length = int(head[head.index(b"content-length: ") + 16 :].split(b"\r\n", 1)[0])
            if len(body) < length:
                return
            self.results.send([part[: part.index(b'"')] for part in body.split(b'{"id":"')[1:]])
        self.buffer = b""
        self.transport.write(TAKE_REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


async def main() -> None:
    if "BENCH_CORE" in os.environ:
        os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    _, results = await loop.create_connection(Results, TAKE.hostname, TAKE.port)
    await loop.create_connection(lambda: Takes(results, over), TAKE.hostname, TAKE.port)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(main())
