"""`/v2/serverless/{id}/dead-letters`: jobs that ended without a result, and their way back into the queue."""

from __future__ import annotations

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard.api.bodies import decode_body
from runyard.api.replies import reply
from runyard.api.routing import resource
from runyard.api.services import Services
from runyard.api.views import dead_letter_view
from runyard.domain.errors import Unprocessable
from runyard.domain.job import EndpointId, JobId
from runyard.wire import control as wire

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
_CURSOR_DIGITS_MAX = 16


class DeadLetterRoutes:
    """The routes over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        return [
            resource("/v2/serverless/{id}/dead-letters", GET=self.list),
            resource("/v2/serverless/{id}/dead-letters/redrive", POST=self.redrive),
        ]

    async def list(self, request: Request) -> Response:
        endpoint_id = self._named(request)
        page = await self._services.dead_letters.list(endpoint_id, limit=_limit(request), after=_after(request))
        return reply(wire.DeadLetterList([dead_letter_view(job) for job in page.jobs], page.next))

    async def redrive(self, request: Request) -> Response:
        endpoint_id = self._named(request)
        asked = await decode_body(request, wire.RedriveRequest)
        if asked.all == (asked.ids is not UNSET):
            raise _refused("ids", 'name the jobs with "ids", or take them all with "all": true')
        if asked.ids is UNSET and asked.force:
            raise _refused("force", "jobs that kill workers are not forced in bulk: name them with ids")
        dead_letters = self._services.dead_letters
        if asked.ids is UNSET:
            outcome = await dead_letters.redrive_all(endpoint_id)
        else:
            job_ids = [JobId(job_id) for job_id in dict.fromkeys(asked.ids)]
            outcome = await dead_letters.redrive(endpoint_id, job_ids, force=asked.force)
        refused = [wire.Refusal(r.job_id, r.error.code, r.error.message) for r in outcome.refused]
        return reply(wire.Redriven(outcome.redriven, outcome.quarantined, refused))

    def _named(self, request: Request) -> EndpointId:
        return self._services.endpoints.get(request.path_params["id"]).id


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    if not _is_number(text, len(str(LIMIT_MAX))) or not 1 <= int(text) <= LIMIT_MAX:
        raise _refused("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def _after(request: Request) -> str | None:
    text = request.query_params.get("after")
    if text is not None and not _is_number(text, _CURSOR_DIGITS_MAX):
        raise _refused("after", "must be the `next` of an earlier page")
    return text


def _is_number(text: str, digits_max: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits_max


def _refused(name: str, problem: str) -> Unprocessable:
    return Unprocessable(f"{name}: {problem}", (f"{name}: {problem}",))
