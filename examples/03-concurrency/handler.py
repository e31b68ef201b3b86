import asyncio

import runpod

in_hand = set()


async def handler(job):
    """Waits, as for a model server or a database, and says how many jobs this worker had in hand meanwhile."""
    in_hand.add(job["id"])
    await asyncio.sleep(2)
    at_once = len(in_hand)
    in_hand.remove(job["id"])
    return {"item": job["input"]["item"], "at_once": at_once}


runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: 8})
