"""Which images of the Engine are ours, and when they were last of use."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runyard.adapters.files import replace_text

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 600.0


@dataclass(slots=True)
class KeptImage:
    """An image that was pulled or built for us; `names` are the ones it was given for that."""

    id: str
    used_at: float
    names: set[str] = field(default_factory=set[str])

    def is_one_of(self, references: Iterable[str]) -> bool:
        return any(reference == self.id or reference in self.names for reference in references)


class KeptImages:
    """Remembered in `file`. What is not here was brought by the machine's owner. A lost file costs disk, never an image of
    somebody else's; a lost time of use (written every `WRITTEN_EVERY_S`) an image too early.
    """

    def __init__(self, file: Path, now: Callable[[], float]) -> None:
        self._file = file
        self._now = now
        self._images = _read(file)
        self._written_at = now()

    def __iter__(self) -> Iterator[KeptImage]:
        return iter(list(self._images.values()))

    def get(self, image_id: str) -> KeptImage | None:
        return self._images.get(image_id)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._images

    def keep(self, image_id: str, names: Iterable[str]) -> None:
        """It is ours, and goes by these names, too."""
        names = set(names)
        for other in self._images.values():
            other.names -= names  # A tag that moved.
        image = self._images.setdefault(image_id, KeptImage(image_id, 0.0))
        image.names |= names
        image.used_at = self._now()
        self.write()

    def used(self, *references: str) -> None:
        """By id, or by one of its names. Nothing happens where it is not ours."""
        for image in self._images.values():
            if image.is_one_of(references):
                image.used_at = self._now()
        if self._now() - self._written_at >= WRITTEN_EVERY_S:
            self.write()

    def forget(self, image_ids: Iterable[str]) -> None:
        for image_id in list(image_ids):
            self._images.pop(image_id, None)

    def write(self) -> None:
        self._written_at = self._now()
        images = [{**asdict(image), "names": sorted(image.names)} for image in self._images.values()]
        try:
            replace_text(self._file, json.dumps({"images": images}, indent=1))
        except OSError as error:  # A full disk, as a rule, and no reason to fail a start.
            log.warning("cannot remember which images are Runyard's in %s: %s", self._file, error)


def _read(file: Path) -> dict[str, KeptImage]:
    try:
        rows = json.loads(file.read_text())["images"]
        return {row["id"]: KeptImage(row["id"], float(row["used_at"]), set(row["names"])) for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("cannot read which images are Runyard's from %s, so none of them is removed: %s", file, error)
        return {}
