"""A worker in plain Python that speaks the worker protocol on one kept connection, and never gets another one.

It says what it does, and ends with 3 when the connection breaks, unless TOLERANT is set. A job's input says how long it
takes (`s`), what the worker prints meanwhile (`say`, `flood`, `counts`), in which file it notes that it has begun (`notes`),
whether it ends then (`exits`, with that code), and which variable it prints and gives the digest of (`shows`).
"""

import hashlib
import http.client
import json
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

WORKER = os.environ["RUNPOD_POD_ID"]
TAKE = urlsplit(os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", WORKER))
DONE = urlsplit(os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", WORKER))
HEADERS = {"Authorization": os.environ["RUNPOD_AI_API_KEY"]}
CONNECTION_ERRORS = (OSError, http.client.HTTPException)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"up {os.getpid()}")
    connection = http.client.HTTPConnection(TAKE.netloc, timeout=100)
    while True:
        status, body = ask(connection, "GET", f"{TAKE.path}?{TAKE.query}&job_in_progress=0")
        if status == 200:
            job = json.loads(body)
            work(job["input"])
            path = f"{DONE.path}?{DONE.query}&isStream=false".replace("$ID", job["id"])
            output = {"worker": WORKER, "pid": os.getpid()} | shown(job["input"])
            ask(connection, "POST", path, json.dumps({"output": output}))
            print(f"did {job['id']}")


def work(input):
    if "notes" in input:
        with Path(input["notes"]).open("a") as notes:
            notes.write("begun\n")
    if "say" in input:
        print(input["say"])
    for number in range(input.get("flood", 0)):
        print(f"flood {number} {'x' * 80}")
    if "counts" in input:
        for number in range(int(input["s"] * 100)):
            print(f"count {number}")
            time.sleep(0.01)
    else:
        time.sleep(input.get("s", 0))
    if "exits" in input:
        os._exit(input["exits"])


def shown(input):
    if "shows" not in input:
        return {}
    value = os.environ[input["shows"]]
    print(f"{input['shows']} is {value}")
    return {"digest": hashlib.sha256(value.encode()).hexdigest()}


def ask(connection, method, path, body=None):
    while True:
        try:
            if connection.sock is None and "TOLERANT" not in os.environ and hasattr(connection, "used"):
                raise http.client.HTTPException("the platform has closed the connection")
            connection.request(method, path, body, HEADERS)
            connection.used = True
            answer = connection.getresponse()
            return answer.status, answer.read()
        except CONNECTION_ERRORS as error:
            print(f"broken: {error!r}")
            if "TOLERANT" not in os.environ:
                sys.exit(3)
            connection.close()


main()
