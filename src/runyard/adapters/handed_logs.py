"""Workers' log lines, from a server that hands over to the next, in a file of the data directory."""

from __future__ import annotations

import logging
from pathlib import Path

from runyard.services.logs import Logs

log = logging.getLogger("runyard")

NAME = "logs.handed-over"


def pack_logs(logs: Logs, root: Path) -> None:
    """On a full disk the next server does without them."""
    file = root / NAME
    try:
        file.touch(mode=0o600)
        with file.open("wb") as packed:
            packed.writelines(logs.pack())
    except OSError as error:
        log.warning("the workers' log lines are not handed over: %s", error)


def unpack_logs(logs: Logs, root: Path) -> None:
    """Lines are good to have, and no reason not to start."""
    file = root / NAME
    try:
        with file.open("rb") as packed:
            logs.unpack(packed)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        log.warning("the log lines of the server before this one are lost: %s", error)
    file.unlink(missing_ok=True)
