"""`/v2/runtimes`: what workers can run in here, and why not (Runyard's own)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.replies import reply
from runyard.api.routing import resource
from runyard.api.services import Services
from runyard.wire import containers as wire


class Runtimes:
    """The route over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        return [resource("/v2/runtimes", GET=self.list)]

    async def list(self, _: Request) -> Response:
        lacking = await self._services.lacking_engine()
        processes = wire.RuntimeState("process", True)
        return reply(wire.RuntimeList([processes, wire.RuntimeState("docker", lacking is None, lacking)]))
