"""What has to be known of containers when their Engine is away, or the platform is another process: a small file each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runyard.adapters.files import replace_text, write_secret
from runyard.domain.errors import StartFailed
from runyard.domain.job import EndpointId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """`container`: its id at the Engine, empty before it is made. `disk_limit`: bytes that it may write, if the Engine does
    not see to that itself. `heard`: how far its log was read (`heard.Heard.save`).
    """

    endpoint_id: EndpointId
    container: str = ""
    disk_limit: int | None = None
    heard: Mapping[str, Any] | None = None


class Notes:
    """Under `folder`. What cannot be written, for want of space, is not known later: lines are then said again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def workers(self) -> list[WorkerId]:
        return [WorkerId(path.stem) for path in self._folder.glob("*.json")]

    def read(self, worker_id: WorkerId) -> Note | None:
        with suppress(OSError, ValueError, TypeError):
            return Note(**json.loads(self._path(worker_id).read_text()))
        return None

    def write(self, worker_id: WorkerId, note: Note) -> None:
        with suppress(OSError):
            replace_text(self._path(worker_id), json.dumps(asdict(note)))

    def remove(self, worker_id: WorkerId) -> None:
        with suppress(OSError):
            self._path(worker_id).unlink(missing_ok=True)

    def _path(self, worker_id: WorkerId) -> Path:
        return self._folder / f"{worker_id}.json"


def platform_id(path: Path) -> str:
    """What labels call this data directory, so that it can be told from others at the same Engine; made once. Raises
    `StartFailed`.
    """
    try:
        if path.exists():
            return path.read_text().strip()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, os.urandom(8).hex())
        return path.read_text().strip()
    except OSError as error:
        raise StartFailed(f"cannot write {path}: {error}") from error
