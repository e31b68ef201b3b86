"""`/v2/serverless/{id}/webhooks`: what was told to jobs' webhooks, what could not be, and the secret it is signed with.

Our own routes: the original has none for this.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.replies import reply
from runyard.api.routing import resource
from runyard.api.services import Services
from runyard.domain import webhook as domain
from runyard.domain.errors import BadRequest
from runyard.domain.job import EndpointId, JobId
from runyard.domain.webhook import DeliveryId, DeliveryState
from runyard.ports.webhooks import DeliveryQuery
from runyard.wire import webhooks as wire
from runyard.wire.times import rfc3339

LIMIT_MAX = 1000
LIMIT_DEFAULT = 50
_CURSOR_DIGITS_MAX = 18


class WebhookDeliveries:
    """The routes over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._webhooks = services.webhooks

    def routes(self) -> list[BaseRoute]:
        base = "/v2/serverless/{id}"
        return [
            resource(f"{base}/webhooks", GET=self.list),
            resource(f"{base}/webhooks/{{delivery_id}}", GET=self.get),
            resource(f"{base}/webhooks/{{delivery_id}}/redeliver", POST=self.redeliver),
            resource(f"{base}/webhook-secret", GET=self.secret, POST=self.rotate),
        ]

    async def list(self, request: Request) -> Response:
        page = await self._webhooks.list(self._endpoint_id(request), _query(request))
        shown = [_view(delivery) for delivery in page.deliveries]
        return reply(wire.DeliveryList(shown, None if page.next is None else str(page.next)))

    async def get(self, request: Request) -> Response:
        return reply(_view(await self._webhooks.get(self._endpoint_id(request), _delivery_id(request))))

    async def redeliver(self, request: Request) -> Response:
        """202: it is tried from now on, and its entry shows what came of it."""
        return reply(_view(await self._webhooks.redeliver(self._endpoint_id(request), _delivery_id(request))), 202)

    async def secret(self, request: Request) -> Response:
        return _secret_reply(await self._webhooks.secrets(self._endpoint_id(request)))

    async def rotate(self, request: Request) -> Response:
        return _secret_reply(await self._webhooks.rotate_secret(self._endpoint_id(request)))

    def _endpoint_id(self, request: Request) -> EndpointId:
        return self._services.endpoints.get(request.path_params["id"]).id


def _delivery_id(request: Request) -> DeliveryId:
    return DeliveryId(request.path_params["delivery_id"])


def _query(request: Request) -> DeliveryQuery:
    """Raises `BadRequest` naming the parameter."""
    asked = request.query_params
    job_id, state = asked.get("jobId"), asked.get("state")
    if state is not None and state not in list(DeliveryState):
        raise BadRequest(f"state must be {', '.join(DeliveryState)}, not {state!r}")
    return DeliveryQuery(
        job_id=None if job_id is None else JobId(job_id),
        state=None if state is None else DeliveryState(state),
        limit=_number(asked.get("limit"), "limit", 1, LIMIT_MAX) or LIMIT_DEFAULT,
        after=_number(asked.get("after"), "after", 0, 10**_CURSOR_DIGITS_MAX),
    )


def _number(text: str | None, name: str, least: int, most: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _CURSOR_DIGITS_MAX and least <= int(text) <= most):
        what = f"a number from {least} to {most}" if name == "limit" else "the `next` of the page before"
        raise BadRequest(f"{name} must be {what}, not {text[:40]!r}")
    return int(text)


def _view(delivery: domain.Delivery) -> wire.Delivery:
    return wire.Delivery(
        id=delivery.id,
        jobId=delivery.job_id,
        url=delivery.url,
        state=delivery.state.value,
        size=delivery.size,
        createdAt=rfc3339(delivery.created_at),
        nextTryAt=rfc3339(delivery.next_at) if delivery.pending else None,
        finishedAt=None if delivery.finished_at is None else rfc3339(delivery.finished_at),
        tries=[
            wire.Try(
                at=rfc3339(attempt.at),
                durationMs=round(attempt.duration_s * 1000),
                status=attempt.status,
                error=attempt.error,
                excerpt=attempt.excerpt,
            )
            for attempt in delivery.tries
        ],
    )


def _secret_reply(secrets: Sequence[domain.SigningSecret]) -> Response:
    newest, *older = secrets
    shown = wire.SigningSecret(secret=newest.value, createdAt=rfc3339(newest.created_at))
    for secret in older:
        if secret.expires_at is not None:
            shown.previous = wire.PreviousSecret(secret.value, rfc3339(secret.expires_at))
    response = reply(shown)
    response.headers["Cache-Control"] = "no-store"
    return response
