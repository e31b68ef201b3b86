"""What happens to our containers, as their Engine tells it.

One stream of events is followed for ever. Events of before it began are lost, so whenever it has begun anew, what there is
now is looked at: only then the Engine counts as `up`.

Why a container has ended is told by what came before. The kernel kills without a word through the Engine (`oom` says that
it was for memory), and so does a crash. But who stops a container through the Engine is announced by `kill`, and the Engine
itself does so when it is shut down. An Engine that was killed announces nothing: what has ended while no stream was there
has, as far as anybody can know, ended with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from runyard.adapters.docker.engine import Engine
from runyard.adapters.docker.spec import ENDED, ENDPOINT, PLANE, PLATFORM, WORKER
from runyard.domain.errors import StartFailed
from runyard.domain.job import EndpointId, WorkerId

log = logging.getLogger(__name__)

PAUSE_S_MIN, PAUSE_S_MAX = 0.1, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A container of ours."""

    id: str
    worker_id: WorkerId
    endpoint_id: EndpointId
    ended: bool
    plane: str
    """Where it was told to reach the worker plane."""


class Ears(Protocol):
    """Hears of containers by their worker's id, also of those that it does not know."""

    async def compared(self, there: Mapping[WorkerId, Seen]) -> None:
        """All that there are, after a time in which nothing was heard."""
        ...

    def killed(self, worker_id: WorkerId) -> None:
        """Somebody has the Engine send it a signal."""
        ...

    def out_of_memory(self, worker_id: WorkerId) -> None: ...

    def died(self, worker_id: WorkerId) -> None: ...


class Watch:
    """Of the containers of one platform. `run` ends by cancellation."""

    def __init__(self, engine: Engine, platform: str, ears: Ears) -> None:
        self._engine = engine
        self._platform = platform
        self._ears = ears
        self.up = asyncio.Event()
        """The Engine answers, and we know of all that has happened."""
        self.was_up = False

    async def run(self) -> None:
        pause_s, clock = PAUSE_S_MIN, asyncio.get_running_loop().time
        while True:
            begun_at = clock()
            try:
                await self._follow()
            except StartFailed as error:
                if self.up.is_set() or pause_s == PAUSE_S_MIN:
                    log.warning("hears nothing of containers: %s", error)
            except Exception:  # Whatever comes from there, containers go on being looked after.
                log.exception("what the Engine says of containers is not understood")
            lasted = self.up.is_set() and clock() - begun_at >= PAUSE_S_MAX
            pause_s = PAUSE_S_MIN if lasted else min(2 * pause_s, PAUSE_S_MAX)
            self.up.clear()
            await asyncio.sleep(pause_s)

    async def there(self) -> dict[WorkerId, Seen]:
        """All containers of the platform, by worker."""
        filters = {"label": [f"{PLATFORM}={self._platform}"]}
        listed = await self._engine.call("GET", "/containers/json", all=True, filters=filters)
        return {seen.worker_id: seen for seen in map(_seen, listed)}

    async def _follow(self) -> None:
        filters = {
            "type": ["container"],
            "event": ["die", "kill", "oom"],
            "label": [f"{PLATFORM}={self._platform}"],
        }
        async with self._engine.messages("GET", "/events", filters=filters) as events:
            await self._ears.compared(await self.there())
            self.up.set()
            self.was_up = True
            async for event in events:
                self._hear(event)

    def _hear(self, event: Mapping[str, Any]) -> None:
        worker_id = WorkerId(event.get("Actor", {}).get("Attributes", {}).get(WORKER, ""))
        match event.get("Action") or event.get("status"):
            case "kill":
                self._ears.killed(worker_id)
            case "oom":
                self._ears.out_of_memory(worker_id)
            case "die":
                self._ears.died(worker_id)
            case _:
                pass


def _seen(listed: Mapping[str, Any]) -> Seen:
    labels = listed["Labels"]
    return Seen(
        id=listed["Id"],
        worker_id=WorkerId(labels.get(WORKER, "")),
        endpoint_id=EndpointId(labels.get(ENDPOINT, "")),
        ended=listed["State"] in ENDED,
        plane=labels.get(PLANE, ""),
    )
