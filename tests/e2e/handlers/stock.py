"""A worker of the official SDK, unchanged. A job's input says how long it takes."""

import asyncio
import os

import runpod


async def handler(job):
    await asyncio.sleep(job["input"].get("s", 0))
    return {"worker": os.environ["RUNPOD_POD_ID"], "pid": os.getpid()}


runpod.serverless.start({"handler": handler})
