"""`/v2/registries`: credentials for registries of images (contract G.2)."""

from __future__ import annotations

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.bodies import decode_body
from runyard.api.replies import no_content, reply
from runyard.api.routing import resource
from runyard.domain import secret as domain
from runyard.domain.errors import BadRequest, NotFound
from runyard.services.registries import Registries
from runyard.wire import secrets as wire
from runyard.wire.times import rfc3339


class RegistryRoutes:
    """No route answers a user or a password."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    def routes(self) -> list[BaseRoute]:
        base = "/v2/registries"
        return [
            resource(base, GET=self.list, POST=self.create),
            resource(f"{base}/delegations", GET=self.delegations, POST=self.delegate),
            resource(f"{base}/delegations/{{id}}", DELETE=self.revoke),
            resource(f"{base}/{{id}}", GET=self.get, DELETE=self.delete),
        ]

    async def list(self, request: Request) -> Response:
        return reply(wire.RegistryList([_view(registry) for registry in await self._registries.list()]))

    async def create(self, request: Request) -> Response:
        body = await decode_body(request, wire.CreateRegistryRequest)
        server = None if body.runyard is UNSET or body.runyard.server is UNSET else body.runyard.server
        return reply(_view(await self._registries.create(body.name, body.username, body.password, server)), 201)

    async def get(self, request: Request) -> Response:
        return reply(_view(await self._registries.get(request.path_params["id"])))

    async def delete(self, request: Request) -> Response:
        await self._registries.delete(request.path_params["id"])
        return no_content()

    async def delegations(self, request: Request) -> Response:
        return reply(wire.DelegationList([]))

    async def delegate(self, request: Request) -> Response:
        raise BadRequest(
            "delegations are between AWS and the hosted service: create a registry credential with the registry's own token "
            "instead (`aws ecr get-login-password`)"
        )

    async def revoke(self, request: Request) -> Response:
        raise NotFound(f"there is no delegation {request.path_params['id'][:80]!r}: this platform has none")


def _view(registry: domain.Registry) -> wire.Registry:
    return wire.Registry(
        registry.id, registry.name, wire.RegistryRunyard(registry.server, rfc3339(registry.created_at))
    )
