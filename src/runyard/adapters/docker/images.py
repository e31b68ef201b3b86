"""The images that releases run: pulled or built once, pinned, used from then on, and removed when nothing needs them.

Rules:

1. A release that has no lock yet asks the registry, since a tag moves. Its lock is then the image by digest, and workers
   that start later ask nobody, whatever becomes of the tag or the registry.
2. An image that is here under its name and that no registry has given it is the machine owner's: it is used as it is, and
   nobody is asked for one of that name, who might be a stranger.
3. A registry that cannot be asked, or has the image no more, keeps no image from being used that is here.
4. What the owner has brought to this machine is never removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runyard.adapters.docker.builds import BuildOptions, Builds
from runyard.adapters.docker.collector import GONE, Collector
from runyard.adapters.docker.credentials import login_to
from runyard.adapters.docker.engine import Engine, EngineError
from runyard.adapters.docker.kept_images import KeptImages
from runyard.adapters.docker.maker import Present
from runyard.adapters.docker.pulls import PAUSES_S, Pulls
from runyard.adapters.docker.references import given, pinned
from runyard.adapters.docker.sharing import SharedWork
from runyard.domain.container import ContainerSpec, check_image
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import ImageFailed, ImageFault, StartFailed
from runyard.domain.job import EndpointId
from runyard.ports.runtime import Say
from runyard.ports.secrets import Credentials
from runyard.ports.stores import Blobs

ID = "sha256:"
DEFAULT_BUILDS = BuildOptions()
USES_WHAT_IS_HERE = (ImageFault.UNREACHABLE, ImageFault.BUSY, ImageFault.NOT_FOUND)


class Images:
    """Of one Engine; which of them are ours is remembered in `folder`, which is this object's alone.

    `bytes_max` is what they may take together before unused ones go (0: any), `lacking` says how many bytes the disk of a
    folder lacks, the Engine's. `now` is in Unix seconds. To be closed, before the Engine is.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: Blobs,
        folder: Path,
        credentials: Credentials,
        *,
        builds: BuildOptions = DEFAULT_BUILDS,
        bytes_max: int = 0,
        lacking: Callable[[Path], int] = lambda folder: 0,
        now: Callable[[], float] = time.time,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._engine = engine
        self._credentials = credentials
        self._kept = KeptImages(folder / "images.json", now)
        self._pulls = Pulls(engine, now=now, pauses_s=pauses_s)
        self._builds = Builds(engine, blobs, folder, self._bring, options=builds, now=now)
        self._collector = Collector(engine, self._kept, bytes_max=bytes_max, lacking=lacking, now=now)
        self._pulling: SharedWork[dict[str, Any]] = SharedWork(goes_on=True)
        self._building: SharedWork[str] = SharedWork(goes_on=False)

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        """Have the image of this container here; returns `run` with its `lock`: `NAME@sha256:...`, or the image's id where
        no registry knows it. One whose lock is here costs one question to the Engine. Raises `BuildFailed` (also
        `ImageFailed`, whose code says what to do), `NoEngine`.
        """
        spec = run.container
        assert spec is not None, "a process has no image"
        if run.lock and await self._known(run.lock) is not None:
            lock = run.lock
        elif spec.built:
            lock = await self._built(run, say)
        elif run.lock:
            lock = await self._pulled_again(spec, run.lock, say)
        else:
            lock = await self._resolved(spec, say)
        self._kept.used(lock)
        return replace(run, lock=lock)

    async def present(self, run: RunSpec) -> Present:
        """What to create a container from. Raises `StartFailed` when it is not here (any more), `NoEngine`."""
        known = await self._known(run.lock) if run.lock else None
        if not run.lock or known is None:
            raise StartFailed(
                f"image {run.lock or 'of a release that was not prepared'} is not on this machine (any more); the next "
                "start brings it back"
            )
        self._kept.used(run.lock)
        return Present(run.lock, known["Config"] or {})

    async def collect(self, in_use: Collection[str]) -> list[str]:
        """Remove images of ours that are not `in_use` (by lock), as far as room is wanted; returns their ids. Raises
        `NoEngine`, `EngineError`.
        """
        return await self._collector.collect(in_use, building=len(self._building) > 0)

    async def close(self) -> None:
        """End pulls and builds; whoever waits for one has `BuildFailed`."""
        await self._pulling.close()
        await self._building.close()
        await asyncio.to_thread(self._kept.write)

    # --- Pulled

    async def _resolved(self, spec: ContainerSpec, say: Say) -> str:
        """Which image the name means now."""
        here = await self._known(spec.image)
        if here is not None:
            lock = pinned(spec.image, here.get("RepoDigests") or ())
            if lock is None:
                say(f"{spec.image} is an image that this machine's owner has put here, so no registry is asked for it")
                return here["Id"]
            if check_image(spec.image).digest:
                return lock
        try:
            there = await self._pull(spec.image, spec.registry, say, insistent=here is None)
        except ImageFailed as error:
            if here is None or error.fault not in USES_WHAT_IS_HERE:
                raise
            say(f"{error.message}; the image of that name that is here already is used")
            there = here
        return pinned(spec.image, there.get("RepoDigests") or (), there.get("Digest")) or there["Id"]

    async def _pulled_again(self, spec: ContainerSpec, lock: str, say: Say) -> str:
        """Just the image that it was."""
        if lock.startswith(ID):
            raise ImageFailed(
                ImageFault.NOT_FOUND,
                f"the image {lock} that this release runs ({spec.image}) was removed from this machine, and no registry is "
                "known to have it: put it back, or deploy again",
            )
        say(f"the image of this release was removed from this machine: {lock}")
        await self._pull(lock, spec.registry, say)
        return lock

    async def _bring(self, image: str, credential_id: str | None, say: Say) -> None:
        """Have an image here that a build begins with."""
        here = await self._known(image)
        if here is None:
            await self._pull(image, credential_id, say)
        else:
            self._kept.used(here["Id"])

    async def _pull(self, image: str, credential_id: str | None, say: Say, *, insistent: bool = True) -> dict[str, Any]:
        login = await login_to(image, credential_id, self._credentials)

        async def pull(say: Say) -> dict[str, Any]:
            before = {row["Id"] for row in await self._engine.call("GET", "/images/json")}
            there = await self._pulls.pull(image, login, say, insistent=insistent)
            if there["Id"] not in before or there["Id"] in self._kept:
                digest = pinned(image, there.get("RepoDigests") or (), there["Digest"])
                self._kept.keep(
                    there["Id"], [*given(there.get("RepoTags") or (), image), *([digest] if digest else [])]
                )
            await self._warn_of_platform(image, there, say)
            return there

        return await self._pulling.do(f"{image} {credential_id} {insistent}", pull, say)

    async def _warn_of_platform(self, image: str, there: dict[str, Any], say: Say) -> None:
        made_for, machine = there.get("Architecture"), (await self._engine.call("GET", "/version")).get("Arch")
        if made_for and machine and made_for != machine:
            say(f"{image} is made for {made_for}, and this machine is {machine}: it runs only if that is emulated here")

    # --- Built

    async def _built(self, run: RunSpec, say: Say) -> str:
        tag = await self._builds.tag_of(run)

        async def build(say: Say) -> str:
            if (here := await self._known(tag)) is not None:
                say("the image of these files was built before")
            else:
                here = await self._builds.build(run, tag, say)
            self._kept.keep(here["Id"], [tag])
            return here["Id"]

        return await self._building.do(tag, build, say)

    async def _known(self, reference: str) -> dict[str, Any] | None:
        """What the Engine knows of an image; None: it is not here."""
        try:
            return await self._engine.call("GET", f"/images/{reference}/json")
        except EngineError as error:
            if error.status != GONE:
                raise StartFailed(f"the Engine cannot tell about image {reference}: {error}") from error
            return None
