"""The requests of the data plane as values, and what their answers mean; no I/O, so that both faces share them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from runyard.client.errors import ApiError, ClientError

CALL_TIMEOUT_S = 30.0
BAD_REQUEST = 400
WAIT_MAX_S = 300.0
"""Longest that the platform holds one request; longer waits are several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `timeout_s` bounds the wait for each piece of the answer."""

    method: str
    path: str
    body: Any = None
    """Sent as JSON, unless None."""
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = CALL_TIMEOUT_S


def run(endpoint_id: str, input: Any, options: Mapping[str, Any]) -> Call:
    return Call(method="POST", path=_path(endpoint_id, "run"), body=_request(input, options))


def run_sync(endpoint_id: str, input: Any, options: Mapping[str, Any], wait_s: float) -> Call:
    return Call(
        method="POST",
        path=_path(endpoint_id, "runsync"),
        body=_request(input, options),
        query=_wait(wait_s),
        timeout_s=wait_s + CALL_TIMEOUT_S,
    )


def status(endpoint_id: str, job_id: str) -> Call:
    return Call(method="GET", path=_path(endpoint_id, "status", job_id))


def detail(endpoint_id: str, job_id: str) -> Call:
    """The status with the input and the attempts that gave no result."""
    return Call(method="GET", path=_path(endpoint_id, "requests", job_id))


def wait(endpoint_id: str, job_id: str, wait_s: float) -> Call:
    """The status as soon as the job has ended, or else after `wait_s`."""
    path = _path(endpoint_id, "status-sync", job_id)
    return Call(method="GET", path=path, query=_wait(wait_s), timeout_s=wait_s + CALL_TIMEOUT_S)


def stream(endpoint_id: str, job_id: str) -> Call:
    """The next chunks; held for some seconds when there are none yet."""
    return Call(method="GET", path=_path(endpoint_id, "stream", job_id))


def cancel(endpoint_id: str, job_id: str) -> Call:
    return Call(method="POST", path=_path(endpoint_id, "cancel", job_id))


def retry(endpoint_id: str, job_id: str) -> Call:
    return Call(method="POST", path=_path(endpoint_id, "retry", job_id))


def purge(endpoint_id: str) -> Call:
    return Call(method="POST", path=_path(endpoint_id, "purge-queue"))


def health(endpoint_id: str) -> Call:
    return Call(method="GET", path=_path(endpoint_id, "health"))


def check(status: int, content: bytes) -> None:
    """Raises `ApiError`, with the platform's own words, when the answer is one."""
    if status < BAD_REQUEST:
        return
    if not content:  # The answer to a HEAD has no words.
        raise ApiError(status, f"the platform answered HTTP {status}")
    try:
        said = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ApiError(status, f"the answer was HTTP {status}, and not Runyard's: is RUNYARD_URL right?") from None
    problems = tuple(str(problem) for problem in said.get("errors") or ())
    raise ApiError(status, str(said.get("detail") or said.get("error") or f"HTTP {status}"), problems)


def decode(content: bytes, shape: Any) -> Any:
    """The answer as `shape`. Raises `ClientError` when it is something else."""
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ClientError(f"the answer is not one of Runyard's ({error}): is RUNYARD_URL right?") from error


def _path(endpoint_id: str, *rest: str) -> str:
    return "/".join(("/v2", *(quote(part, safe="") for part in (endpoint_id, *rest))))


def _request(input: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"input": input} | {name: value for name, value in options.items() if value is not None}


def _wait(seconds: float) -> dict[str, str]:
    return {"wait": str(round(min(seconds, WAIT_MAX_S) * 1000))}


class Deadline:
    """A wait cut into pieces that the platform holds. None never passes."""

    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def next_wait_s(self) -> float:
        left = self.left_s()
        return WAIT_MAX_S if left is None else min(left, WAIT_MAX_S)

    def passed(self) -> bool:
        return self.left_s() == 0
