"""`/v2/keys`: our own routes, since the original manages keys in its console only (contract H.1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.bodies import decode_body
from runyard.api.replies import no_content, reply
from runyard.api.routing import resource
from runyard.api.views import key_view
from runyard.services.access import Access
from runyard.wire import control as wire


class Keys:
    """Any key may make, list and revoke keys: permissions come with a later release."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def routes(self) -> list[BaseRoute]:
        return [
            resource("/v2/keys", GET=self.list, POST=self.create),
            resource("/v2/keys/{id}", DELETE=self.revoke),
        ]

    async def list(self, request: Request) -> Response:
        return reply(wire.KeyList([key_view(key) for key in self._access.list()]))

    async def create(self, request: Request) -> Response:
        body = await decode_body(request, wire.CreateKeyRequest)
        key, secret = await self._access.create(body.name)
        shown = key_view(key)
        return reply(wire.CreatedKey(id=shown.id, name=shown.name, createdAt=shown.createdAt, key=secret), 201)

    async def revoke(self, request: Request) -> Response:
        await self._access.revoke(request.path_params["id"])
        return no_content()
