"""Which images go, and their removal.

Images share layers, so what one takes, and what its removal gives, is counted by layer: the Engine's history of an image has
their sizes, and what two histories have in common from the start, their images share.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runyard.adapters.docker.engine import Engine, EngineError
from runyard.adapters.docker.kept_images import KeptImages
from runyard.adapters.docker.references import real

log = logging.getLogger("runyard.images")

FRESH_S = 900.0
"""So young, it may be of use that is not recorded yet: a release's first start."""
LEFTOVER_S = 7 * 86_400.0
"""So long, steps of builds are kept for builds to come, room or not."""
BUILD_LABEL = "runyard.build"
GONE, IN_USE = 404, 409

Layers = tuple[tuple[str, int], ...]
"""From the lowest: what tells a layer from others, and its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An image that is ours to remove."""

    id: str
    layers: Layers
    used_at: float
    in_use: bool = False
    leftover: bool = False
    """Of a build: it has no name."""


def layers_of(history: Sequence[Mapping[str, Any]]) -> Layers:
    """From an image's history, which has its newest step first."""
    told: list[tuple[str, int]] = []
    below = ""
    for step in reversed(history):
        size = int(step.get("Size") or 0)
        below = str(hash((below, step.get("Created"), step.get("CreatedBy"), size)))
        if size:
            told.append((below, size))
    return tuple(told)


def to_remove(held: Iterable[Held], *, bytes_max: int, lacking: int, now: float) -> list[Held]:
    """What has to go so that all takes no more than `bytes_max` (0: any), and at least `lacking` bytes become free: what
    was not of use for longest first. Nothing that is in use, or so fresh that it may be, and nothing whose removal would
    give nothing. Leftovers go besides when they are old.
    """
    held = list(held)
    sizes = {layer: size for image in held for layer, size in image.layers}
    sharers = Counter(layer for image in held for layer, _ in image.layers)
    wanted = max(sum(sizes.values()) - bytes_max if bytes_max else 0, lacking)
    staying = [image for image in held if not image.in_use and now - image.used_at >= FRESH_S]
    staying.sort(key=lambda image: image.used_at)
    going: list[Held] = []

    def frees(image: Held) -> int:
        return sum(size for layer, size in image.layers if sharers[layer] == 1)

    def next_to_go(image: Held) -> bool:
        is_old = image.leftover and now - image.used_at >= LEFTOVER_S
        return is_old or (wanted > 0 and frees(image) > 0)

    # One that gives nothing may give something once another that shares its layers has gone.
    while image := next(filter(next_to_go, staying), None):
        staying.remove(image)
        going.append(image)
        wanted -= frees(image)
        sharers.subtract(layer for layer, _ in image.layers)
    return going


class Collector:
    """Removes what of `kept`, and of builds' leftovers, is in nobody's way of use. What a container uses stays."""

    def __init__(
        self,
        engine: Engine,
        kept: KeptImages,
        *,
        bytes_max: int,
        lacking: Callable[[Path], int],
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._kept = kept
        self._bytes_max = bytes_max
        self._lacking = lacking
        self._now = now
        self._layers: dict[str, Layers] = {}
        self._running = asyncio.Lock()

    async def collect(self, in_use: Collection[str], *, building: bool) -> list[str]:
        """The ids of what was removed. `building`: leftovers may be what a build stands on just now."""
        async with self._running:
            there = {row["Id"]: row for row in await self._engine.call("GET", "/images/json")}
            self._kept.forget([image.id for image in self._kept if image.id not in there])
            self._kept.used(*in_use)
            containers = await self._engine.call("GET", "/containers/json", all="1")
            in_use = {*in_use, *(container["ImageID"] for container in containers)}
            held = await self._held(there, in_use, building)
            root = (await self._engine.call("GET", "/info")).get("DockerRootDir") or "/"
            lacking = await asyncio.to_thread(self._lacking, Path(root))
            going = to_remove(held, bytes_max=self._bytes_max, lacking=lacking, now=self._now())
            gone = [image.id for image in going if await self._remove(image, there[image.id])]
            self._kept.forget(gone)
            self._kept.write()
            return gone

    async def _held(self, there: Mapping[str, Mapping[str, Any]], in_use: set[str], building: bool) -> list[Held]:
        held = [
            Held(
                id=image.id,
                layers=await self._layers_of(image.id),
                used_at=image.used_at,
                in_use=image.is_one_of(in_use),
            )
            for image in self._kept
        ]
        for image_id, row in there.items():
            if not building and image_id not in self._kept and _is_leftover(row):
                layers = await self._layers_of(image_id)
                used = image_id in in_use
                held.append(Held(id=image_id, layers=layers, used_at=float(row["Created"]), in_use=used, leftover=True))
        self._layers = {image.id: image.layers for image in held}
        return held

    async def _layers_of(self, image_id: str) -> Layers:
        if image_id not in self._layers:
            try:
                self._layers[image_id] = layers_of(await self._engine.call("GET", f"/images/{image_id}/history"))
            except EngineError as error:
                if error.status != GONE:
                    raise
                return ()
        return self._layers[image_id]

    async def _remove(self, image: Held, row: Mapping[str, Any]) -> bool:
        """Take our names off it; with its last name an image goes."""
        kept = self._kept.get(image.id)
        if kept is not None and kept.used_at > image.used_at:
            return False  # It has just come into use.
        ours = kept.names if kept else set[str]()
        names = [name for name in (*real(row.get("RepoTags")), *real(row.get("RepoDigests"))) if name in ours]
        removed = image.leftover or not names
        for name in [image.id] if image.leftover else names:
            try:
                await self._engine.call("DELETE", f"/images/{name}")
                removed = True
            except EngineError as error:
                if error.status == IN_USE:
                    return False
                if error.status != GONE:
                    raise
        if removed:
            log.info("removed image %s (%s)", image.id, ", ".join(names) or "without a name")
        return removed


def _is_leftover(row: Mapping[str, Any]) -> bool:
    named = real(row.get("RepoTags")) or real(row.get("RepoDigests"))
    return not named and BUILD_LABEL in (row.get("Labels") or {})
