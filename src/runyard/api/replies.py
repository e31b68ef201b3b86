"""Answers: JSON bodies, and errors in the form that the route's plane has."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runyard.domain.endpoint import RESERVED_IDS
from runyard.domain.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    RunyardError,
    Unauthorized,
    Unprocessable,
)
from runyard.wire.control import Error, Problem

# The documented titles; what the standard library says depends on its version.
TITLES = {413: "Content Too Large", 422: "Unprocessable Entity"}
encode = msgspec.json.Encoder().encode


def reply(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(encode(body), status, media_type="application/json")


def no_content() -> Response:
    return Response(status_code=204)


def error_reply(path: str, error: RunyardError) -> Response:
    """Problem JSON on the control plane (RFC 9457, contract G.0), `{"error": ...}` everywhere else."""
    headers = _headers(error)
    if not _on_control_plane(path):
        return Response(encode(Error(error.message)), error.status, headers, "application/json")
    title = TITLES.get(error.status) or HTTPStatus(error.status).phrase
    problem = Problem(title, error.status, error.message)
    if isinstance(error, Unprocessable):
        problem.errors = list(error.problems)
    return Response(encode(problem), error.status, headers, "application/problem+json")


async def runyard_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RunyardError)
    return error_reply(request.scope["path"], error)


async def http_error(request: Request, error: Exception) -> Response:
    """What the router has to say: there is no such path, or no such method on it."""
    assert isinstance(error, HTTPException)
    return error_reply(request.scope["path"], _from_router(request, error))


async def client_left(request: Request, error: Exception) -> Response:
    """Nobody reads this, but something has to be said."""
    return error_reply(request.scope["path"], BadRequest("the client left before its body was whole"))


async def unexpected_error(request: Request, error: Exception) -> Response:
    """The server logs it with its story; the caller gets none of that."""
    return error_reply(request.scope["path"], RunyardError("something went wrong inside Runyard: its log says what"))


def _from_router(request: Request, error: HTTPException) -> RunyardError:
    match error.status_code:
        case 404:
            return NotFound("there is nothing at this path")
        case 405:
            allow = tuple(sorted((error.headers or {}).get("Allow", "").split(", ")))
            return MethodNotAllowed(f"this path does not know {request.method}: it knows {', '.join(allow)}", allow)
        case _:
            return BadRequest(error.detail)


def _headers(error: RunyardError) -> Mapping[str, str]:
    match error:
        case MethodNotAllowed(allow=allow):
            return {"Allow": ", ".join(allow)}
        case Unauthorized():
            return {"WWW-Authenticate": "Bearer"}
        case RunyardError(retry_after_s=int(seconds)):
            return {"Retry-After": str(seconds)}
        case _:
            return {}


def _on_control_plane(path: str) -> bool:
    segments = path.split("/", 3)
    return len(segments) > 2 and segments[1] == "v2" and segments[2] in RESERVED_IDS
