"""Errors as OpenAI clients read them: `{"error": {"message", "type", "param", "code"}}` under a fitting status.

A worker's own error should reach the client as it was meant: a prompt that is too long is a 400 of the engine's, not a 500
of ours. It gets here in one of these shapes:

1. as a result, or a first chunk, that is an error: `{"error": {...}}`, or `{"object": "error", ...}`;
2. as the error of a failed job. The official SDK makes text of an object there, as Python writes it;
3. as text that quotes the engine's answer, `vLLM returned HTTP 400: {...}`, as worker-vllm has it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec

from runyard.domain.errors import RunyardError
from runyard.domain.job import Job, JobState
from runyard.edge import bodies
from runyard.edge.exchange import STATUS_LINES
from runyard.wire.openai import ErrorBody, ErrorDetail

LITERAL_CHARS_MAX = 16 * 1024
_QUOTED = re.compile(r"\S+ returned HTTP (?P<status>[45]\d\d): (?P<said>.*)", re.DOTALL)
_AGAIN = frozenset({429, 503})
"""What may well go better the next time."""


class Problem(NamedTuple):
    """An error for an OpenAI client."""

    status: int
    detail: ErrorDetail

    @property
    def body(self) -> bytes:
        return bodies.encode(ErrorBody(self.detail))

    @property
    def headers(self) -> bytes:
        """OpenAI clients repeat a request that failed with 409 or 5xx; a job that has failed would only run again."""
        if self.status in _AGAIN:
            return b"retry-after: 1\r\n"
        return b"x-should-retry: false\r\n" if self.status >= 409 else b""


def error_body(error: RunyardError) -> bytes:
    """The body of an error of the platform's own."""
    code = "invalid_api_key" if error.status == 401 else error.code
    return problem(error.status, error.message, code).body


def problem(status: int, message: str, code: object, type: str | None = None, param: object = None) -> Problem:
    return Problem(status, ErrorDetail(message, type or _type(status), param, code))


def of_job(job: Job) -> Problem:
    """Why a job that has not completed has no answer."""
    match job.state:
        case JobState.CANCELLED:
            return problem(409, f"job {job.id} was cancelled", "job_cancelled")
        case JobState.TIMED_OUT:
            return problem(504, f"job {job.id}: {job.error}", "job_timed_out")
        case _:
            return _of_text(job.error or f"job {job.id} is {job.state}")


def in_result(result: bytes) -> Problem | None:
    """The error that a worker's JSON value is, if it is one."""
    if not result.startswith(b"{") or b'"error"' not in result:
        return None
    try:
        value = msgspec.json.decode(result)
    except (msgspec.DecodeError, RecursionError):
        return None
    inner = value.get("error")
    if isinstance(inner, str) and inner:
        return _of_text(inner)
    if isinstance(inner, dict):
        return _of_object(cast("dict[str, Any]", inner))
    return _of_object(value) if value.get("object") == "error" else None


def _of_text(text: str) -> Problem:
    if (value := _literal(text)) is not None:
        return _of_object(value)
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return problem(500, text, "job_failed")
    status = _status(int(quoted["status"]))
    said = in_result(quoted["said"].encode())
    return problem(status, quoted["said"], None) if said is None else Problem(status, said.detail)


def _of_object(value: Mapping[str, Any]) -> Problem:
    inner = value.get("error")
    if isinstance(inner, dict):
        value = cast("dict[str, Any]", inner)
    message, code, type = value.get("message"), value.get("code"), value.get("type")
    if not isinstance(message, str):
        return problem(500, bodies.encode(dict(value)).decode(), "job_failed")
    if _QUOTED.fullmatch(message):
        return _of_text(message)
    status = _status(code if isinstance(code, int) else 500)
    return problem(status, message, code, type if isinstance(type, str) else None, value.get("param"))


def _literal(text: str) -> dict[str, Any] | None:
    """The object that Python wrote as this text."""
    if not text.startswith("{") or len(text) > LITERAL_CHARS_MAX:
        return None
    try:
        value: object = ast.literal_eval(text)
        bodies.encode(value)  # As it may have to be shown whole.
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _status(status: int) -> int:
    return status if 400 <= status < 600 and status in STATUS_LINES else 500


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
