"""What takes long, begun before the first test and looked at by the last ones (conftest.py)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.compat.platform import Endpoint, Platform

LOST = ("SIGKILL", "not JSON")
"""Ways to lose a result that meet a job each time it is tried."""
HELD_S = 93.0
"""Longer than `/runsync` waits by itself."""


@dataclass(frozen=True)
class Doomed:
    """A job that never gets its result through, alone on its endpoint."""

    endpoint: Endpoint
    job_id: str

    @classmethod
    def begin(cls, platform: Platform, way: str) -> Doomed:
        endpoint = platform.deploy("outcomes.py", f"doomed by {way}", "--workers-max", "1")
        return cls(endpoint, endpoint.run({"do": way}))


@dataclass(frozen=True)
class Held:
    """A `run_sync` of the official client that outlasts the wait of `/runsync`. Its worker has room for three jobs."""

    endpoint: Endpoint
    output: Future[Any] = field(default_factory=Future)
    began: float = field(default_factory=time.monotonic)
    replies: list[requests.Response] = field(default_factory=list)
    """What the client got, in order."""
    heads: list[float] = field(default_factory=list)
    """When it got their heads: seconds since it asked."""
    beside: list[str] = field(default_factory=list)
    """Two short jobs that wait for the same worker."""

    @classmethod
    def begin(cls, platform: Platform) -> Held:
        flags = ("--workers-max", "1", "--idle-timeout", "600", "--env", "CONCURRENCY=3")
        held = cls(platform.deploy("awaited.py", "held", *flags))
        session = held.endpoint.sdk.rp_client.rp_session
        session.hooks["response"].append(held._got)
        threading.Thread(target=held._call, daemon=True).start()
        beside = Endpoint(platform, held.endpoint.id)
        held.beside.extend(beside.run({"do": "return", "value": number}) for number in range(2))
        return held

    def _got(self, response: requests.Response, **_: Any) -> None:
        self.replies.append(response)
        self.heads.append(time.monotonic() - self.began)

    def _call(self) -> None:
        try:
            self.output.set_result(self.endpoint.sdk.run_sync({"input": {"do": "sleep", "seconds": HELD_S}}))
        except Exception as error:  # noqa: BLE001  Whoever looks at the future gets it.
            self.output.set_exception(error)


def begin_idling(platform: Platform) -> Endpoint:
    """An endpoint whose one worker has nothing to do."""
    return platform.deploy("awaited.py", "idle", "--workers-min", "1", "--workers-max", "1")
