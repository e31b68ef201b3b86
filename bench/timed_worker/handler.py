"""A worker that speaks the worker protocol with what Python brings along, and answers when its handler has started."""

import http.client
import json
import os
import time
from urllib.parse import urlsplit

WORKER = os.environ["RUNPOD_POD_ID"]
TAKE = urlsplit(os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", WORKER))
DONE = urlsplit(os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", WORKER))
HEADERS = {"Authorization": os.environ["RUNPOD_AI_API_KEY"]}

connection = http.client.HTTPConnection(TAKE.netloc)


def call(method, path, body=None):
    connection.request(method, path, body, HEADERS)
    return connection.getresponse().read()


while True:
    if taken := call("GET", f"{TAKE.path}?{TAKE.query}&job_in_progress=0"):
        output = json.dumps({"output": {"at": time.time()}})
        done = f"{DONE.path}?{DONE.query}&isStream=false".replace("$ID", json.loads(taken)["id"])
        call("POST", done, output)
