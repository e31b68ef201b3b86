"""Writes down each request of the SDK in this process and of its ping process, once answered; the SDK stays as it is.

The two libraries that the SDK speaks HTTP with are wrapped. Both processes append to one file in the worker's folder.
"""

import json
import time
from pathlib import Path

import aiohttp
import requests

CALLS = Path("calls.jsonl")


def listen():
    aiohttp.ClientSession._request = _async_recorded(aiohttp.ClientSession._request)
    requests.Session.send = _recorded(requests.Session.send)


def calls():
    """All that were answered so far, oldest first: method, URL, headers and body sent, status, body got, and when."""
    return [json.loads(line) for line in CALLS.read_text().splitlines()]


def _async_recorded(request):
    async def recorded(self, method, url, **options):
        began = time.time()
        response = await request(self, method, url, **options)
        sent = {"method": method, "url": str(url), "body": options.get("data")}
        _write(sent, response.request_info.headers, began, response.status, await response.text())
        return response

    return recorded


def _recorded(send):
    def recorded(self, request, **options):
        began = time.time()
        response = send(self, request, **options)
        sent = {"method": request.method, "url": request.url, "body": None}
        _write(sent, request.headers, began, response.status_code, response.text)
        return response

    return recorded


def _write(sent, headers, began, status, text):
    call = {
        **sent,
        "content_type": headers.get("Content-Type"),
        "authorized": bool(headers.get("Authorization")),
        "began": began,
        "ended": time.time(),
        "status": status,
        "answer": text,
    }
    with CALLS.open("a") as file:
        file.write(json.dumps(call) + "\n")
