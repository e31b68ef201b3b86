"""A program that uses the official client. Nothing in it knows about Runyard; the environment does.

RUNPOD_ENDPOINT_BASE_URL=http://127.0.0.1:8000/v2 RUNPOD_API_KEY=... python client.py ENDPOINT
"""

import os
import sys

import runpod

runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(sys.argv[1])
print(endpoint.run_sync({"input": {"name": "Ada"}}, timeout=300))
