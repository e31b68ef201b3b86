"""An async handler that runs CONCURRENCY jobs at once, and knows which requests its SDK has made."""

import asyncio
import os

import gate
import runpod
import tap

tap.listen()


async def handler(job):
    asked = job["input"]
    match asked["do"]:
        case "return":
            await asyncio.sleep(0)
            return asked["value"]
        case "raise":
            await asyncio.sleep(0)
            raise ValueError(asked["value"])
        case "sleep":
            await asyncio.sleep(asked["seconds"])
            return "slept"
        case "wait":
            await gate.wait_politely(job)
            return asked.get("value")
        case "calls":
            return tap.calls()


concurrency = int(os.environ.get("CONCURRENCY", "1"))
runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: concurrency})
