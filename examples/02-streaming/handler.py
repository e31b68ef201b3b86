import time

import runpod


def handler(job):
    """Yields the words of a text as they are made; each piece goes out at once."""
    for word in job["input"]["text"].split():
        time.sleep(0.2)
        yield word.upper()


# Without `return_aggregate_stream` the pieces are only in the stream; with it they are the job's output, too.
runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
