import asyncio

import runpod

running = 0


async def handler(job):
    """Waits, as for a model server or a database, and says how many jobs this worker had in hand meanwhile."""
    global running
    running += 1
    await asyncio.sleep(2)
    seen, running = running, running - 1
    return {"item": job["input"]["item"], "at_once": seen}


runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: 8})
