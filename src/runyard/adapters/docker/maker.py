"""Makes a worker's container and starts it."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from runyard.adapters.docker.engine import Engine, EngineError
from runyard.adapters.docker.networks import Network
from runyard.adapters.docker.spec import PLATFORM, WORKER, Policy, create_body, disk_limit, has_quotas, name_of
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import StartFailed
from runyard.domain.job import EndpointId
from runyard.ports.runtime import Launch, Say

log = logging.getLogger(__name__)

_NO_QUOTA = re.compile("storage-opt|quota", re.IGNORECASE)


class Present(NamedTuple):
    """An image that is here."""

    name: str
    config: Mapping[str, Any]
    """How it starts by itself, in the Engine's words."""


class Made(NamedTuple):
    """A container that was started."""

    id: str
    disk_limit: int | None
    """What it may write to its disk, in bytes, if the Engine does not see to that."""


class ImageStore(Protocol):
    """Where images come from."""

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        """Have the image here; returns `run` with its exact name as lock. Raises `BuildFailed` and `NoEngine`."""
        ...

    async def present(self, run: RunSpec) -> Present:
        """What a container is made of. Raises `StartFailed` when it is not here (any more)."""
        ...

    async def collect(self, in_use: Collection[str]) -> object:
        """Remove what no lock of these needs, as far as room is wanted."""
        ...

    async def close(self) -> None:
        """Give up what is under way, before the Engine's client is closed."""
        ...


class Maker:
    """For one platform at one Engine."""

    def __init__(self, engine: Engine, platform: str, images: ImageStore, policy: Policy) -> None:
        self._engine = engine
        self._platform = platform
        self._images = images
        self._policy = policy
        self._quotas: bool | None = None

    async def make(self, launch: Launch, network: Network) -> Made:
        """Nothing happens when it runs already. Raises `StartFailed`, with nothing left of it unless the Engine is gone."""
        image = await self._images.present(launch.run)
        limit = disk_limit(launch.run, self._policy)
        quota = limit is not None and await self._has_quotas()
        try:
            id = await self._run(launch, self._body(launch, network, image, quota=quota))
        except EngineError as error:
            if not quota or not _NO_QUOTA.search(str(error)):
                raise
            log.info("this Engine cannot limit the disk of a container, so disks are watched: %s", error)
            quota = self._quotas = False
            id = await self._run(launch, self._body(launch, network, image, quota=False))
        return Made(id, None if quota else limit)

    def _body(self, launch: Launch, network: Network, image: Present, *, quota: bool) -> dict[str, Any]:
        return create_body(
            launch,
            self._policy,
            platform=self._platform,
            image=image.name,
            config=image.config,
            network=network.id,
            plane=network.plane,
            quota=quota,
        )

    async def _run(self, launch: Launch, body: dict[str, Any]) -> str:
        """The container's id."""
        try:
            made = await self._engine.call("POST", "/containers/create", body, name=name_of(launch.worker_id))
            id: str = made["Id"]
        except EngineError as error:
            if error.status != 409 or (known := await self._made_before(launch)) is None:
                raise
            id = known
        try:
            await self._engine.call("POST", f"/containers/{id}/start")
        except EngineError:
            with suppress(StartFailed):
                await self._engine.call("DELETE", f"/containers/{id}", force=True, v=True)
            raise
        return id

    async def _made_before(self, launch: Launch) -> str | None:
        """The id of the container that has the name, if it is this worker's."""
        found = await self._engine.call("GET", f"/containers/{name_of(launch.worker_id)}/json")
        labels = found["Config"]["Labels"]
        is_ours = labels.get(PLATFORM) == self._platform and labels.get(WORKER) == launch.worker_id
        return found["Id"] if is_ours else None

    async def _has_quotas(self) -> bool:
        if self._quotas is None:
            self._quotas = has_quotas(await self._engine.call("GET", "/info"))
        return self._quotas
