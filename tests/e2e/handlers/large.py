"""Results of any size: a list of `{"n", "text"}`, or one string."""

import runpod


def handler(job):
    wanted = job["input"]
    size = wanted["bytes"]
    if wanted.get("as") == "string":
        return "abcd" * (size // 4)
    text = '\\ " é [{,}]' * 400
    return [{"n": n, "text": text} for n in range(max(1, size // 5000))]


runpod.serverless.start({"handler": handler})
