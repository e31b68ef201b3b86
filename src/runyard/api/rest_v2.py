"""`/v2/serverless`: endpoints, their workers and releases (contract G.2)."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.bodies import decode_body
from runyard.api.changes import change, creation
from runyard.api.replies import no_content, reply
from runyard.api.routing import resource
from runyard.api.services import Services
from runyard.api.views import base_url, endpoint_view, release_list_view, worker_list_view
from runyard.domain import endpoint as domain
from runyard.wire import control as wire


class Serverless:
    """The routes over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._endpoints = services.endpoints

    def routes(self) -> list[BaseRoute]:
        return [
            resource("/v2/serverless", GET=self.list, POST=self.create),
            resource("/v2/serverless/{id}", GET=self.get, PATCH=self.update, DELETE=self.delete),
            resource("/v2/serverless/{id}/workers", GET=self.workers),
            resource("/v2/serverless/{id}/releases", GET=self.releases),
        ]

    async def list(self, request: Request) -> Response:
        base = base_url(request)
        return reply(wire.EndpointList([self._view(endpoint, base) for endpoint in self._endpoints.list()]))

    async def create(self, request: Request) -> Response:
        asked = creation(await decode_body(request, wire.CreateEndpointRequest))
        endpoint = await self._endpoints.create(
            asked.name,
            asked.run,
            kind=asked.kind,
            scaling=asked.scaling,
            execution_timeout=asked.execution_timeout,
            terms=asked.terms,
        )
        return reply(self._view(endpoint, base_url(request)), 201)

    async def get(self, request: Request) -> Response:
        return reply(self._view(self._named(request), base_url(request)))

    async def update(self, request: Request) -> Response:
        endpoint = self._named(request)
        asked = change(await decode_body(request, wire.UpdateEndpointRequest))
        return reply(self._view(await self._endpoints.update(endpoint.id, asked), base_url(request)))

    async def delete(self, request: Request) -> Response:
        """Once the definition is gone, nothing new can begin; then what has begun is ended (contract D.7)."""
        endpoint = await self._endpoints.delete(request.path_params["id"])
        await asyncio.shield(self._clear(endpoint))
        return no_content()

    async def workers(self, request: Request) -> Response:
        endpoint = self._named(request)
        fleet = self._services.fleet
        live, stopped = fleet.workers(endpoint.id), fleet.stopped_workers(endpoint.id)
        return reply(worker_list_view(endpoint, live, stopped, self._services.clock.now()))

    async def releases(self, request: Request) -> Response:
        endpoint = self._named(request)
        releases = await self._endpoints.releases(endpoint.id)
        return reply(release_list_view(endpoint, releases, self._services.fleet.workers(endpoint.id)))

    async def _clear(self, endpoint: domain.Endpoint) -> None:
        await self._services.jobs.remove_endpoint(endpoint.id)
        await self._services.fleet.remove_endpoint(endpoint.id)
        self._services.logs.forget_endpoint(endpoint.id)

    def _named(self, request: Request) -> domain.Endpoint:
        return self._endpoints.get(request.path_params["id"])

    def _view(self, endpoint: domain.Endpoint, base: str) -> wire.Endpoint:
        fleet, terms = self._services.fleet, self._endpoints.terms(endpoint.id)
        reason, preparation = fleet.queue_reason(endpoint.id), fleet.preparation(endpoint.id)
        return endpoint_view(endpoint, base, terms, reason, preparation)
