"""Images: here, or pulled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runyard.adapters.docker.engine import Engine, EngineError
from runyard.domain.container import check_image
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed, StartFailed
from runyard.domain.job import EndpointId
from runyard.ports.runtime import Say


class Images:
    """A stand-in: no credentials, no builds, no progress."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        """Fills in the lock. Raises `BuildFailed` and `NoEngine`."""
        assert run.container is not None, "it is a process"
        reference = run.lock or run.container.image
        found = await self._inspect(reference)
        if found is None:
            say(f"pulling {reference}")
            try:
                await self._pull(reference)
            except EngineError as error:
                raise BuildFailed(f"cannot pull {reference}: {error}") from error
            found = await self._inspect(reference)
        if found is None:
            raise BuildFailed(f"image {reference} is gone as soon as it was pulled")
        digests: list[str] = found.get("RepoDigests") or [found["Id"]]
        return replace(run, lock=run.lock or digests[0])

    async def present(self, run: RunSpec) -> str:
        """What to make a container of. Raises `StartFailed` when the image is not here (any more)."""
        if run.lock is None or await self._inspect(run.lock) is None:
            raise StartFailed(f"image {run.lock} is not here; prepare its release first")
        return run.lock

    async def _inspect(self, reference: str) -> dict[str, Any] | None:
        try:
            return await self._engine.call("GET", f"/images/{reference}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _pull(self, reference: str) -> None:
        name = check_image(reference)
        tag = name.digest or name.tag or "latest"
        async with self._engine.messages("POST", "/images/create", fromImage=name.name, tag=tag) as steps:
            async for _ in steps:
                pass
