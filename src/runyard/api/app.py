"""Everything that is not a hot route, as one Starlette app: the control plane, health and metrics."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from runyard.api.auth import Authentication
from runyard.api.bundles import Bundles
from runyard.api.dead_letters import DeadLetterRoutes
from runyard.api.keys import Keys
from runyard.api.logs import LogStreams
from runyard.api.metrics import Metrics
from runyard.api.registries import RegistryRoutes
from runyard.api.replies import client_left, http_error, runyard_error, unexpected_error
from runyard.api.rest_v2 import Serverless
from runyard.api.secrets import SecretRoutes
from runyard.api.services import Services
from runyard.api.webhooks import WebhookDeliveries
from runyard.domain.errors import RunyardError

__all__ = ["Services", "build_app"]


def build_app(services: Services) -> Starlette:
    """Answers every request: JSON but for metrics and log streams, and never 500 for what a caller sends."""
    app = Starlette(
        routes=[
            *Serverless(services).routes(),
            *DeadLetterRoutes(services).routes(),
            *LogStreams(services).routes(),
            *Bundles(services.blobs, services.room, services.settings.bundle_bytes_max).routes(),
            *WebhookDeliveries(services).routes(),
            *Keys(services.access).routes(),
            *SecretRoutes(services.secrets).routes(),
            *RegistryRoutes(services.registries).routes(),
            *Metrics(services).routes(),
        ],
        middleware=[Middleware(Authentication, access=services.access)],
        exception_handlers={
            RunyardError: runyard_error,
            HTTPException: http_error,
            ClientDisconnect: client_left,
            Exception: unexpected_error,
        },
    )
    # A redirect would answer without JSON, and lose the body of a POST in many clients.
    app.router.redirect_slashes = False
    return app
