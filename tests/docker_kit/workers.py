"""Workers in containers, for tests of the runtime: a runtime at the tests' engine, and releases that need no SDK."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.docker.engine import Engine as Client
from runyard.adapters.docker.images import Images
from runyard.adapters.docker.spec import Policy
from runyard.adapters.runtimes.docker import DockerRuntime
from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import NotFound
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.secret import Credential
from runyard.ports.runtime import Launch
from tests.docker_kit.client import EngineClient
from tests.runtime_kit import Listener

ENDPOINT = EndpointId("endpoint")
SUBNETS = ipaddress.IPv4Network("10.213.64.0/18")
"""Of the addresses that the kit sweeps, those that its engine does not give away itself."""


async def no_credential(id: str) -> Credential:
    raise NotFound(f"there is no registry credential {id}")


class Planes:
    """Stands in for the platform's listeners: says that it listens."""

    def __init__(self) -> None:
        self.open_at: dict[str, int] = {}
        self.port = 8001

    async def open(self, host: str, *, port: int = 0) -> str:
        self.open_at.setdefault(host, port or self.port)
        return f"http://{host}:{self.open_at[host]}"

    async def close(self, host: str) -> None:
        self.open_at.pop(host, None)


class Site:
    """A data directory at an engine, with one runtime after the other."""

    def __init__(self, url: str, docker: EngineClient, folder: Path, image: str) -> None:
        self.url = url
        self.docker = docker
        self.folder = folder
        self.image = image
        self.listener = Listener()
        self.planes = Planes()
        self.endpoints: Collection[EndpointId] = [ENDPOINT]
        self._runtimes: list[DockerRuntime] = []

    def runtime(
        self,
        *,
        url: str | None = None,
        disk_every_s: float = 15.0,
        subnets: ipaddress.IPv4Network = SUBNETS,
        **policy: Any,
    ) -> DockerRuntime:
        """The next one, with a listener of its own; `url` leads to another engine."""

        async def endpoints() -> Collection[EndpointId]:
            return self.endpoints

        self.listener = Listener()
        client = Client(url or self.url)
        runtime = DockerRuntime(
            self.folder,
            client,
            Images(client, FolderBlobs(self.folder / "blobs"), self.folder / "images", no_credential),
            self.planes,
            self.listener,
            endpoints=endpoints,
            policy=Policy(**policy),
            subnets=subnets,
            disk_every_s=disk_every_s,
        )
        self._runtimes.append(runtime)
        return runtime

    async def close(self) -> None:
        """Close all runtimes."""
        for runtime in self._runtimes:
            await runtime.close()

    def run(self, *args: str, **spec: Any) -> RunSpec:
        """A release of the image that runs these words."""
        return RunSpec(container=ContainerSpec(image=self.image, args=args, **spec))

    def python(self, source: str, **spec: Any) -> RunSpec:
        return self.run("python", "-u", "-c", source, **spec)

    def state(self, worker_id: str) -> dict[str, Any]:
        return self.docker.state(f"runyard-{worker_id}")

    def exists(self, worker_id: str) -> bool:
        return bool(self.docker.containers(name=[f"^/runyard-{worker_id}$"]))


async def start(
    runtime: DockerRuntime,
    worker_id: str,
    run: RunSpec,
    env: Mapping[str, str] | None = None,
    *,
    endpoint_id: EndpointId = ENDPOINT,
) -> WorkerId:
    """Prepare and start."""
    prepared = await runtime.prepare(endpoint_id, run, lambda _: None)
    worker = WorkerId(worker_id)
    await runtime.start(Launch(worker_id=worker, endpoint_id=endpoint_id, run=prepared, env=env or {}))
    return worker
