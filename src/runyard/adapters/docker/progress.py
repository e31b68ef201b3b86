"""How far a pull is, in one line every other second: time comes as an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVERY_S = 2.0
MB = 1_000_000
_WAITING = ("Pulling fs layer", "Waiting")
_ARRIVED = ("Verifying Checksum", "Download complete", "Extracting")
_DONE = ("Pull complete", "Already exists")


@dataclass(slots=True)
class _Layer:
    got: int = 0
    total: int | None = None
    """Bytes to download; None before that has begun."""
    arrived: bool = False
    done: bool = False
    retrying: bool = False


class PullProgress:
    """What the Engine tells of one pull of `image`, made into lines."""

    def __init__(self, image: str, now: float) -> None:
        self._image = image
        self._started_at = self._said_at = now
        self._layers: dict[str, _Layer] = {}
        self.digest: str | None = None
        """The manifest's, once it has been told."""
        self.up_to_date = False

    @property
    def begun(self) -> bool:
        """Whether any layer was on its way."""
        return any(layer.total is not None for layer in self._layers.values())

    def take(self, message: Mapping[str, Any], now: float) -> str | None:
        """A line, when there is news of a layer and the last line is `EVERY_S` ago."""
        status = str(message.get("status", ""))
        if status.startswith("Digest: "):
            self.digest = status.removeprefix("Digest: ").strip()
        elif status.startswith("Status: "):
            self.up_to_date = "up to date" in status
        elif not self._is_of_layer(message, status) or now - self._said_at < EVERY_S:
            return None
        else:
            self._said_at = now
            return f"pulling {self._image}: {self._how_far()}"
        return None

    def end(self, size: int, now: float) -> str:
        """The last line; `size` is what the image takes on this machine, in bytes."""
        if self.up_to_date:
            return f"pulled {self._image}: it was here already, and is up to date"
        return f"pulled {self._image}: {_size(size)} in {now - self._started_at:.1f} s"

    def _is_of_layer(self, message: Mapping[str, Any], status: str) -> bool:
        retrying = status.startswith("Retrying in ")
        if "id" not in message or not (retrying or status in (*_WAITING, "Downloading", *_ARRIVED, *_DONE)):
            return False
        layer = self._layers.setdefault(str(message["id"]), _Layer())
        layer.retrying = retrying
        if status == "Downloading":
            detail: Mapping[str, Any] = message.get("progressDetail") or {}
            layer.got = int(detail.get("current") or 0)
            layer.total = max(int(detail.get("total") or 0), layer.got)
        elif status in (*_ARRIVED, *_DONE):
            layer.arrived, layer.got = True, layer.total or 0
        layer.done = layer.done or status in _DONE
        return True

    def _how_far(self) -> str:
        layers = self._layers.values()
        far = f"{sum(layer.done for layer in layers)} of {len(layers)} layers"
        total = sum(layer.total or 0 for layer in layers)
        if any(layer.retrying for layer in layers):
            return f"{far}; the connection broke, and the Engine tries again"
        if not total:
            return far
        if all(layer.done for layer in layers):
            return f"{far}, {_size(total)}"
        if all(layer.arrived for layer in layers):
            return f"{far}, {_size(total)} are here and being unpacked"
        more = "" if all(layer.arrived or layer.total is not None for layer in layers) else " or more"
        return f"{far}, {_amount(sum(layer.got for layer in layers))} of {_size(total)}{more}"


def _size(count: int) -> str:
    return f"{_amount(count)} MB"


def _amount(count: int) -> str:
    return f"{count / MB:.1f}" if count < 10 * MB else f"{count / MB:.0f}"
