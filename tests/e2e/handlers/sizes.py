"""How long a text is, and its SHA-256."""

import hashlib

import runpod


def handler(job):
    text = job["input"]["text"]
    return {"length": len(text), "digest": hashlib.sha256(text.encode()).hexdigest()}


runpod.serverless.start({"handler": handler})
