"""The handlers' side of a test's gate (tests/compat/gate.py): a handler waits at it until the test lets it go."""

import asyncio
import json
import os
import socket

WAIT_S_MAX = 150


def wait(job):
    """Blocks, as a plain handler does."""
    with socket.create_connection(("127.0.0.1", job["input"]["gate"]), timeout=WAIT_S_MAX) as connection:
        connection.sendall(_name(job))
        connection.recv(1)


async def wait_politely(job):
    """Lets others run meanwhile, and tells the gate when it is cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job["input"]["gate"])
    try:
        writer.write(_name(job))
        await reader.read(1)
    except asyncio.CancelledError:
        writer.write(b"cancelled\n")
        raise
    finally:
        writer.close()


def _name(job):
    guest = {"job": job["id"], "worker": os.environ["RUNPOD_POD_ID"], "pid": os.getpid()}
    return json.dumps(guest).encode() + b"\n"
