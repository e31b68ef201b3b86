"""The async face: as the sync one, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Self

import httpx2

from runyard.client import calls
from runyard.client.calls import Call, Deadline, Retries, Submission
from runyard.client.errors import ConnectionLost, Unreachable, client_errors
from runyard.client.settings import Address, address
from runyard.client.shapes import Chunks, JobStatus, Purged


class AsyncConnection:
    """Sends calls; errors come out as `ClientError`. `transport` and `pause` replace network and time in tests."""

    def __init__(
        self,
        to: Address,
        transport: httpx2.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.address = to
        self._pause = pause
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
        retries = Retries(call)
        while True:
            try:
                return await self._send(call)
            except (ConnectionLost, Unreachable) as error:
                await self._pause(retries.pause_s(error))

    async def _send(self, call: Call) -> bytes:
        with client_errors(self.address.url):
            response = await self.http.request(
                call.method,
                call.path,
                json=call.body,
                params=call.params,
                headers=dict(call.headers),
                timeout=call.patience_s,
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
        idempotency_key: str | None = None,
        id: str | None = None,
    ) -> AsyncJob:
        """Queue a job. `policy` may have executionTimeout, ttl (milliseconds) and lowPriority.

        `idempotency_key` (1 to 255 visible ASCII characters) or `id` names the job: sent again with the same request, it
        is the same job, and `ApiError` 409 with another. Without, each call is a job of its own. A call whose connection is
        lost is sent again up to four times, within 8 s, as the same job.
        """
        asked = Submission(
            input=input,
            webhook=webhook,
            policy=policy,
            s3_config=s3_config,
            idempotency_key=idempotency_key,
            id=id,
        )
        return self.job((await self.connection.ask(calls.run(self.id, asked), JobStatus)).id)

    async def run_sync(
        self,
        input: Any,
        *,
        timeout_s: float | None = None,
        webhook: str | None = None,
        policy: Mapping[str, Any] | None = None,
        s3_config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        id: str | None = None,
    ) -> JobStatus:
        """Queue a job and wait for its end, or `timeout_s`: then the job lives on and `ended` is False. Names and lost
        connections are as in `run`.
        """
        asked = Submission(
            input=input,
            webhook=webhook,
            policy=policy,
            s3_config=s3_config,
            idempotency_key=idempotency_key,
            id=id,
        )
        until = Deadline(timeout_s)
        status = await self.connection.ask(calls.run_sync(self.id, asked, until), JobStatus)
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
            status = await self._ask(calls.wait(self._endpoint.id, self.id, until))
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
