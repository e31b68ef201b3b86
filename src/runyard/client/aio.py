"""The async face: as the sync one, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import httpx2

from runyard.client import calls
from runyard.client.calls import Call, Deadline
from runyard.client.errors import client_errors
from runyard.client.settings import Address, address
from runyard.client.shapes import Chunks, JobStatus, Purged


class AsyncConnection:
    """Sends calls; errors come out as `ClientError`. `transport` replaces the network in tests."""

    def __init__(self, to: Address, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.address = to
        self.http = httpx2.AsyncClient(
            base_url=to.url,
            headers=to.headers,
            transport=transport,
            trust_env=not to.local,
            timeout=calls.CALL_TIMEOUT_S,
        )

    async def ask(self, call: Call, shape: Any) -> Any:
        """The answer as `shape`. Raises `ClientError`."""
        return calls.decode(await self.send(call), shape)

    async def send(self, call: Call) -> bytes:
        """The body of the answer. Raises `ClientError`."""
        with client_errors(self.address.url):
            response = await self.http.request(
                call.method, call.path, json=call.body, params=dict(call.query), timeout=call.timeout_s
            )
            calls.check(response.status_code, response.content)
            return response.content

    async def close(self) -> None:
        await self.http.aclose()


class AsyncEndpoint:
    """A queue endpoint by its id. Close it, or use it as a context, to let its connections go."""

    def __init__(
        self,
        id: str,
        *,
        url: str | None = None,
        api_key: str | None = None,
        connection: AsyncConnection | None = None,
    ) -> None:
        self.id = id
        self.connection = connection or AsyncConnection(address(url, api_key))

    async def run(
        self,
        input: Any,
        *,
        webhook: str | None = None,
        policy: Mapping[str, Any] | None = None,
        s3_config: Mapping[str, Any] | None = None,
    ) -> AsyncJob:
        """Queue a job. `policy` may have executionTimeout, ttl (milliseconds) and lowPriority."""
        options = {"webhook": webhook, "policy": policy, "s3Config": s3_config}
        return self.job((await self.connection.ask(calls.run(self.id, input, options), JobStatus)).id)

    async def run_sync(
        self,
        input: Any,
        *,
        timeout_s: float | None = None,
        webhook: str | None = None,
        policy: Mapping[str, Any] | None = None,
        s3_config: Mapping[str, Any] | None = None,
    ) -> JobStatus:
        """Queue a job and wait for its end, or `timeout_s`: then the job lives on and `ended` is False."""
        options = {"webhook": webhook, "policy": policy, "s3Config": s3_config}
        until = Deadline(timeout_s)
        status = await self.connection.ask(calls.run_sync(self.id, input, options, until.next_wait_s()), JobStatus)
        return status if status.ended or until.passed() else await self.job(status.id).wait(until.left_s())

    def job(self, job_id: str) -> AsyncJob:
        """A job that was queued before."""
        return AsyncJob(job_id, self)

    async def health(self) -> dict[str, Any]:
        """Counts of jobs and workers (contract A.5)."""
        return await self.connection.ask(calls.health(self.id), dict[str, Any])

    async def purge(self) -> int:
        """Cancel all jobs that wait; returns how many."""
        return (await self.connection.ask(calls.purge(self.id), Purged)).removed

    async def close(self) -> None:
        await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncJob:
    """One request to an endpoint."""

    def __init__(self, id: str, endpoint: AsyncEndpoint) -> None:
        self.id = id
        self._endpoint = endpoint

    async def status(self) -> JobStatus:
        return await self._ask(calls.status(self._endpoint.id, self.id))

    async def detail(self) -> JobStatus:
        """The status with the attempts that gave no result. The platform sends the job's input along, however large."""
        return await self._ask(calls.detail(self._endpoint.id, self.id))

    async def wait(self, timeout_s: float | None = None) -> JobStatus:
        """The status once the job has ended, or after `timeout_s`: then `ended` is False."""
        until = Deadline(timeout_s)
        while True:
            status = await self._ask(calls.wait(self._endpoint.id, self.id, until.next_wait_s()))
            if status.ended or until.passed():
                return status

    async def stream(self) -> AsyncIterator[Any]:
        """The chunks of a generator as they come, each once, until the job has ended."""
        while not (chunks := await self._ask(calls.stream(self._endpoint.id, self.id), Chunks)).last:
            for chunk in chunks.stream:
                yield chunk.output

    async def cancel(self) -> JobStatus:
        return await self._ask(calls.cancel(self._endpoint.id, self.id))

    async def retry(self) -> JobStatus:
        """Queue a failed or timed-out job again, under its id."""
        return await self._ask(calls.retry(self._endpoint.id, self.id))

    async def _ask(self, call: Call, shape: Any = JobStatus) -> Any:
        return await self._endpoint.connection.ask(call, shape)
