"""A stock worker that writes down what it does, synced, before and after: the log that outlives whoever is killed.

A job's input says how long it takes (`s`), whether it fails (`fail`) and what it answers (`token`), and has that so many
`times` (`pad`). GENERATES=1 makes it yield its answer in pieces. SIGUSR1 cuts the worker's connections as a bad network
does.
"""

import os
import signal
import socket
import struct
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

LOG = os.open(os.environ["CRASH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
WORKER = os.environ["RUNPOD_POD_ID"]


def note(event, job_id="-"):
    """One line, whole: a write to a file opened for appending is one step, and what is synced outlives this process."""
    os.write(LOG, f"{time.monotonic():.6f} {event} {job_id} {WORKER} {os.getpid()}\n".encode())
    os.fsync(LOG)


def cut(*_):
    """Reset every TCP connection, whatever is under way on it."""
    note("cut")
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(descriptor.name)))
            with sock:
                if sock.family == socket.AF_INET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RDWR)


signal.signal(signal.SIGUSR1, cut)
note("up")
# The SDK asks this package what the processor is called, which takes a second of both cores for each worker.
sys.modules["cpuinfo"] = types.SimpleNamespace(get_cpu_info=dict)

import asyncio  # noqa: E402

import runpod  # noqa: E402


def checked(asked):
    """An input that has come whole."""
    if asked["pad"] != asked["token"] * asked["times"]:
        raise ValueError(f"the input is not as it was sent: {len(asked['pad'])} bytes of {asked['token']}")
    return asked


async def plain(job):
    note("start", job["id"])
    asked = checked(job["input"])
    await asyncio.sleep(asked["s"])
    note("end", job["id"])
    if asked["fail"]:
        raise ValueError(f"asked to fail: {asked['token']}")
    return asked["token"]


async def generating(job):
    note("start", job["id"])
    asked = checked(job["input"])
    for piece in range(3):
        await asyncio.sleep(asked["s"] / 3)
        yield f"{asked['token']} {piece}"
    note("end", job["id"])
    if asked["fail"]:
        raise ValueError(f"asked to fail: {asked['token']}")


handler = generating if os.environ.get("GENERATES") == "1" else plain
runpod.serverless.start(
    {"handler": handler, "return_aggregate_stream": True, "concurrency_modifier": lambda current: 10}
)
