"""What an OpenAI client sends and reads, as far as the platform looks into it."""

from __future__ import annotations

from typing import Any

import msgspec


class AskedBody(msgspec.Struct):
    stream: bool | None = None


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: Any = None
    code: Any = None


class ErrorBody(msgspec.Struct):
    error: ErrorDetail
