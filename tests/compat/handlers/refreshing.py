"""A handler whose worker is fresh for every job."""

import os

import runpod

seen = []


def handler(job):
    seen.append(job["id"])
    if "raise" in job["input"]:
        raise ValueError(job["input"]["raise"])
    return {"worker": os.environ["RUNPOD_POD_ID"], "seen": seen[:-1]}


runpod.serverless.start({"handler": handler, "refresh_worker": True})
