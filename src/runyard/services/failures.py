"""Starts of releases that went wrong: counted in a row, with the evidence."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from runyard.domain.endpoint import ReleaseId
from runyard.domain.errors import BuildFailed, RunyardError, SecretMissing, SecretUnreadable, StartFailed
from runyard.domain.fleet import Failures
from runyard.ports.system import Clock
from runyard.services.roster import LiveWorker

log = logging.getLogger("runyard.fleet")

EVIDENCE_LINES = 5
_FOR_SECRETS = frozenset({SecretMissing.code, SecretUnreadable.code})


class StartFailures:
    """The row of each release: for the planner's back-off, and for whoever asks why a job waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[ReleaseId, Failures] = {}

    def count(self, release_id: ReleaseId, code: str, message: str, *, fresh: bool) -> None:
        """One more. `fresh`: the row before it has ended."""
        count = 1 if fresh else self._rows.get(release_id, Failures()).count + 1
        self._rows[release_id] = Failures(count=count, last_at=self._clock.now(), code=code, message=message)

    def of(self, release_id: ReleaseId, workers: Iterable[LiveWorker]) -> Failures:
        """The row as it is, given the workers that the endpoint has."""
        failures = self._rows.get(release_id)
        if failures is None:
            return Failures()
        if any(live.finished and live.worker.created_at >= failures.last_at for live in workers):
            # A worker that came after the last failure has finished a job: the row has ended.
            del self._rows[release_id]
            return Failures()
        return failures

    def keep_only(self, releases: Collection[ReleaseId]) -> None:
        """Drop the rows of all releases but these."""
        self._rows = {id: row for id, row in self._rows.items() if id in releases}

    def secrets_changed(self) -> None:
        """Forget the rows that have ended with a secret that was missing or could not be read."""
        self._rows = {id: row for id, row in self._rows.items() if row.code not in _FOR_SECRETS}


def failure_of(error: Exception) -> RunyardError:
    """What a start ended with. What nobody has thought of ends one as well: the log has it, and it counts as any other."""
    if isinstance(error, RunyardError):
        return error
    log.error("a start has failed", exc_info=error)
    return StartFailed("something went wrong inside Runyard: its log says what")


def told_by(error: RunyardError) -> tuple[str, str]:
    """The code of a start's failure, and its evidence."""
    tail = error.log_tail[-EVIDENCE_LINES:] if isinstance(error, BuildFailed) else ()
    code = error.code if isinstance(error, BuildFailed | StartFailed) else StartFailed.code
    return code, " | ".join((error.message, *tail))
