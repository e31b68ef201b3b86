"""A stand-in for a model behind an OpenAI-compatible engine: it answers as worker-vllm does, word by word.

The prompt says what to do: a number of words, "wait" (at the gate named in the model's name), or an error.
"""

import asyncio
import json

import gate
import runpod

MODELS = {"object": "list", "data": [{"id": "parrot", "object": "model", "created": 1, "owned_by": "runyard"}]}
TOO_LONG = {
    "object": "error",
    "message": "prompt too long",
    "type": "BadRequestError",
    "param": "messages",
    "code": 400,
}


def _chunk(asked, delta, finish=None, **more):
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
    return "data: " + json.dumps({**body, "choices": choices, **more}) + "\n\n"


def _whole(asked, text):
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"]}
    return {**body, "choices": choices, "usage": usage}


async def handler(job):
    route, asked = job["input"]["openai_route"], job["input"].get("openai_input")
    if route == "/v1/models":
        yield MODELS
        return
    prompt = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
    if prompt == "too long":
        yield TOO_LONG if not asked.get("stream") else {"error": TOO_LONG}
        return
    if prompt == "crash":
        raise ValueError("the engine is broken")
    if not asked.get("stream"):
        if prompt.startswith("wait "):
            job["input"]["gate"] = int(prompt.split()[1])
            await gate.wait_politely(job)
        yield _whole(asked, f"You said: {prompt}")
        return
    async for text in _stream(job, asked, prompt):
        yield text


async def _stream(job, asked, prompt):
    yield _chunk(asked, {"role": "assistant", "content": ""})
    words = [_chunk(asked, {"content": word + " "}) for word in f"You said: {prompt}".split()]
    cut = len(words[0]) // 2
    yield words[0][:cut]  # As an engine's bytes arrive: cut anywhere.
    yield words[0][cut:] + "".join(words[1:])
    if prompt == "break":
        raise ValueError("the engine broke amid its answer")
    if prompt.startswith("wait "):
        job["input"]["gate"] = int(prompt.split()[1])
        await gate.wait_politely(job)
    await asyncio.sleep(0)
    yield _chunk(asked, {}, "stop")
    if prompt != "no end":
        yield "data: [DONE]\n\n"


runpod.serverless.start(
    {
        "handler": handler,
        "return_aggregate_stream": True,
        "concurrency_modifier": lambda _: 4,
    }
)
