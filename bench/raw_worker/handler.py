"""A worker that speaks the worker protocol over one raw socket: no SDK, no event loop, a handler that does nothing.

It shows what the platform costs. It takes jobs in batches, as a worker of concurrency N does, and sends its results and the
next take in one write (HTTP pipelining). BENCH_CORE pins it, BENCH_CONCURRENCY is N.
"""

import os
import socket
from urllib.parse import urlsplit

WORKER = os.environ["RUNPOD_POD_ID"]
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "64"))
TAKE = urlsplit(os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", WORKER))
DONE = urlsplit(os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", WORKER))
HEADERS = f"Host: {TAKE.netloc}\r\nAuthorization: {os.environ['RUNPOD_AI_API_KEY']}\r\n"
RESULT = b'{"output":{"ok":true}}'
RESULT_TAKEN = b"\r\n\r\n{}"


def take_request(in_progress: int) -> bytes:
    path = TAKE.path.replace("/job-take/", "/job-take-batch/")
    query = f"{TAKE.query}&batch_size={CONCURRENCY}&job_in_progress={in_progress}"
    return f"GET {path}?{query} HTTP/1.1\r\n{HEADERS}\r\n".encode()


DONE_REQUEST = (
    f"POST {DONE.path}?{DONE.query}&isStream=false HTTP/1.1\r\n{HEADERS}Content-Length: {len(RESULT)}\r\n\r\n"
)
BEFORE_ID, AFTER_ID = (part.encode() for part in DONE_REQUEST.split("$ID"))


class Answers:
    """Whole answers, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer = sock, b""

    def next_body(self) -> bytes:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self.more()
        head = self.buffer[:end]
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        while len(self.buffer) < end + 4 + length:
            self.more()
        body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
        return body

    def skip_results(self, count: int) -> None:
        """The answers to results are all the same."""
        while len(parts := self.buffer.split(RESULT_TAKEN, count)) <= count:
            self.more()
        self.buffer = parts[count]

    def more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise SystemExit("the platform has closed the connection")
        self.buffer += data


def main() -> None:
    if "BENCH_CORE" in os.environ:
        os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    sock = socket.create_connection((TAKE.hostname, TAKE.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers, take = Answers(sock), take_request(in_progress=0)
    sock.sendall(take)
    while True:
        jobs = [part[: part.index(b'"')] for part in answers.next_body().split(b'{"id":"')[1:]]
        sock.sendall(b"".join(BEFORE_ID + job + AFTER_ID + RESULT for job in jobs) + take)
        answers.skip_results(len(jobs))


if __name__ == "__main__":
    main()
