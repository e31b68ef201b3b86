"""`/v2/bundles/{sha256}`: source bundles by digest, so that the same sources travel once (decision 6)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.bodies import check_declared_length
from runyard.api.replies import reply
from runyard.api.routing import resource
from runyard.api.services import Room
from runyard.domain.errors import BadRequest, NotFound
from runyard.ports.stores import Blobs
from runyard.wire.control import Bundle

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Bundles:
    """HEAD asks whether a bundle is here; PUT brings it: 201, or 200 when it was here already."""

    def __init__(self, blobs: Blobs, room: Room, bytes_max: int) -> None:
        self._blobs = blobs
        self._room = room
        self._bytes_max = bytes_max

    def routes(self) -> list[BaseRoute]:
        return [resource("/v2/bundles/{sha256}", HEAD=self.head, PUT=self.put)]

    async def head(self, request: Request) -> Response:
        digest = _digest(request)
        if not await self._blobs.exists(digest):
            raise NotFound(f"bundle {digest} is not here")
        return reply(Bundle(digest))

    async def put(self, request: Request) -> Response:
        digest = _digest(request)
        check_declared_length(request.headers, self._bytes_max)
        if await self._blobs.exists(digest):
            return reply(Bundle(digest))
        self._room.admit()
        await self._blobs.put(digest, _chunks(request), self._bytes_max)
        return reply(Bundle(digest), 201)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _digest(request: Request) -> str:
    digest: str = request.path_params["sha256"]
    if not _DIGEST.fullmatch(digest):
        raise BadRequest("a bundle is named by its SHA-256: 64 lower-case hex digits")
    return digest
