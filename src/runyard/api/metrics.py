"""`/metrics` and `/healthz`: for scrapers and probes, without a key. They tell counts and endpoint ids, never names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from runyard import __version__
from runyard.api.replies import reply
from runyard.api.routing import resource
from runyard.api.services import Room, Services
from runyard.domain.job import EndpointId
from runyard.domain.worker import WorkerState
from runyard.ports.stores import JobCounts
from runyard.wire.control import Health


class Metrics:
    """Counted when asked for, so that nothing is counted twice and removed endpoints leave no series."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        return [resource("/healthz", GET=self.health), resource("/metrics", GET=self.metrics)]

    async def health(self, request: Request) -> Response:
        return reply(Health())

    async def metrics(self, request: Request) -> Response:
        """Prometheus text: what the process has registered, then the state of each endpoint."""
        ids = [endpoint.id for endpoint in self._services.endpoints.list()]
        jobs = {id: await self._services.jobs.counts(id) for id in ids}
        workers = {id: self._services.fleet.worker_states(id) for id in ids}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(jobs, workers, self._services.answers(), self._services.room))
        return Response(generate_latest(REGISTRY) + generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Snapshot(Collector):
    """All endpoints at one moment."""

    def __init__(
        self,
        jobs: Mapping[EndpointId, JobCounts],
        workers: Mapping[EndpointId, Mapping[WorkerState, int]],
        answers: Mapping[tuple[str, int], int],
        room: Room,
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._answers = answers
        self._room = room

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        info = GaugeMetricFamily("runyard_build_info", "1, with the version of Runyard.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily("runyard_endpoints", "Endpoints that exist.", value=len(self._jobs))
        free = "Bytes that can be written to the data directory."
        yield GaugeMetricFamily("runyard_disk_free_bytes", free, value=self._room.free_bytes)
        full = "1 while new jobs and bundles are refused for want of room."
        yield GaugeMetricFamily("runyard_disk_full", full, value=self._room.full)
        yield from self._job_families()
        yield self._worker_family()
        yield self._answer_family()

    def _job_families(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        now = GaugeMetricFamily("runyard_jobs", "Jobs waiting and running.", labels=["endpoint", "state"])
        ended = CounterMetricFamily("runyard_jobs_finished", "Jobs that ended.", labels=["endpoint", "state"])
        retried = CounterMetricFamily(
            "runyard_jobs_retried", "Jobs queued again after they lost their worker.", labels=["endpoint"]
        )
        for endpoint_id, counts in self._jobs.items():
            now.add_metric([endpoint_id, "IN_QUEUE"], counts.in_queue)
            now.add_metric([endpoint_id, "IN_PROGRESS"], counts.in_progress)
            for state in ("completed", "failed", "cancelled", "timed_out"):
                ended.add_metric([endpoint_id, state.upper()], getattr(counts, state))
            retried.add_metric([endpoint_id], counts.retried)
        yield from (now, ended, retried)

    def _worker_family(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("runyard_workers", "Workers alive.", labels=["endpoint", "state"])
        for endpoint_id, states in self._workers.items():
            for state in WorkerState:
                family.add_metric([endpoint_id, state.value], states.get(state, 0))
        return family

    def _answer_family(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "runyard_requests", "Answers of the data and worker planes.", labels=["operation", "status"]
        )
        for (operation, status), count in sorted(self._answers.items()):
            family.add_metric([operation, str(status)], count)
        return family
