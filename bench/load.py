"""A load generator on raw sockets: closed loop, one request in flight per connection, only 2xx counted."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median
from urllib.parse import urlsplit


@dataclass(slots=True)
class Sample:
    """What one round of load saw. Latencies are seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    others: float = 0.0
    """Cores that were used by what does not belong to the measurement."""

    def record(self) -> dict[str, float]:
        return {
            "per_second": self.per_second,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "failed": self.failed,
            "others": self.others,
        }

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def p50_us(self) -> float:
        return median(self.latencies) * 1e6 if self.latencies else float("nan")

    @property
    def p99_us(self) -> float:
        ranked = sorted(self.latencies)
        return ranked[int(len(ranked) * 0.99)] * 1e6 if ranked else float("nan")


class Connection(asyncio.Protocol):
    """Sends `request` again whenever its answer is whole, until told to stop."""

    def __init__(self, request: bytes, sample: Sample) -> None:
        self.request, self.sample = request, sample
        self.buffer = b""
        self.stopped = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not whole(self.buffer):
            return
        if self.buffer.startswith(b"HTTP/1.1 2"):
            self.sample.latencies.append(time.perf_counter() - self.sent_at)
        else:
            self.sample.failed += 1
        self.buffer = b""
        if self.stopped:
            self.transport.close()
        else:
            self.send()


def whole(buffer: bytes) -> bool:
    """Whether the buffer holds one whole answer with a Content-Length."""
    head, found, body = buffer.partition(b"\r\n\r\n")
    if not found:
        return False
    at = head.lower().find(b"content-length: ")
    return at < 0 or len(body) >= int(head[at + 16 :].split(b"\r\n", 1)[0])


def post(url: str, key: str, body: bytes) -> bytes:
    """One POST request, as bytes."""
    parts = urlsplit(url)
    return (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def run(url: str, key: str, *, connections: int, seconds: float) -> Sample:
    """Load `url` with no-op requests."""
    parts = urlsplit(url)
    request = post(url, key, b'{"input":{"n":1}}')
    loop = asyncio.get_running_loop()
    warm_up = Sample(0.3)
    made = [
        (await loop.create_connection(lambda: Connection(request, warm_up), parts.hostname, parts.port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(warm_up.seconds)
    sample = Sample(seconds)
    for connection in made:
        connection.sample = sample
    await asyncio.sleep(seconds)
    for connection in made:
        connection.stopped = True
    late = Sample(seconds)
    for connection in made:
        connection.sample = late
    await asyncio.sleep(0.2)
    for connection in made:
        connection.transport.close()
    return sample
