"""Sends eight jobs with the official client.

RUNPOD_ENDPOINT_BASE_URL=... RUNPOD_API_KEY=... python client.py ENDPOINT
"""

import os
import sys

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(sys.argv[1])
jobs = [endpoint.run({"input": {"item": item}}) for item in range(8)]
outputs = [job.output(timeout=300) for job in jobs]
print("items:", [output["item"] for output in outputs])
print("at once:", max(output["at_once"] for output in outputs))
