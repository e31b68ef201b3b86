"""Jobs to workers, and their reports back.

A worker polls for jobs and its poll is held open (*parked*) while there are none. A job that arrives meanwhile is stored
*with its lease* in one step and handed to the worker that parked last: the warmest one, so that the others can go idle.

What makes this safe with stock workers (protocol sections 0 and F):

1. A job is handed over only on an open connection; if the client left before the answer was written, the take is undone.
2. A report counts only while its worker holds the lease. Whatever else arrives is answered 2xx and changes nothing, since a
   stock worker drops a result at any 4xx and repeats it at any 5xx.
3. A worker that says it works on nothing, though a job was handed to it, is *suspected*: its poll is answered soon, and when
   it still says so a moment later, the result was lost on its side (it could not be serialised, or the handler ended the
   process). The job goes back to the queue and the worker is replaced.
4. A job is taken when its input is in hand. One whose input lies elsewhere, and those behind it, wait until it is loaded;
   who polls meanwhile parks.
5. A worker that drains gets no job, and its polls are answered at once: a job handed over after SIGTERM would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from runyard.domain.attempt import DEFAULT_LIMITS, AttemptLimits, Cause, Evidence
from runyard.domain.errors import RunyardError
from runyard.domain.job import EndpointId, Job, JobId, WorkerId
from runyard.domain.payload import Payload, Spilled
from runyard.domain.worker import Exit
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Signals
from runyard.services import topics
from runyard.services.inputs import Inputs
from runyard.services.insistence import insist
from runyard.services.parking import Lot, TakePoll
from runyard.services.roster import LiveWorker, Roster, StopPoll

SUSPICION_S = 2.0
"""How long a worker must keep saying that it works on nothing before a job it holds counts as lost."""
AHEAD_MAX = 16
"""So many of the first that wait have their inputs loaded ahead, as far as there is room for them."""
_CAS_ATTEMPTS_MAX = 10


class Dispatch:
    """Hands jobs to workers and takes their reports."""

    def __init__(
        self,
        store: JobStore,
        roster: Roster,
        inputs: Inputs,
        signals: Signals,
        clock: Clock,
        *,
        limits: Callable[[EndpointId], AttemptLimits] = lambda endpoint_id: DEFAULT_LIMITS,
    ) -> None:
        """`limits` are those of the jobs of an endpoint, as they are when one of them loses its worker."""
        self._limits = limits
        self._store = store
        self._roster = roster
        self._inputs = inputs
        inputs.loading.offer = self.requeued
        self._signals = signals
        self._clock = clock
        self._lots: dict[EndpointId, Lot] = {}
        self.replace_worker: Callable[[LiveWorker, str], None] = lambda live, reason: None
        """Set by the fleet: drain this worker, then stop it."""
        self.last_words: Callable[[WorkerId, JobId], tuple[str, ...]] = lambda worker_id, job_id: ()
        """Set by the fleet: what the worker has said last, and not about another job."""

    # Jobs in

    async def submit(self, job: Job, if_lost: Callable[[RunyardError], None] | None = None) -> Job:
        """Keep a new job, leased at once when a worker waits for one. Returns it as stored, when it is.

        With `if_lost` nobody waits for that: it is kept some milliseconds later, or `if_lost` is told that it never was.
        """
        lot = self._lot(job.endpoint_id)
        if not lot.polls or self._has_to_wait(lot, job) or (parked := lot.pop()) is None:
            change = await self._store.add_soon(job)
            await self._queued(lot, job.endpoint_id)
        else:
            poll, live = parked
            leased = job.take(live.id, self._clock.now())
            try:
                change = await self._store.add_soon(leased)
            except BaseException:
                lot.polls[poll] = live
                raise
            if self._hand_over(live, poll, (leased,)):
                self._signals.fire(topics.demand(job.endpoint_id))
                job = leased
            else:
                await self._store.save(job, was=leased)
                await self._queued(lot, job.endpoint_id)
        if if_lost is None:
            await self._store.kept(change)
        else:
            self._store.if_lost(change, if_lost)
        return job

    async def requeued(self, endpoint_id: EndpointId) -> None:
        """Jobs were put back into the queue, or can be had now: offer them to parked workers."""
        await self._queued(self._lot(endpoint_id), endpoint_id)

    async def _queued(self, lot: Lot, endpoint_id: EndpointId) -> None:
        lot.arrivals += 1
        if lot.polls and not lot.offering:
            await self._offer(lot)
        self._signals.fire(topics.demand(endpoint_id))

    def _has_to_wait(self, lot: Lot, job: Job) -> bool:
        """Whether others are, or may be, before it in the queue though there are parked polls; or its input has to come."""
        return lot.offering or isinstance(job.input, Spilled) or job.endpoint_id in self._inputs.loading.under_way

    async def _offer(self, lot: Lot) -> None:
        """Offer what waits to parked polls: to one at a time, so that none takes what another would have to give back."""
        lot.offering = True
        try:
            arrivals = -1
            while arrivals != lot.arrivals:
                arrivals = lot.arrivals
                for poll, live in reversed(list(lot.polls.items())):
                    await self._try(lot, live, poll, parked=True)
        finally:
            lot.offering = False

    # Jobs out

    async def poll(self, live: LiveWorker, poll: TakePoll) -> None:
        """Answer a worker's poll now if there is a job, else park it. The edge ends a parked poll with `leave`."""
        self.heard(live)
        live.concurrency = max(live.concurrency, poll.limit)
        suspect = await self._reconcile(live, poll)
        if not live.worker.takes_jobs or suspect:
            poll.end(soon=True)
            return
        lot = self._lot(live.worker.endpoint_id)
        while True:
            arrivals = lot.arrivals
            if await self._try(lot, live, poll):
                return
            if lot.arrivals == arrivals:
                break
        if not live.worker.takes_jobs:
            poll.end()
            return
        lot.polls[poll] = live

    def leave(self, live: LiveWorker, poll: TakePoll) -> bool:
        """Unpark a poll whose time is over or whose client has left; False when it was not parked (any more)."""
        return self._lot(live.worker.endpoint_id).leave(poll)

    async def _try(self, lot: Lot, live: LiveWorker, poll: TakePoll, *, parked: bool = False) -> bool:
        """Answer the poll with waiting jobs; False when there are none that it can have now."""
        if parked and poll not in lot.polls:
            return True  # It has left.
        if not live.worker.takes_jobs:
            lot.leave(poll)
            poll.end()
            return True
        endpoint_id, batch = live.worker.endpoint_id, self._inputs.batch()
        jobs = await self._store.take(endpoint_id, live.id, poll.limit, self._clock.now(), batch.has_room_for)
        if jobs:
            gone = parked and not lot.leave(poll)
            if gone or not self._hand_over(live, poll, batch.filled(jobs) if batch.asked else jobs):
                await self._give_back(live, jobs)
                await self._queued(lot, endpoint_id)
            elif batch.asked:
                batch.handed_over()
        if batch.asked:
            self._inputs.loading.begin(batch.missing, await self._store.first(endpoint_id, AHEAD_MAX))
        return bool(jobs)

    async def _give_back(self, live: LiveWorker, jobs: Sequence[Job]) -> None:
        """As if they had not been taken."""
        for job in reversed(jobs):
            await insist(partial(self._apply, live, job.id, lambda job, now: job.give_back()), self._clock)

    def _hand_over(self, live: LiveWorker, poll: TakePoll, jobs: Sequence[Job]) -> bool:
        if not live.worker.takes_jobs:
            poll.end()
            return False
        if not poll.give(jobs):
            return False
        now = self._clock.now()
        for job in jobs:
            live.took(job.id, now)
        return True

    # What workers say

    def heard(self, live: LiveWorker) -> None:
        """A poll or ping: the worker is up."""
        if live.heard(self._clock.now()):
            self._signals.fire(topics.demand(live.worker.endpoint_id))

    def pinged(self, live: LiveWorker, job_ids: frozenset[str]) -> None:
        """A ping with the jobs it claims. Pings do not prove life, and may lag; one that no longer names a job it was
        told to stop shows that the stop worked.
        """
        self.heard(live)
        now = self._clock.now()
        for job_id in [j for j in live.stopping if j not in job_ids]:
            if now - live.stopping[job_id] > SUSPICION_S:
                live.dropped(job_id, now)

    async def report(self, live: LiveWorker, job_id: JobId, end: Callable[[Job, float], Job]) -> None:
        """A result: `end` turns the held job into its end state. Anything but the first result of the holder is dropped."""
        await self._apply(live, job_id, end)
        live.dropped(job_id, self._clock.now())
        live.finished += 1
        self._signals.fire(job_id)
        self._signals.fire(topics.demand(live.worker.endpoint_id))

    async def progress(self, live: LiveWorker, job_id: JobId, value: Payload) -> None:
        """A progress update; it may come after the result, and then changes nothing."""
        await self._apply(live, job_id, lambda job, now: job.progress(value))

    async def stream(self, live: LiveWorker, job_id: JobId, chunks: Sequence[bytes]) -> None:
        """Stream chunks of a job the worker holds; others are dropped."""
        job = await self._store.latest(live.worker.endpoint_id, job_id)
        if job is not None and job.held_by(live.id) and await self._store.append_output(job, chunks):
            self._signals.fire(job_id)

    async def _apply(self, live: LiveWorker, job_id: JobId, change: Callable[[Job, float], Job]) -> bool:
        endpoint_id, worker_id = live.worker.endpoint_id, live.id
        for _ in range(_CAS_ATTEMPTS_MAX):
            job = await self._store.latest(endpoint_id, job_id)
            if job is None or not job.held_by(worker_id):
                # What came between must be kept, before the worker's word is dropped for it.
                job = await self._store.get(endpoint_id, job_id)
                if job is None or not job.held_by(worker_id):
                    return False
            changed = change(job, self._clock.now())
            if await self._store.save(changed, was=job):
                return True
        return False

    async def _reconcile(self, live: LiveWorker, poll: TakePoll) -> bool:
        """Compare what the worker says it works on with what it was handed. True while a job is in doubt."""
        if not poll.idle:
            live.suspected.clear()
        if not poll.idle or not live.held:
            return False
        now = self._clock.now()
        for job_id in list(live.held):
            first = live.suspected.setdefault(job_id, now)
            if job_id in live.stopping:
                live.dropped(job_id, now)
            elif now - first >= SUSPICION_S:
                await self._lose(
                    live, [job_id], "the worker finished the job without sending a result", Cause.RESULT_LOST
                )
                self.replace_worker(live, f"lost the result of job {job_id}")
        return bool(live.held)

    # Jobs back

    async def worker_gone(
        self, live: LiveWorker, reason: str, cause: Cause = Cause.WORKER_DIED, exit: Exit | None = None
    ) -> None:
        """Nothing of the worker runs any more: its jobs go back to the head of the queue, or FAILED when they have been
        tried often enough.
        """
        self.release_polls(live)
        await self._lose(live, list(live.held), reason, cause, exit)

    async def forsaken(self, job: Job, reason: str) -> None:
        """A running job whose worker nobody knows: it has ended with an earlier platform process."""
        lost = job.lose_worker(self._clock.now(), reason, Evidence(Cause.PLATFORM_DIED), self._limits(job.endpoint_id))
        if await insist(lambda: self._store.save(lost, was=job), self._clock):
            self._signals.fire(job.id)

    async def _lose(
        self, live: LiveWorker, job_ids: Sequence[JobId], reason: str, cause: Cause, exit: Exit | None = None
    ) -> None:
        code, signal = (None, None) if exit is None else (exit.code, exit.signal)
        limits = self._limits(live.worker.endpoint_id)
        for job_id in reversed(job_ids):  # Each goes to the head, so the one that was first goes last.
            evidence = Evidence(cause, code, signal, self.last_words(live.id, job_id))
            lose = partial(_lose_worker, reason=reason, evidence=evidence, limits=limits)
            await insist(partial(self._apply, live, job_id, lose), self._clock)
            live.dropped(job_id, self._clock.now())
            self._signals.fire(job_id)
        await self.requeued(live.worker.endpoint_id)

    def release_polls(self, live: LiveWorker) -> None:
        """Answer the worker's open polls with "nothing": before SIGTERM, so that no job follows it."""
        for poll in self._lot(live.worker.endpoint_id).release(live):
            poll.end()
        if live.stop_poll is not None:
            live.stop_poll.end()
            live.stop_poll = None

    # Stopping single jobs

    def stop_job(self, job: Job) -> None:
        """Tell the worker that holds the job to stop it, now or at its next stop poll (F029)."""
        live = None if job.lease is None else self._roster.get(job.lease.worker_id)
        if live is None or job.id not in live.held:
            return
        live.stopping[job.id] = self._clock.now()
        live.untold.add(job.id)
        poll, live.stop_poll = live.stop_poll, None
        if poll is not None:
            self._tell(live, poll)
        self._signals.fire(topics.demand(live.worker.endpoint_id))

    def stop_poll(self, live: LiveWorker, poll: StopPoll) -> None:
        """Answer a stop poll at once when there is something to stop, else keep it open.

        A worker that polls again has passed on what it was told: its loop is not blocked, and its handlers are cancelled.
        """
        live.heeded.update(live.stopping.keys() - live.untold)
        if live.stop_poll is not None:
            live.stop_poll.end()
            live.stop_poll = None
        if not live.worker.takes_jobs and not live.held:
            poll.end()
        elif not live.untold or not self._tell(live, poll):
            live.stop_poll = poll

    def _tell(self, live: LiveWorker, poll: StopPoll) -> bool:
        if not poll.give(list(live.untold)):
            return False
        live.untold.clear()
        return True

    def stop_poll_left(self, live: LiveWorker, poll: StopPoll) -> None:
        if live.stop_poll is poll:
            live.stop_poll = None

    def _lot(self, endpoint_id: EndpointId) -> Lot:
        lot = self._lots.get(endpoint_id)
        if lot is None:
            lot = self._lots[endpoint_id] = Lot()
        return lot


def end_state(output: Payload | None, error: str | None) -> Callable[[Job, float], Job]:
    """How a worker's result ends a job: an error fails it, anything else completes it."""
    if error is not None:
        return lambda job, now: job.fail(error, output, now)
    return lambda job, now: job.complete(output, now)


def _lose_worker(job: Job, now: float, *, reason: str, evidence: Evidence, limits: AttemptLimits) -> Job:
    return job.lose_worker(now, reason, evidence, limits)
