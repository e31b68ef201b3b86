"""What can go wrong between a client and the platform.

ClientError
├── ApiError       the platform answered, and the answer is no
├── ConnectionLost the connection broke before the answer was there: nobody knows what became of the call
└── Unreachable    nothing answers at the URL
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import httpx2


class ClientError(Exception):
    """Base of what this package raises; the message is for people."""


class ApiError(ClientError):
    """The platform refused. `status` is the HTTP status; `problems` lists what breaks the schema, if that is it."""

    UNAUTHORIZED, NOT_FOUND = 401, 404

    def __init__(self, status: int, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems


class Unreachable(ClientError):
    """No connection could be made to `url`."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"nothing answers at {url} (RUNYARD_URL): is the platform running? Start it with `runyard serve`"
        )
        self.url = url


class ConnectionLost(ClientError):
    """The connection broke before the answer was there."""


@contextmanager
def client_errors(url: str) -> Generator[None]:
    """What the transport raises in this block comes out as `ClientError`."""
    try:
        yield
    except httpx2.ConnectError as error:
        raise Unreachable(url) from error
    except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
        raise ConnectionLost(_no_answer(url, error)) from error
    except httpx2.HTTPError as error:
        raise ClientError(_no_answer(url, error)) from error


def _no_answer(url: str, error: Exception) -> str:
    return f"{url} did not answer: {str(error) or type(error).__name__}"
