"""No key, no answer: every route but `/healthz` and `/metrics` asks for an API key."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from runyard.api.replies import error_reply
from runyard.domain.errors import Unauthorized
from runyard.services.access import Access

OPEN_PATHS = frozenset({"/healthz", "/metrics"})
"""For probes and scrapers, which hold no key: they tell counts and endpoint ids, and nothing that opens anything."""


class Authentication:
    """Middleware that answers 401 itself, so that an unknown caller cannot tell which paths exist."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        try:
            self._access.authenticate(_authorization(scope))
        except Unauthorized as error:
            await error_reply(scope["path"], error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _authorization(scope: Scope) -> bytes | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for name, value in headers if name == b"authorization"), None)
