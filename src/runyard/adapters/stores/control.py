"""Endpoints, releases and keys in one SQLite file: small, rarely written, never lost. Each method is one transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from runyard.adapters.stores.specs import run_of, run_row
from runyard.adapters.stores.sqlite import Tables
from runyard.domain.account import ApiKey, KeyId
from runyard.domain.endpoint import Endpoint, EndpointKind, Release, ReleaseId
from runyard.domain.errors import Conflict
from runyard.domain.job import EndpointId
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.terms import OwnTerms, TtlScope


class SqliteControl:
    """A `ControlStore` in the file `path`, which is opened (and made, mode 0600) at once; `close` it at the end."""

    def __init__(self, path: Path) -> None:
        self._tables = Tables(path, "control")

    async def close(self) -> None:
        await self._tables.close()

    async def endpoints(self) -> list[Endpoint]:
        return [_endpoint(row) for row in await self._tables.fetch("endpoints")]

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        def add() -> None:
            self._tables.execute("add_endpoint", **_endpoint_row(endpoint))
            self._tables.execute("add_release", **_release_row(endpoint.release))

        try:
            await self._tables.transact(add)
        except sqlite3.IntegrityError as error:
            raise _taken(endpoint, error) from error

    async def save_endpoint(self, endpoint: Endpoint, *, generation: int) -> bool:
        def save() -> bool:
            row = _endpoint_row(endpoint)
            if not self._tables.execute("save_endpoint", expected_generation=generation, **row).rowcount:
                return False
            self._tables.execute("add_release", **_release_row(endpoint.release))
            return True

        try:
            return await self._tables.transact(save)
        except sqlite3.IntegrityError as error:
            raise _taken(endpoint, error) from error

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        await self._tables.transact(lambda: self._tables.execute("remove_endpoint", id=endpoint_id))

    async def releases(self, endpoint_id: EndpointId) -> list[Release]:
        return [_release(row) for row in await self._tables.fetch("releases", endpoint_id=endpoint_id)]

    async def set_lock(self, release_id: ReleaseId, lock: str) -> None:
        await self._tables.transact(lambda: self._tables.execute("set_lock", id=release_id, lock=lock))

    async def keys(self) -> list[ApiKey]:
        return [_key(row) for row in await self._tables.fetch("keys")]

    async def add_key(self, key: ApiKey) -> None:
        row = {
            "id": key.id,
            "name": key.name,
            "digest": key.digest,
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        await self._tables.transact(lambda: self._tables.execute("add_key", **row))

    async def revoke_key(self, key_id: str, now: float) -> bool:
        return await self._tables.transact(lambda: self._tables.execute("revoke_key", id=key_id, now=now).rowcount > 0)

    async def endpoint_number(self, endpoint_id: EndpointId) -> int:
        def number() -> int:
            self._tables.execute("add_endpoint_number", endpoint_id=endpoint_id)
            return self._tables.execute("endpoint_number", endpoint_id=endpoint_id).fetchone()[0]

        return await self._tables.transact(number)


def _taken(endpoint: Endpoint, error: sqlite3.IntegrityError) -> Conflict:
    if "endpoints.name" in str(error):
        return Conflict(f"an endpoint named {endpoint.name!r} exists already")
    return Conflict(f"endpoint {endpoint.id} exists already")


def _endpoint_row(endpoint: Endpoint) -> dict[str, object]:
    scaling = endpoint.scaling
    match scaling.scaler:
        case QueueDelay(delay):
            scaler, value = "QUEUE_DELAY", delay.total_seconds()
        case RequestCount(per_worker):
            scaler, value = "REQUEST_COUNT", float(per_worker)
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "kind": endpoint.kind.value,
        "workers_min": scaling.workers_min,
        "workers_max": scaling.workers_max,
        "idle_timeout_s": scaling.idle_timeout.total_seconds(),
        "scaler": scaler,
        "scaler_value": value,
        "execution_timeout_s": endpoint.execution_timeout.total_seconds(),
        **asdict(endpoint.terms),
        "release_id": endpoint.release.id,
        "generation": endpoint.generation,
        "created_at": endpoint.created_at,
    }


def _release_row(release: Release) -> dict[str, object]:
    return {
        "id": release.id,
        "endpoint_id": release.endpoint_id,
        "version": release.version,
        **run_row(release.run),
        "created_at": release.created_at,
    }


def _endpoint(row: sqlite3.Row) -> Endpoint:
    by_delay = row["scaler"] == "QUEUE_DELAY"
    value: float = row["scaler_value"]
    return Endpoint(
        id=EndpointId(row["id"]),
        name=row["name"],
        kind=EndpointKind(row["kind"]),
        scaling=ScalingPolicy(
            workers_min=row["workers_min"],
            workers_max=row["workers_max"],
            idle_timeout=timedelta(seconds=row["idle_timeout_s"]),
            scaler=QueueDelay(timedelta(seconds=value)) if by_delay else RequestCount(int(value)),
        ),
        execution_timeout=timedelta(seconds=row["execution_timeout_s"]),
        terms=OwnTerms(
            retention_s=row["retention_s"],
            retention_sync_s=row["retention_sync_s"],
            ttl_s=row["ttl_s"],
            ttl_scope=None if row["ttl_scope"] is None else TtlScope(row["ttl_scope"]),
            keep_s=row["keep_s"],
            attempts_max=row["attempts_max"],
        ),
        release=_release(row),
        generation=row["generation"],
        created_at=row["created_at"],
    )


def _release(row: sqlite3.Row) -> Release:
    return Release(
        id=ReleaseId(row["release_id"]),
        endpoint_id=EndpointId(row["endpoint_id"]),
        version=row["version"],
        run=run_of(row),
        created_at=row["release_created_at"],
    )


def _key(row: sqlite3.Row) -> ApiKey:
    return ApiKey(
        id=KeyId(row["id"]),
        name=row["name"],
        digest=row["digest"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
