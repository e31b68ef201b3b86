"""A worker that lends its place: it says how to act in its stead, and then only stays alive."""

import json
import os
import time

names = (
    "RUNPOD_POD_ID",
    "RUNPOD_AI_API_KEY",
    "RUNPOD_WEBHOOK_GET_JOB",
    "RUNPOD_WEBHOOK_POST_OUTPUT",
    "RUNPOD_ENDPOINT_ID",
)
print(json.dumps({"BENCH_LENDS": "yes", **{name: os.environ[name] for name in names}}), flush=True)
while True:
    time.sleep(60)
