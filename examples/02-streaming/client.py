"""Reads a stream with the official client.

RUNPOD_ENDPOINT_BASE_URL=... RUNPOD_API_KEY=... python client.py ENDPOINT
"""

import os
import sys

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
job = runpod.Endpoint(sys.argv[1]).run({"input": {"text": "one two three"}})
for piece in job.stream():
    print(piece)
print("output:", job.output())
