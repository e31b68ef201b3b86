"""A plain handler that can end in every way there is: `input["do"]` says how."""

import os
import signal
import sys
import time
from pathlib import Path

import gate
import runpod

WORKER = os.environ["RUNPOD_POD_ID"]

seen = []


def handler(job):
    asked = job["input"]
    seen.append(job["id"])
    if asked.get("only_on", WORKER) != WORKER:
        return {"survived_on": WORKER}
    return WAYS[asked["do"]](job)


def progress(job):
    runpod.serverless.progress_update(job, job["input"]["value"])
    gate.wait(job)
    return "done"


def wait(job):
    gate.wait(job)
    return job["input"].get("value")


def boom(job):
    raise ValueError(job["input"]["value"])


def fail_once(job):
    return "second time" if job["id"] in seen[:-1] else {"error": "not yet", "kept": 1}


def sleep(job):
    time.sleep(job["input"]["seconds"])


def worker(job):
    """What is left of earlier jobs, and what the worker knows of itself."""
    left = sorted(path.name for path in Path().glob("left-by-*"))
    Path(f"left-by-{job['id']}").touch()
    print(f"here is {job['id']}")  # noqa: T201
    return {"id": WORKER, "seen": seen[:-1], "left": left, "endpoint": os.environ["RUNPOD_ENDPOINT_ID"]}


WAYS = {
    "return": lambda job: job["input"]["value"],
    "job": lambda job: job,
    "s3": lambda job: job["s3Config"],
    "raise": boom,
    "wait": wait,
    "fail once": fail_once,
    "sleep": sleep,
    "progress": progress,
    "worker": worker,
    "order": lambda job: len(seen),
    "not a number": lambda job: {"nan": float("nan"), "infinities": [float("inf"), -float("inf")], "one": 1.5},
    "not JSON": lambda job: object(),
    "sys.exit": lambda job: sys.exit(3),
    "os._exit": lambda job: os._exit(3),
    "SIGKILL": lambda job: os.kill(os.getpid(), signal.SIGKILL),
}

runpod.serverless.start({"handler": handler})
