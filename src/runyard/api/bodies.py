"""Request bodies of the control plane: read with a bound, decoded with an explanation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request

from runyard.domain.errors import BadRequest, TooLarge, Unprocessable

BODY_BYTES_MAX = 1 << 20
_LENGTH_DIGITS_MAX = 18
_T = TypeVar("_T")
_PATH = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?\Z", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)


async def decode_body(request: Request, shape: type[_T]) -> _T:
    """The body as `shape`.

    Raises `TooLarge` over 1 MiB, `BadRequest` when it is no JSON, `Unprocessable` when it breaks the shape; the problem
    names the property by its path from `$`, the root (contract G.0, F157).
    """
    return decode(await read_body(request), shape)


async def read_body(request: Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The whole body. Raises `TooLarge`, before reading when the length is declared."""
    check_declared_length(request.headers, bytes_max)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(body)


def check_declared_length(headers: Mapping[str, str], bytes_max: int) -> None:
    """Raises `TooLarge` when the request says that its body is larger."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > _LENGTH_DIGITS_MAX or int(declared) > bytes_max):
        raise _too_large(bytes_max)


def decode(body: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _unprocessable(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error


def _unprocessable(said: str) -> Unprocessable:
    found = _PATH.match(said)
    assert found is not None
    problem = f"{found['path'] or '$'}: {_in_schema_words(found['what'])}"
    return Unprocessable(f"the body does not have the documented shape: {problem}", (problem,))


def _in_schema_words(what: str) -> str:
    """As JSON Schema validators, and so the original's clients, say it."""
    if unknown := _UNKNOWN.match(what):
        return f"additional properties '{unknown[1]}' not allowed"
    if missing := _MISSING.match(what):
        return f"missing property '{missing[1]}'"
    return what[:1].lower() + what[1:]


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"the body is larger than {bytes_max} bytes")
