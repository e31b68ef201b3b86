"""What the control plane needs of the platform."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from runyard.domain.fleet import QueueReason
from runyard.domain.job import EndpointId
from runyard.domain.worker import Worker, WorkerState
from runyard.ports.stores import Blobs, JobCounts
from runyard.ports.system import Clock
from runyard.services.access import Access
from runyard.services.dead_letters import DeadLetters
from runyard.services.endpoints import Endpoints
from runyard.services.logs import Logs
from runyard.services.registries import Registries
from runyard.services.secrets import Secrets
from runyard.services.webhooks import Webhooks


class WorkerReport(Protocol):
    """A worker and how many jobs it holds."""

    @property
    def worker(self) -> Worker: ...

    @property
    def jobs(self) -> int: ...

    @property
    def state(self) -> WorkerState: ...


class Fleet(Protocol):
    """Workers of all endpoints. None of the questions fails for an endpoint it does not know."""

    def workers(self, endpoint_id: EndpointId) -> Sequence[WorkerReport]:
        """Workers that are alive."""
        ...

    def stopped_workers(self, endpoint_id: EndpointId) -> Sequence[WorkerReport]:
        """The last few that ended, newest first."""
        ...

    def worker_states(self, endpoint_id: EndpointId) -> Mapping[WorkerState, int]: ...

    def queue_reason(self, endpoint_id: EndpointId) -> QueueReason | None:
        """Why a job of this endpoint that waits now waits."""
        ...

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        """Stop all workers of a deleted endpoint."""
        ...


class Jobs(Protocol):
    """Jobs of all endpoints."""

    async def counts(self, endpoint_id: EndpointId) -> JobCounts: ...

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        """End and forget all jobs of a deleted endpoint."""
        ...


class Room(Protocol):
    """What the disk has room for."""

    @property
    def free_bytes(self) -> int: ...

    @property
    def full(self) -> bool:
        """What is new is refused."""
        ...

    def admit(self) -> None:
        """Raises `TooBusy` while it is full."""
        ...


class ApiSettings(Protocol):
    """The settings that matter here."""

    @property
    def bundle_bytes_max(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One platform, as the routes see it."""

    access: Access
    endpoints: Endpoints
    fleet: Fleet
    jobs: Jobs
    dead_letters: DeadLetters
    logs: Logs
    webhooks: Webhooks
    secrets: Secrets
    registries: Registries
    blobs: Blobs
    room: Room
    clock: Clock
    settings: ApiSettings
    answers: Callable[[], Mapping[tuple[str, int], int]] = dict[tuple[str, int], int]
    """How often each hot operation was answered with each status."""
