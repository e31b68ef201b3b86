import runpod


def handler(job):
    """Greets whoever the input names."""
    name = job["input"].get("name", "World")
    return {"greeting": f"Hello, {name}!"}


runpod.serverless.start({"handler": handler})
