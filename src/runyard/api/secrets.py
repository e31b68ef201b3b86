"""`/v2/secrets`: our own routes, since the original sets secrets in its console and over GraphQL only (contract E.1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.bodies import decode_body
from runyard.api.replies import no_content, reply
from runyard.api.routing import resource
from runyard.domain import secret as domain
from runyard.services.secrets import Secrets
from runyard.wire import secrets as wire
from runyard.wire.times import rfc3339


class SecretRoutes:
    """No route answers a value."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def routes(self) -> list[BaseRoute]:
        return [
            resource("/v2/secrets", GET=self.list),
            resource("/v2/secrets/rotate", POST=self.rotate),
            resource("/v2/secrets/{name}", PUT=self.set, DELETE=self.delete),
        ]

    async def list(self, request: Request) -> Response:
        return reply(wire.SecretList([_view(secret) for secret in await self._secrets.list()]))

    async def set(self, request: Request) -> Response:
        body = await decode_body(request, wire.SetSecretRequest)
        secret, new = await self._secrets.set(request.path_params["name"], body.value)
        return reply(_view(secret), 201 if new else 200)

    async def delete(self, request: Request) -> Response:
        await self._secrets.delete(request.path_params["name"])
        return no_content()

    async def rotate(self, request: Request) -> Response:
        secrets, registries = await self._secrets.rotate()
        return reply(wire.Rotated(secrets, registries))


def _view(secret: domain.Secret) -> wire.Secret:
    return wire.Secret(secret.name, rfc3339(secret.created_at), rfc3339(secret.updated_at))
