"""One bridge network for each endpoint: its workers reach the platform and the world, but not each other.

The platform listens with the worker plane at each network's gateway, which is an address of this machine. Where the platform
is a container itself, it joins the network and listens at its own address there; then workers of one endpoint can reach each
other, too, since a bridge cannot tell a platform from a worker.

A network is found again by its labels. Subnets are named here: the Engine's own choice ends after some thirty.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runyard.adapters.docker.engine import Engine, EngineError, NoEngine
from runyard.adapters.docker.spec import ENDPOINT, PLATFORM
from runyard.domain.errors import StartFailed
from runyard.domain.job import EndpointId
from runyard.ports.worker_ports import WorkerPorts

log = logging.getLogger(__name__)

PREFIX = 26
"""Bits: 61 workers of an endpoint."""
MOUNTS = Path("/proc/self/mountinfo")
_OVERLAP = re.compile("overlap|in use|already used|conflicts", re.IGNORECASE)
_OWN_ID = re.compile(r"/containers/([0-9a-f]{64})/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`host` is where the platform listens, `plane` the URL of that."""

    id: str
    endpoint_id: EndpointId
    host: str
    plane: str


class Networks:
    """Of one platform. `named`: the container that it runs in, where it cannot see that."""

    def __init__(
        self, engine: Engine, platform: str, planes: WorkerPorts, subnets: ipaddress.IPv4Network, *, named: str = ""
    ) -> None:
        self._engine = engine
        self._platform = platform
        self._planes = planes
        self._subnets = subnets
        self._named = named
        self._itself: str | None = None
        self._looked = False
        self._known: dict[EndpointId, Network] = {}
        self._turn = asyncio.Lock()

    def find(self, endpoint_id: EndpointId) -> Network | None:
        """What `ensure` has returned."""
        return self._known.get(endpoint_id)

    async def ensure(self, endpoint_id: EndpointId, *, port: int = 0) -> Network:
        """The endpoint's network, made where there is none; `port` is where its workers have found the plane before.
        Raises `StartFailed`.
        """
        async with self._turn:
            if not self._looked:
                self._itself, self._looked = await own_container(self._engine, self._named), True
            there = (await self._there()).get(endpoint_id) or await self._make(endpoint_id)
            host = _gateway(there) if self._itself is None else await self._join(there["Id"], self._itself)
            plane = await self._planes.open(host, port=port)
            network = Network(id=there["Id"], endpoint_id=endpoint_id, host=host, plane=plane)
            self._known[endpoint_id] = network
            return network

    async def resume(self, planes: Mapping[EndpointId, str]) -> None:
        """Listen again in the networks of these endpoints, where their workers were told to come to. Raises
        `NoEngine`.
        """
        for endpoint_id, plane in planes.items():
            try:
                network = await self.ensure(endpoint_id, port=urlsplit(plane).port or 0)
                if network.plane != plane:
                    log.error("workers of %s ask at %s, and the platform is at %s", endpoint_id, plane, network.plane)
            except NoEngine:
                raise
            except StartFailed as error:
                log.error("workers of %s do not reach the platform: %s", endpoint_id, error)

    async def remove(self, *, but: Collection[EndpointId] = ()) -> None:
        """Remove all that no container uses, `but` those of these endpoints. Raises `NoEngine`."""
        async with self._turn:
            for endpoint_id, there in (await self._there()).items():
                if endpoint_id not in but:
                    await self._remove(endpoint_id, there)

    async def _remove(self, endpoint_id: EndpointId, there: Mapping[str, Any]) -> None:
        id = there["Id"]
        if (await self._members(id)).keys() - {self._itself}:
            return
        with suppress(EngineError):  # A container that starts just now keeps it.
            if self._itself is not None:
                await self._engine.call("POST", f"/networks/{id}/disconnect", {"Container": self._itself})
            await self._engine.call("DELETE", f"/networks/{id}")
            known = self._known.pop(endpoint_id, None)
            await self._planes.close(known.host if known is not None else _gateway(there))

    async def _there(self) -> dict[EndpointId, dict[str, Any]]:
        filters = {"label": [f"{PLATFORM}={self._platform}"]}
        found = await self._engine.call("GET", "/networks", filters=filters)
        return {EndpointId(network["Labels"].get(ENDPOINT, "")): network for network in found}

    async def _make(self, endpoint_id: EndpointId) -> dict[str, Any]:
        for subnet in self._subnets.subnets(new_prefix=max(PREFIX, self._subnets.prefixlen)):
            body = _network_body(self._platform, endpoint_id, subnet, icc=self._itself is not None)
            try:
                made = await self._engine.call("POST", "/networks/create", body)
            except EngineError as error:
                if _OVERLAP.search(str(error)):
                    continue
                raise
            return {**body, "Id": made["Id"]}
        raise StartFailed(
            f"no subnet of {self._subnets} is free for the network of endpoint {endpoint_id}: name a larger or another one "
            "with the setting docker_subnets"
        )

    async def _join(self, id: str, itself: str) -> str:
        with suppress(EngineError):  # It has joined already.
            await self._engine.call("POST", f"/networks/{id}/connect", {"Container": itself})
        joined = (await self._members(id)).get(itself)
        if joined is None:
            raise StartFailed(f"the platform's own container {itself[:12]} cannot join the network {id[:12]}")
        return joined.partition("/")[0]

    async def _members(self, id: str) -> dict[str, str]:
        """The address of each container in the network."""
        members: dict[str, dict[str, str]] = (await self._engine.call("GET", f"/networks/{id}"))["Containers"] or {}
        return {container: member["IPv4Address"] for container, member in members.items()}


async def own_container(engine: Engine, named: str = "") -> str | None:
    """The id of the container that this process runs in, if it is one of this Engine's and has a network of its own.
    `named`: its id or name, where we cannot see that. Raises `StartFailed` when there is no container of that name.
    """
    found = named or own_id(await asyncio.to_thread(_mounts))
    if not found:
        return None
    try:
        container = await engine.call("GET", f"/containers/{found}/json")
    except EngineError as error:
        if named:
            raise StartFailed(f"the setting docker_self names no container of the Engine: {error}") from error
        return None  # Another Engine's.
    return None if container["HostConfig"]["NetworkMode"] == "host" else container["Id"]


def own_id(mounts: str) -> str | None:
    """The container's id in /proc/self/mountinfo as a process in it reads it: the file with its hostname is the Engine's."""
    files = (line.split()[3] for line in mounts.splitlines() if " /etc/hostname " in line)
    return next((match[1] for file in files if (match := _OWN_ID.search(file)) is not None), None)


def _mounts() -> str:
    with suppress(OSError):
        return MOUNTS.read_text(errors="replace")
    return ""


def _network_body(
    platform: str, endpoint_id: EndpointId, subnet: ipaddress.IPv4Network, *, icc: bool
) -> dict[str, Any]:
    return {
        "Name": f"runyard-{platform[:8]}-{endpoint_id}",
        "CheckDuplicate": True,
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]},
        "Options": {"com.docker.network.bridge.enable_icc": str(icc).lower()},
        "Labels": {PLATFORM: platform, ENDPOINT: endpoint_id},
    }


def _gateway(network: Mapping[str, Any]) -> str:
    return network["IPAM"]["Config"][0]["Gateway"]
