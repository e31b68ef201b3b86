"""Endpoints, releases and keys for as long as the process lives: the port's meaning in its shortest form."""

from __future__ import annotations

from dataclasses import replace

from runyard.domain.account import ApiKey
from runyard.domain.endpoint import Endpoint, Release, ReleaseId
from runyard.domain.errors import Conflict
from runyard.domain.job import EndpointId


class MemoryControl:
    """A `ControlStore` in dictionaries."""

    def __init__(self) -> None:
        self._endpoints: dict[EndpointId, Endpoint] = {}
        self._releases: dict[ReleaseId, Release] = {}
        self._keys: dict[str, ApiKey] = {}
        self._numbers: dict[EndpointId, int] = {}

    async def close(self) -> None:
        """Nothing to do."""

    async def endpoints(self) -> list[Endpoint]:
        found = sorted(self._endpoints.values(), key=lambda endpoint: (endpoint.created_at, endpoint.id))
        return [replace(endpoint, release=self._releases[endpoint.release.id]) for endpoint in found]

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        if endpoint.id in self._endpoints:
            raise Conflict(f"endpoint {endpoint.id} exists already")
        self._keep(endpoint)

    async def save_endpoint(self, endpoint: Endpoint, *, generation: int) -> bool:
        stored = self._endpoints.get(endpoint.id)
        if stored is None or stored.generation != generation:
            return False
        self._keep(endpoint)
        return True

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        self._endpoints.pop(endpoint_id, None)
        for release in await self.releases(endpoint_id):
            del self._releases[release.id]

    async def releases(self, endpoint_id: EndpointId) -> list[Release]:
        found = [release for release in self._releases.values() if release.endpoint_id == endpoint_id]
        return sorted(found, key=lambda release: release.version, reverse=True)

    async def set_lock(self, release_id: ReleaseId, lock: str) -> None:
        release = self._releases.get(release_id)
        if release is not None and release.run.lock is None:
            self._releases[release_id] = replace(release, run=replace(release.run, lock=lock))

    async def keys(self) -> list[ApiKey]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    async def add_key(self, key: ApiKey) -> None:
        self._keys[key.id] = key

    async def revoke_key(self, key_id: str, now: float) -> bool:
        key = self._keys.get(key_id)
        if key is None or key.revoked_at is not None:
            return False
        self._keys[key_id] = replace(key, revoked_at=now)
        return True

    async def endpoint_number(self, endpoint_id: EndpointId) -> int:
        return self._numbers.setdefault(endpoint_id, len(self._numbers))

    def _keep(self, endpoint: Endpoint) -> None:
        if any(other.name == endpoint.name and other.id != endpoint.id for other in self._endpoints.values()):
            raise Conflict(f"an endpoint named {endpoint.name!r} exists already")
        self._endpoints[endpoint.id] = endpoint
        self._releases.setdefault(endpoint.release.id, endpoint.release)
