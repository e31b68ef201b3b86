"""The sync face: an endpoint and its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import httpx2

from runyard.client import calls
from runyard.client.calls import Call, Deadline, Retries, Submission
from runyard.client.errors import ConnectionLost, Unreachable, client_errors
from runyard.client.settings import Address, address
from runyard.client.shapes import Chunks, JobStatus, Purged


class Connection:
    """Sends calls; errors come out as `ClientError`. `transport` and `pause` replace network and time in tests."""

    def __init__(
        self,
        to: Address,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.address = to
        self._pause = pause
        self.http = httpx2.Client(
            base_url=to.url,
            headers=to.headers,
            transport=transport,
            trust_env=not to.local,
            timeout=calls.CALL_TIMEOUT_S,
        )

    def ask(self, call: Call, shape: Any) -> Any:
        """The answer as `shape`. Raises `ClientError`."""
        return calls.decode(self.send(call), shape)

    def send(self, call: Call) -> bytes:
        """The body of the answer. Raises `ClientError`."""
        retries = Retries(call)
        while True:
            try:
                return self._send(call)
            except (ConnectionLost, Unreachable) as error:
                self._pause(retries.pause_s(error))

    def _send(self, call: Call) -> bytes:
        with client_errors(self.address.url):
            response = self.http.request(
                call.method,
                call.path,
                json=call.body,
                params=call.params,
                headers=dict(call.headers),
                timeout=call.patience_s,
            )
            calls.check(response.status_code, response.content)
            return response.content

    def close(self) -> None:
        self.http.close()


class Endpoint:
    """A queue endpoint by its id. Close it, or use it as a context, to let its connections go."""

    def __init__(
        self,
        id: str,
        *,
        url: str | None = None,
        api_key: str | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.id = id
        self.connection = connection or Connection(address(url, api_key))

    def run(
        self,
        input: Any,
        *,
        webhook: str | None = None,
        policy: Mapping[str, Any] | None = None,
        s3_config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        id: str | None = None,
    ) -> Job:
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
        return self.job(self.connection.ask(calls.run(self.id, asked), JobStatus).id)

    def run_sync(
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
        status = self.connection.ask(calls.run_sync(self.id, asked, until), JobStatus)
        return status if status.ended or until.passed() else self.job(status.id).wait(until.left_s())

    def job(self, job_id: str) -> Job:
        """A job that was queued before."""
        return Job(job_id, self)

    def health(self) -> dict[str, Any]:
        """Counts of jobs and workers (contract A.5)."""
        return self.connection.ask(calls.health(self.id), dict[str, Any])

    def purge(self) -> int:
        """Cancel all jobs that wait; returns how many."""
        return self.connection.ask(calls.purge(self.id), Purged).removed

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Job:
    """One request to an endpoint."""

    def __init__(self, id: str, endpoint: Endpoint) -> None:
        self.id = id
        self._endpoint = endpoint

    def status(self) -> JobStatus:
        return self._ask(calls.status(self._endpoint.id, self.id))

    def detail(self) -> JobStatus:
        """The status with the attempts that gave no result. The platform sends the job's input along, however large."""
        return self._ask(calls.detail(self._endpoint.id, self.id))

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """The status once the job has ended, or after `timeout_s`: then `ended` is False."""
        until = Deadline(timeout_s)
        while True:
            status = self._ask(calls.wait(self._endpoint.id, self.id, until))
            if status.ended or until.passed():
                return status

    def stream(self) -> Iterator[Any]:
        """The chunks of a generator as they come, each once, until the job has ended."""
        while not (chunks := self._ask(calls.stream(self._endpoint.id, self.id), Chunks)).last:
            yield from (chunk.output for chunk in chunks.stream)

    def cancel(self) -> JobStatus:
        return self._ask(calls.cancel(self._endpoint.id, self.id))

    def retry(self) -> JobStatus:
        """Queue a failed or timed-out job again, under its id."""
        return self._ask(calls.retry(self._endpoint.id, self.id))

    def _ask(self, call: Call, shape: Any = JobStatus) -> Any:
        return self._endpoint.connection.ask(call, shape)
