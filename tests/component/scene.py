"""A platform with one endpoint and a crew, told from a client's side on the loop's clock."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from runyard.config import Settings
from runyard.domain.terms import NO_OWN_TERMS, OwnTerms
from runyard.platform import Platform
from tests.builders import ENDPOINT, a_scaling, an_endpoint
from tests.component.crew import Crew
from tests.component.wire import GET, POST, Ports, Reply, open_ports


class Scene:
    """A platform with one endpoint and workers that do as they are told."""

    def __init__(self, ports: Ports, crew: Crew) -> None:
        self.ports = ports
        self.crew = crew

    @property
    def platform(self) -> Platform:
        return self.ports.platform

    async def run(self, **input: Any) -> str:
        """Submit a job; its id."""
        return (await self.send(input)).json()["id"]

    async def send(self, input: dict[str, Any], path: str = "/run", *more: str, **fields: Any) -> Reply:
        """Submit a job; `more` are header lines."""
        return await self.ask(POST, path, json.dumps({"input": {"s": 1} | input} | fields), *more)

    async def ask(self, method: str, path: str, body: str | None = None, *more: str) -> Reply:
        return await (await self.ports.connect()).ask(self.ports.request(method, path, body, *more))

    async def code(self, job_id: str) -> int:
        """Of an answer about its status."""
        return (await self.ask(GET, f"/status/{job_id}")).status

    async def patch(self, jobs: dict[str, Any]) -> None:
        """Change what holds for the endpoint's jobs, as the control plane is asked to."""
        transport = httpx2.ASGITransport(self.platform.app)
        headers = {"Authorization": f"Bearer {self.ports.key}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://yard.test", headers=headers) as client:
            reply = await client.patch(f"/v2/serverless/{ENDPOINT}", json={"runyard": {"jobs": jobs}})
        assert 200 == reply.status_code, reply.text

    async def detail(self, job_id: str) -> dict[str, Any]:
        return (await self.ask(GET, f"/requests/{job_id}")).json()

    async def retried(self) -> int:
        return (await self.ask(GET, "/health")).json()["jobs"]["retried"]

    async def until(self, job_id: str, status: str) -> dict[str, Any]:
        """The job when it is there."""
        async with asyncio.timeout(600):
            while (job := await self.detail(job_id))["status"] != status:  # noqa: ASYNC110  Not every state has an event.
                await asyncio.sleep(0.25)
        return job


@asynccontextmanager
async def playing(
    settings: Settings | None = None, *, workers_min: int = 1, workers_max: int = 1, terms: OwnTerms = NO_OWN_TERMS
) -> AsyncIterator[Scene]:
    crews: list[Crew] = []

    def crew(observer: Any) -> Crew:
        crews.append(Crew(observer))
        return crews[0]

    endpoint = an_endpoint(scaling=a_scaling(workers_min=workers_min, workers_max=workers_max), terms=terms)
    async with open_ports(settings or Settings(), endpoint=endpoint, runtime=crew) as ports:
        crews[0].ports = ports
        yield Scene(ports, crews[0])
