"""A handler on the official SDK, left alone."""

import runpod

runpod.serverless.start({"handler": lambda job: job["input"]})
