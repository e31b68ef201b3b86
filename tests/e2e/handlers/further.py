"""`stock.py`, by way of the platform's address in a network of its workers, which is in FURTHER_WORKER_HOST."""

import os

for name, value in os.environ.items():
    if name.startswith("RUNPOD_WEBHOOK_"):
        os.environ[name] = value.replace("//127.0.0.1:", f"//{os.environ['FURTHER_WORKER_HOST']}:")

import stock  # noqa: E402, F401 - The SDK reads the variables when it is imported.
