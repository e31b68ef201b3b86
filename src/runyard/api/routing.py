"""Routes as resources: one path, its methods, and the right `Allow` for the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]


def resource(path: str, **handlers: Handler) -> Route:
    """A route by method name, `GET=...`; HEAD is answered as GET is unless it is named."""

    async def respond(request: Request) -> Response:
        handler = handlers.get(request.method) or handlers["GET"]
        return await handler(request)

    return Route(path, respond, methods=list(handlers))
