"""Workers' open polls for jobs, and those of an endpoint that wait for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runyard.domain.job import Job
from runyard.services.roster import LiveWorker


class TakePoll(Protocol):
    """An open poll of a worker for jobs."""

    limit: int
    """Most jobs it wants."""
    idle: bool
    """The worker says it works on nothing."""

    def give(self, jobs: Sequence[Job]) -> bool:
        """Answer with the jobs; False when the client has left."""
        ...

    def end(self, *, soon: bool = False) -> None:
        """Answer that there is no job; `soon`: after a moment, so that a worker that polls again at once does not spin."""
        ...


class Lot:
    """Parked polls of one endpoint, oldest first."""

    __slots__ = ("arrivals", "offering", "polls")

    def __init__(self) -> None:
        self.polls: dict[TakePoll, LiveWorker] = {}
        self.arrivals = 0
        """Counts times that jobs could be had and none was handed over with it: who was about to park compares it."""
        self.offering = False
        """What waits is being offered to parked polls, one after the other."""

    def leave(self, poll: TakePoll) -> bool:
        """False when it is not here (any more)."""
        return self.polls.pop(poll, None) is not None

    def release(self, live: LiveWorker) -> list[TakePoll]:
        """All that are this worker's leave."""
        theirs = [poll for poll, owner in self.polls.items() if owner is live]
        return [poll for poll in theirs if self.leave(poll)]

    def pop(self) -> tuple[TakePoll, LiveWorker] | None:
        """The poll that parked last of a worker that takes jobs; those of workers that no longer do are ended."""
        while self.polls:
            poll, live = self.polls.popitem()
            if live.worker.takes_jobs:
                return poll, live
            poll.end()
        return None
