"""Letting go of what no release and no worker starts from any more."""

from __future__ import annotations

import logging
from typing import Protocol

from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import RunyardError
from runyard.ports.runtime import SupportsCollect
from runyard.ports.system import Clock
from runyard.services.roster import Roster

EVERY_S = 600.0

log = logging.getLogger(__name__)


class Endpoints(Protocol):
    """The endpoints as they are now."""

    def list(self) -> list[Endpoint]: ...


class Collecting:
    """`run` is the loop: every `EVERY_S` the runtime hears which locks are in use."""

    def __init__(self, endpoints: Endpoints, roster: Roster, runtime: SupportsCollect, clock: Clock) -> None:
        self._endpoints = endpoints
        self._roster = roster
        self._runtime = runtime
        self._clock = clock

    async def run(self) -> None:
        """Collect for ever."""
        while True:
            await self._clock.sleep(EVERY_S)
            await self.collect()

    async def collect(self) -> None:
        """What is to go now."""
        releases = [endpoint.release for endpoint in self._endpoints.list()]
        releases += [live.worker.release for live in self._roster]
        try:
            await self._runtime.collect({release.run.lock for release in releases if release.run.lock})
        except RunyardError as error:
            log.warning("unused images stay for now: %s", error)
