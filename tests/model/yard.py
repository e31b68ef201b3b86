"""The job services over memory adapters, and workers that do as they are told: what the machines drive."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.attempt import Cause
from runyard.domain.job import Job, JobId, JobState, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.stores import JobQuery
from runyard.services.dispatch import Dispatch
from runyard.services.jobs import Jobs, Request
from runyard.services.roster import LiveWorker, Roster
from runyard.services.sweeper import Sweeper
from tests.builders import ENDPOINT, a_worker, an_endpoint
from tests.control_doubles import CountingIds, SetClock


class Poll:
    """An open poll. `open` is whether its client is still there; nobody is told when that changes."""

    def __init__(self, yard: "Yard", worker: "Process", *, limit: int, idle: bool) -> None:
        self.yard = yard
        self.worker = worker
        self.limit = limit
        self.idle = idle
        self.open = True
        self.answer: list[Job] | None = None

    def give(self, jobs: Sequence[Job]) -> bool:
        assert self.answer is None, "a poll is answered once"
        assert self.worker.live.worker.takes_jobs, "a draining worker gets nothing"
        assert 1 <= len(jobs) <= self.limit
        self.yard.handed(self, jobs)
        if self.open:
            self.answer = list(jobs)
            self.worker.hands |= {job.id for job in jobs}
        return self.open

    def end(self, *, soon: bool = False) -> None:
        assert self.answer is None, "a poll is answered once"
        self.answer = []


class Process:
    """A worker's process: what it really works on, whatever the platform believes."""

    def __init__(self, live: LiveWorker) -> None:
        self.live = live
        self.hands: set[JobId] = set()
        self.poll: Poll | None = None
        self.careless = False
        """It has lost a result."""

    @property
    def id(self) -> WorkerId:
        return self.live.id

    @property
    def waits(self) -> bool:
        """Its poll is open and unanswered, and its client is there."""
        return self.poll is not None and self.poll.open and self.poll.answer is None


class Yard:
    """`handed` is called with every hand-over, before the poll says whether its client is there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock, self.ids, self.signals = SetClock(), CountingIds(), LocalSignals()
        self.store, self.roster = MemoryJobs(), Roster()
        self.dispatch = Dispatch(self.store, self.roster, self.signals, self.clock)
        self.dispatch.replace_worker = self._replace
        self.jobs = Jobs(self.store, self.dispatch, self.signals, self.clock, self.ids)
        self.sweeper = Sweeper(self.store, self.dispatch, self.signals, self.clock)
        self.endpoint = an_endpoint()
        self.processes: list[Process] = []

    def handed(self, poll: Poll, jobs: Sequence[Job]) -> None:
        """For a machine to check."""

    def _replace(self, live: LiveWorker, reason: str) -> None:
        assert next(p for p in self.processes if p.live is live).careless, (
            "only a worker that lost a result is replaced"
        )
        live.worker = live.worker.drain(reason)

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(doing)

    def close(self) -> None:
        self.loop.close()

    def all_jobs(self) -> dict[JobId, Job]:
        page = self.run(self.store.list(ENDPOINT, JobQuery(limit=10**6)))
        return {job.id: job for job in page.jobs}

    def waiting(self) -> list[Job]:
        return [job for job in self.all_jobs().values() if job.state is JobState.IN_QUEUE]

    def submit(self, id: JobId, **request: Any) -> Job:
        return self.run(self.jobs.submit(self.endpoint, Request(input=b"1", **request), id))

    def start_worker(self) -> Process:
        process = Process(self.roster.add(a_worker(self.ids.worker())))
        self.processes.append(process)
        return process

    def open_poll(self, process: Process, *, limit: int, stays: bool = True) -> None:
        """It polls, and says truly whether it works on something. `stays`: its client is there when the answer comes."""
        process.poll = Poll(self, process, limit=limit, idle=not process.hands)
        process.poll.open = stays
        self.run(self.dispatch.poll(process.live, process.poll))

    def leave(self, process: Process) -> None:
        """The client of its poll has left, and the edge has noticed."""
        assert process.poll is not None
        process.poll.open = False
        self.dispatch.leave(process.live, process.poll)

    def end_poll(self, process: Process) -> None:
        """The time is over for which its poll is held open."""
        if process.poll is not None and self.dispatch.leave(process.live, process.poll) and process.poll.open:
            process.poll.end()

    def kill(self, process: Process, cause: Cause = Cause.WORKER_DIED) -> None:
        """Its process ends, and the runtime says so, before anybody notices that its connection is gone."""
        if process.poll is not None:
            process.poll.open = False
        live = process.live
        live.worker = live.worker.stopped(self.clock.now(), Exit(None, 9))
        self.roster.retire(live)
        self.processes.remove(process)
        self.run(self.dispatch.worker_gone(live, "killed by signal 9", cause, Exit(None, 9)))
        process.hands.clear()
