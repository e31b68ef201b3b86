"""A generator that yields `input["chunks"]`, then does `input["then"]`; AGGREGATE=1 collects what it yields."""

import os

import gate
import runpod
import tap

tap.listen()


def handler(job):
    asked = job["input"]
    yield from asked.get("chunks", ())
    if "calls" in asked:
        yield tap.calls()
    if "gate" in asked:
        gate.wait(job)
        yield "after the gate"
    if "bytes" in asked:
        yield "x" * asked["bytes"]
    if "raise" in asked:
        raise ValueError(asked["raise"])


runpod.serverless.start({"handler": handler, "return_aggregate_stream": os.environ.get("AGGREGATE") == "1"})
