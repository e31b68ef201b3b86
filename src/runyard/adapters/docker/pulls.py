"""Pulls: one request to the Engine, told as it goes, and tried again where that can help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from runyard.adapters.docker import faults
from runyard.adapters.docker.credentials import Login
from runyard.adapters.docker.engine import Engine, EngineError
from runyard.adapters.docker.progress import PullProgress
from runyard.adapters.docker.references import parts_to_pull
from runyard.domain.errors import ImageFailed, ImageFault
from runyard.ports.runtime import Say

PAUSES_S = (1.0, 5.0, 15.0)
"""Between tries. The Engine itself tries each layer five times."""
SILENCE_S_MAX = 600.0


class Pulls:
    """Of images, by one Engine. `now` is in seconds."""

    def __init__(self, engine: Engine, *, now: Callable[[], float], pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._engine = engine
        self._now = now
        self._pauses_s = pauses_s

    async def pull(self, image: str, login: Login | None, say: Say, *, insistent: bool = True) -> dict[str, Any]:
        """What the Engine knows of the image then, with `Digest`: the manifest's, if it was told. Whatever can pass is tried
        again; not `insistent`, only what broke off amid a pull. Raises `ImageFailed`.
        """
        say(f"pulling {image}")
        for pause_s in self._pauses_s:
            try:
                return await self._once(image, login, say)
            except ImageFailed as error:
                if error.fault in faults.LASTING or not (insistent or error.fault is ImageFault.PULL_FAILED):
                    raise
                say(f"pulling {image}: {error.message}; next try in {pause_s:g} s")
            await asyncio.sleep(pause_s)
        return await self._once(image, login, say)

    async def _once(self, image: str, login: Login | None, say: Say) -> dict[str, Any]:
        progress = PullProgress(image, self._now())
        try:
            await self._follow(image, login, progress, say)
            known = await self._engine.call("GET", f"/images/{image}/json")
        except EngineError as error:
            raise faults.of_pull(error, image, login, begun=progress.begun) from error
        except TimeoutError as error:
            raise ImageFailed(
                ImageFault.PULL_FAILED,
                f"the pull of {image} stands still: nothing was heard of it for {SILENCE_S_MAX:g} s",
            ) from error
        say(progress.end(int(known.get("Size") or 0), self._now()))
        return {**known, "Digest": progress.digest}

    async def _follow(self, image: str, login: Login | None, progress: PullProgress, say: Say) -> None:
        name, tag = parts_to_pull(image)
        query = {"fromImage": name, "tag": tag}
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(SILENCE_S_MAX) as patience:
            headers = login.headers if login else None
            async with self._engine.messages("POST", "/images/create", headers=headers, **query) as messages:
                async for message in messages:
                    patience.reschedule(clock() + SILENCE_S_MAX)
                    if (line := progress.take(message, self._now())) is not None:
                        say(line)
