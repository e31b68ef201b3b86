"""The requests of the data plane as values, and what their answers mean; no I/O, so that both faces share them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from runyard.client.errors import ApiError, ClientError, ConnectionLost

CALL_TIMEOUT_S = 30.0
BAD_REQUEST = 400
RETRY_AFTER_S = (0.1, 0.5, 2.0, 5.0)
"""Pauses before a call is sent again whose connection was lost; then it has failed."""
WAIT_MAX_S = 300.0
"""Longest that the platform holds one request; longer waits are several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `timeout_s` bounds the wait for each piece of the answer."""

    method: str
    path: str
    body: Any = field(default=None, repr=False)
    """Sent as JSON, unless None."""
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = CALL_TIMEOUT_S
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    until: Deadline | None = None
    """The platform may hold the answer until then; `timeout_s` comes on top of that."""
    repeatable: bool = False
    """Whether sending it twice does what sending it once does."""

    @property
    def params(self) -> dict[str, str]:
        """The query as it is now."""
        return dict(self.query) | ({} if self.until is None else _wait(self.until.next_wait_s()))

    @property
    def patience_s(self) -> float:
        """How long each piece of the answer may take."""
        return self.timeout_s + (0.0 if self.until is None else self.until.next_wait_s())


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request to run a job. It always has a name, so that it can be sent again when its answer was lost: `id`, the job's
    own, or else a key; a random one unless the caller has one. Raises `ClientError` for both.
    """

    input: Any
    webhook: str | None = None
    policy: Mapping[str, Any] | None = None
    s3_config: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if self.id is None and self.idempotency_key is None:
            object.__setattr__(self, "idempotency_key", str(uuid.uuid4()))
        elif self.id is not None and self.idempotency_key is not None:
            raise ClientError("give either idempotency_key or id, not both: each names the job")

    @property
    def body(self) -> dict[str, Any]:
        added = None if self.id is None else {"id": self.id}
        fields = {"webhook": self.webhook, "policy": self.policy, "s3Config": self.s3_config, "runyard": added}
        return {"input": self.input} | {name: value for name, value in fields.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.idempotency_key is None else {"Idempotency-Key": self.idempotency_key}


def run(endpoint_id: str, asked: Submission) -> Call:
    path = _path(endpoint_id, "run")
    return Call(method="POST", path=path, body=asked.body, headers=asked.headers, repeatable=True)


def run_sync(endpoint_id: str, asked: Submission, until: Deadline) -> Call:
    path = _path(endpoint_id, "runsync")
    return Call(method="POST", path=path, body=asked.body, headers=asked.headers, until=until, repeatable=True)


def status(endpoint_id: str, job_id: str) -> Call:
    return Call(method="GET", path=_path(endpoint_id, "status", job_id), repeatable=True)


def detail(endpoint_id: str, job_id: str) -> Call:
    """The status with the input and the attempts that gave no result."""
    return Call(method="GET", path=_path(endpoint_id, "requests", job_id), repeatable=True)


def wait(endpoint_id: str, job_id: str, until: Deadline) -> Call:
    """The status as soon as the job has ended, or else at the end of a piece of the wait."""
    return Call(method="GET", path=_path(endpoint_id, "status-sync", job_id), until=until, repeatable=True)


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


def _wait(seconds: float) -> dict[str, str]:
    return {"wait": str(round(min(seconds, WAIT_MAX_S) * 1000))}


class Retries:
    """Of one call, when its connection is lost: as often as `RETRY_AFTER_S` has pauses."""

    def __init__(self, call: Call) -> None:
        self._pauses = iter(RETRY_AFTER_S if call.repeatable else ())
        self._lost = False

    def pause_s(self, error: ClientError) -> float:
        """How long to wait before the call is sent again. Raises `error` when it is not to be.

        Where nothing has answered from the start, somebody has to be told; where a connection was lost, it may come back.
        """
        self._lost = self._lost or isinstance(error, ConnectionLost)
        pause_s = next(self._pauses, None) if self._lost else None
        if pause_s is None:
            raise error
        return pause_s


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
