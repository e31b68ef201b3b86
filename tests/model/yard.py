"""The job services over a real store, and workers that do as they are told: what the machines drive."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.fleet import MemoryFleet
from runyard.domain.attempt import Cause
from runyard.domain.job import Job, JobId, JobState, WorkerId
from runyard.domain.payload import Spilled
from runyard.domain.terms import DEFAULT_TERMS
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch
from runyard.ports.stores import JobQuery, JobStore
from runyard.services.adoption import Adoption, Records
from runyard.services.dispatch import Dispatch
from runyard.services.inputs import Inputs
from runyard.services.jobs import Jobs, Request
from runyard.services.roster import LiveWorker, Roster
from runyard.services.spill import Carried, Spills
from runyard.services.sweeper import Sweeper
from tests.builders import ENDPOINT, a_worker, an_endpoint
from tests.control_doubles import CountingIds, SetClock
from tests.edge_kit import Book
from tests.model.grounds import Ground
from tests.payload_kit import MemoryPayloads, MemoryReading
from tests.runtime_kit import Listener

INLINE_BYTES_MAX = 20


def input_of(id: JobId) -> bytes:
    """What the job of this id is submitted with; every other one is large."""
    return id.encode().ljust(INLINE_BYTES_MAX + 1 if int(id.rpartition("-")[2]) % 2 else 1)


class TurningPayloads(MemoryPayloads):
    """Others come in between when one is read."""

    async def open(self, payload: Spilled) -> MemoryReading:
        await asyncio.sleep(0)
        reading = await super().open(payload)
        await asyncio.sleep(0)
        return reading


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


class OneThreadLoop(asyncio.SelectorEventLoop):
    """What a store gives to a thread is done here, a turn of the loop later: so that each story can be told again."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()

        def do() -> None:
            try:
                done.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - It is for whoever waits.
                done.set_exception(error)

        self.call_soon(do)
        return done


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

    def __init__(self, ground: Ground) -> None:
        self.loop = OneThreadLoop()
        self.clock, self.ids = SetClock(), CountingIds()
        self.ground = ground
        self.payloads = TurningPayloads()
        """They outlive each process, as files do."""
        self.endpoint = an_endpoint()
        self.processes: list[Process] = []
        self.told: Any = None
        self.terms = DEFAULT_TERMS
        self._begin(self.loop.run_until_complete(ground.open()))

    def _begin(self, store: JobStore) -> None:
        """A platform process."""
        self.store, self.roster, self.signals = store, Roster(), LocalSignals()
        self.spills = Spills(self.payloads, store, self.clock, Carried(0))
        self.inputs = inputs = Inputs(self.spills, store, self.signals, self.clock, inline_bytes_max=INLINE_BYTES_MAX)
        self.dispatch = Dispatch(store, self.roster, inputs, self.signals, self.clock)
        self.dispatch.replace_worker = self._replace
        terms = lambda endpoint_id: self.terms  # noqa: E731
        self.jobs = Jobs(store, self.dispatch, inputs, self.signals, self.clock, self.ids, terms=terms)
        self.sweeper = Sweeper(store, self.dispatch, self.signals, self.clock)

    def handed(self, poll: Poll, jobs: Sequence[Job]) -> None:
        """For a machine to check."""

    def _replace(self, live: LiveWorker, reason: str) -> None:
        assert next(p for p in self.processes if p.live is live).careless, (
            "only a worker that lost a result is replaced"
        )
        live.worker = live.worker.drain(reason)

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        """Do this, and what it has begun."""
        return self.loop.run_until_complete(self._all(doing))

    async def _all(self, doing: Coroutine[Any, Any, Any]) -> Any:
        told = await doing
        await self.inputs.loading.settled()
        return told

    def close(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.ground.close()

    def all_jobs(self) -> dict[JobId, Job]:
        """But for those that are only kept behind their time."""
        page = self.run(self.store.list(ENDPOINT, JobQuery(limit=10**6)))
        now = self.clock.now()
        return {job.id: job for job in page.jobs if not job.terminal or job.expires_at > now}

    def waiting(self) -> list[Job]:
        return [job for job in self.all_jobs().values() if job.state is JobState.IN_QUEUE]

    def submit(self, id: JobId, **request: Any) -> Job:
        return self.run(self.jobs.submit(self.endpoint, Request(input=input_of(id), **request), id))

    def submit_once(self, id: JobId, *, other: bytes = b"", **request: Any) -> tuple[Job, bool]:
        """Under this name; with `other` it is another request."""
        return self.run(self.jobs.submit_once(self.endpoint, Request(input=input_of(id) + other, **request), id))

    def sweep(self) -> None:
        while self.run(self.sweeper.sweep()):
            pass
        self.run(self.spills.sweep())

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

    # From one platform process to the next

    def restart(self) -> None:
        """As planned: polls are answered with nothing, what stops a job is not used again, all that runs is adopted."""
        for process in self.processes:
            self.end_poll(process)
            if process.live.stopping:
                process.live.worker = process.live.worker.drain("it was stopping a job")
        self.run(self.inputs.close())
        self.run(self.store.close())
        self._succeed(self.processes)

    def crash(
        self, amid: Coroutine[Any, Any, Any], *, turns: int | None, dying: Sequence[Process], recorded: bool
    ) -> None:
        """The platform dies `turns` turns of the loop after `amid` began, None: as soon as that is answered (`told`); and
        these workers die with it. `recorded`: the next process knows of those.
        """
        if turns is None:
            doing = self.loop.create_task(self._fatal(amid))
            self.loop.run_until_complete(asyncio.wait([doing]))
        else:
            doing = self.loop.create_task(amid)
            for _ in range(turns):
                self.loop.run_until_complete(asyncio.sleep(0))
            self._die()
        doing.cancel()
        self.loop.run_until_complete(asyncio.wait([doing, *self.inputs.loading.tasks]))
        self.told = None if doing.cancelled() else doing.result()
        self.run(self.store.close())
        running = [process for process in self.processes if process not in dying]
        if not recorded:
            self.processes = running
        self._succeed(running)

    async def _fatal(self, doing: Coroutine[Any, Any, Any]) -> Any:
        """Dies with the answer on its lips: whatever is still to be done then is not done."""
        told = await doing
        self._die()
        return told

    def _die(self) -> None:
        self.ground.dies()
        for process in self.processes:
            if process.poll is not None:
                process.poll.open = False
        for task in self.inputs.loading.tasks:
            task.cancel()

    def _succeed(self, running: Sequence[Process]) -> None:
        """The next process finds these workers running; of the others it has records."""
        fleet, runtime = MemoryFleet(), FakeRuntime(Listener())
        for process in self.processes:
            self.run(fleet.save(process.live.worker))
        for process in running:
            run = process.live.worker.release.run
            self.run(runtime.start(Launch(worker_id=process.id, endpoint_id=ENDPOINT, run=run, env={})))
        self._begin(self.run(self.ground.open()))
        self.on_takeover()
        book = Book(self.endpoint)
        adoption = Adoption(Records(fleet), self.store, book, self.roster, self.dispatch, self.clock)
        self.run(adoption.run(runtime, self))

    def on_takeover(self) -> None:
        """For a machine to check what the next process finds."""

    # What the adoption tells its heirs

    async def adopted(self, live: LiveWorker) -> None:
        process = next(process for process in self.processes if process.id == live.id)
        process.live = live
        if live.held.keys() - process.hands:
            process.careless = True  # What it was handed, or had to say, went down with the connection.

    async def gone(self, live: LiveWorker) -> None:
        self.processes = [process for process in self.processes if process.id != live.id]
        live.worker = live.worker.stopped(self.clock.now(), None)
        self.roster.retire(live)
        await self.dispatch.worker_gone(live, "ended while the platform was away")

    async def see_to(self, work: Coroutine[Any, Any, None]) -> None:
        await work

    def stop_soon(self, live: LiveWorker, reason: str) -> None:
        raise AssertionError(f"{live.id} is to be stopped: {reason}")
