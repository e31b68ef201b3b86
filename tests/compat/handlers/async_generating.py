"""An async generator that yields `input["chunks"]`; AGGREGATE=1 collects what it yields."""

import asyncio
import os

import gate
import runpod


async def handler(job):
    asked = job["input"]
    for chunk in asked["chunks"]:
        await asyncio.sleep(0)
        yield chunk
    if "gate" in asked:
        await gate.wait_politely(job)
        yield "after the gate"


runpod.serverless.start({"handler": handler, "return_aggregate_stream": os.environ.get("AGGREGATE") == "1"})
