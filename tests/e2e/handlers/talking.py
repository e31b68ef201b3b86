"""A worker with the official SDK that writes what a job says to its two streams."""

import sys

import runpod


def handler(job):
    print(job["input"]["out"])
    print(job["input"]["err"], file=sys.stderr)
    return "said"


runpod.serverless.start({"handler": handler})
