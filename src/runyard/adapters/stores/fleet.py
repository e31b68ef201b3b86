"""Live workers, kept so that the next platform process knows them: in SQLite, and in memory."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from runyard.adapters.stores.specs import run_of, run_row
from runyard.adapters.stores.sqlite import Tables
from runyard.domain.endpoint import Release, ReleaseId
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Worker, WorkerPhase


class MemoryFleet:
    """A `FleetStore` in a dictionary: the port's meaning in its shortest form."""

    def __init__(self) -> None:
        self._workers: dict[WorkerId, Worker] = {}

    async def workers(self) -> list[Worker]:
        return sorted(self._workers.values(), key=lambda worker: (worker.created_at, worker.id))

    async def save(self, worker: Worker) -> None:
        self._workers[worker.id] = worker

    async def forget(self, worker_id: WorkerId) -> None:
        self._workers.pop(worker_id, None)

    async def close(self) -> None:
        """Nothing to do."""


class SqliteFleet:
    """A `FleetStore` in the file `path`, which may hold other tables."""

    def __init__(self, path: Path) -> None:
        self._tables = Tables(path, "workers")

    async def workers(self) -> list[Worker]:
        return [_worker(row) for row in await self._tables.fetch("workers")]

    async def save(self, worker: Worker) -> None:
        await self._tables.transact(lambda: self._tables.execute("save_worker", **_row(worker)))

    async def forget(self, worker_id: WorkerId) -> None:
        await self._tables.transact(lambda: self._tables.execute("forget_worker", id=worker_id))

    async def close(self) -> None:
        await self._tables.close()


def _row(worker: Worker) -> dict[str, object]:
    release = worker.release
    return {
        "id": worker.id,
        "endpoint_id": worker.endpoint_id,
        "secret_digest": worker.secret_digest,
        "phase": worker.phase.value,
        "created_at": worker.created_at,
        "spawned_at": worker.spawned_at,
        "ready_at": worker.ready_at,
        "sdk_version": worker.sdk_version,
        "unhealthy_reason": worker.unhealthy_reason,
        "stop_reason": worker.stop_reason,
        "release_id": release.id,
        "release_version": release.version,
        "release_created_at": release.created_at,
        **run_row(release.run),
    }


def _worker(row: sqlite3.Row) -> Worker:
    endpoint_id = EndpointId(row["endpoint_id"])
    return Worker(
        id=WorkerId(row["id"]),
        endpoint_id=endpoint_id,
        release=Release(
            id=ReleaseId(row["release_id"]),
            endpoint_id=endpoint_id,
            version=row["release_version"],
            run=run_of(row),
            created_at=row["release_created_at"],
        ),
        secret_digest=row["secret_digest"],
        created_at=row["created_at"],
        phase=WorkerPhase(row["phase"]),
        spawned_at=row["spawned_at"],
        ready_at=row["ready_at"],
        sdk_version=row["sdk_version"],
        unhealthy_reason=row["unhealthy_reason"],
        stop_reason=row["stop_reason"],
    )
