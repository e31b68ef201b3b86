"""How far releases are: what their workers share is made once, ahead of the first start or by it, and whoever deploys or
waits wants to know what it is at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import replace
from typing import Any

from runyard.domain.endpoint import Endpoint, Release, ReleaseId, RunSpec
from runyard.domain.errors import StartFailed
from runyard.domain.fleet import Preparation, PreparationState, QueueReason, preparing
from runyard.domain.job import EndpointId
from runyard.ports.runtime import Say, WorkerRuntime
from runyard.services.failures import failure_of, told_by

_PREPARING = Preparation(PreparationState.PREPARING)
_READY = Preparation(PreparationState.READY)


class Preparations:
    """Prepares releases, and remembers of each how that stands."""

    def __init__(
        self,
        set_lock: Callable[[EndpointId, ReleaseId, str], Awaitable[None]],
        changed: Callable[[EndpointId], None],
        *,
        redact: Callable[[EndpointId, str], str] = lambda endpoint_id, text: text,
    ) -> None:
        """`set_lock` keeps what a release was resolved to. `changed` hears of every step of an endpoint's release. `redact`
        takes out of a message what may not be kept.
        """
        self._set_lock = set_lock
        self._changed = changed
        self._redact = redact
        self._of: dict[ReleaseId, Preparation] = {}
        self._work: dict[asyncio.Task[RunSpec], ReleaseId] = {}

    async def prepare(self, runtime: WorkerRuntime, endpoint_id: EndpointId, release: Release, say: Say) -> RunSpec:
        """What to start workers with. May be called several times at once, and again. Raises `RunyardError`, whatever the
        runtime does.
        """

        def heard(line: str) -> None:
            self._now(endpoint_id, release, Preparation(PreparationState.PREPARING, message=line))
            say(line)

        if self._of.get(release.id) != _READY:  # One that is ready stays so, unless there is something to do after all.
            self._now(endpoint_id, release, _PREPARING)
        try:
            run = await self._while_wanted(release.id, runtime.prepare(endpoint_id, release.run, heard))
        except Exception as error:  # Whatever it is, the release is not being prepared any more.
            failure = failure_of(error)
            self._now(endpoint_id, release, Preparation(PreparationState.FAILED, *told_by(failure)))
            if failure is error:
                raise
            raise failure from error
        if run.lock is not None and run.lock != release.run.lock:
            await self._set_lock(endpoint_id, release.id, run.lock)
        self._now(endpoint_id, release, _READY)
        return run

    def of(self, endpoint: Endpoint) -> Preparation | None:
        """How it stands with the endpoint's release; None: nothing was tried yet."""
        return self._of.get(endpoint.release.id)

    def reason(self, endpoint: Endpoint) -> QueueReason:
        """What its workers wait for that are not started yet."""
        return preparing(endpoint.release.run, self._of.get(endpoint.release.id, _PREPARING).message)

    def keep_only(self, releases: Collection[ReleaseId]) -> None:
        """Forget all releases but these, and give up what is done for them: nobody wants to wait for a build in vain."""
        for work, release_id in self._work.items():
            if release_id not in releases:
                work.cancel()
        self._of = {release_id: known for release_id, known in self._of.items() if release_id in releases}

    async def _while_wanted(self, release_id: ReleaseId, preparing: Coroutine[Any, Any, RunSpec]) -> RunSpec:
        """Raises `StartFailed` when it is given up."""
        work = asyncio.create_task(preparing, name=f"prepare {release_id}")
        self._work[work] = release_id
        work.add_done_callback(self._work.pop)
        try:
            return await work
        except asyncio.CancelledError:
            if (asker := asyncio.current_task()) and asker.cancelling():
                raise
            raise StartFailed("its release is not wanted any more") from None

    def _now(self, endpoint_id: EndpointId, release: Release, preparation: Preparation) -> None:
        preparation = replace(preparation, message=self._redact(endpoint_id, preparation.message))
        if self._of.get(release.id) != preparation:
            self._of[release.id] = preparation
            self._changed(endpoint_id)
