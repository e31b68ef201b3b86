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

    __slots__ = ("arrivals", "loading", "polls", "returns")

    def __init__(self) -> None:
        self.polls: dict[TakePoll, LiveWorker] = {}
        self.loading: dict[TakePoll, LiveWorker] = {}
        """Those that are to have a job as soon as its input is there: they are not looked at meanwhile, and may leave."""
        self.arrivals = 0
        """Counts jobs that found no parked poll; a poll that was about to park compares it."""
        self.returns = 0
        """Counts times that jobs, taken for a parked poll, were given back, and others may have them."""

    def leave(self, poll: TakePoll) -> bool:
        """False when it is not here (any more)."""
        return self.polls.pop(poll, None) is not None or self.loading.pop(poll, None) is not None

    def release(self, live: LiveWorker) -> list[TakePoll]:
        """All that are this worker's leave."""
        theirs = [poll for polls in (self.polls, self.loading) for poll, owner in polls.items() if owner is live]
        return [poll for poll in theirs if self.leave(poll)]

    def pop(self) -> tuple[TakePoll, LiveWorker] | None:
        """The poll that parked last of a worker that takes jobs; those of workers that no longer do are ended."""
        while self.polls:
            poll, live = self.polls.popitem()
            if live.worker.takes_jobs:
                return poll, live
            poll.end()
        return None
