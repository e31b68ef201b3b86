"""A machine that lives the life of many jobs, and checks after each step what must always hold.

Jobs are submitted, taken, finished, cancelled and retried; results come twice, late, from the wrong worker or never; workers
die and drain; clients leave before their answer; the platform restarts, and dies amid what it does. The machine keeps its
own book of the queue, the runs and who had what. It lives over every store.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runyard.domain.attempt import ATTEMPTS_KEPT_MAX, ATTEMPTS_MAX, Cause
from runyard.domain.errors import Conflict, Expired, Quarantined
from runyard.domain.job import RETRYABLE, ExecutionPolicy, Job, JobId, JobState, WorkerId
from runyard.domain.payload import Spilled
from runyard.domain.terms import QUEUE, JobTerms, TtlScope
from runyard.services.dispatch import SUSPICION_S, end_state
from runyard.services.jobs import Request
from tests.builders import ENDPOINT
from tests.model.grounds import EmbeddedGround, Ground, MemoryGround
from tests.model.yard import Poll, Process, Yard, input_of

PICKS = st.integers(0, 99)
LIMITS = st.sampled_from([1, 1, 1, 3])

Promise = Callable[[Any, Job], bool]
"""Given an answer and a job that it is about as the next process finds it: whether it is as the answer said."""


def requeued(job: Job) -> int:
    """How often it went back to the queue in this run: with every loss but one that uses up its last attempt."""
    return job.attempts_lost - (job.attempts_lost - job.attempts_excused >= ATTEMPTS_MAX)


def is_over(job: Job, now: float) -> bool:
    """Whether it is to be deleted: one that runs may finish if its ttl counts only in the queue."""
    may_finish = job.ttl_scope is QUEUE and job.state is JobState.IN_PROGRESS
    return job.expires_at <= now and not may_finish


class JobLife(RuleBasedStateMachine):
    ground: Callable[[], Ground] = MemoryGround

    def __init__(self) -> None:
        super().__init__()
        self.yard = Yard(type(self).ground())
        self.yard.handed = self.check_hand_over
        self.yard.on_takeover = self.check_takeover
        self.submitted: set[JobId] = set()
        self.expired: set[JobId] = set()
        self.kept: dict[JobId, Job] = {}
        """Those of them that ended before, as they did, until they are forgotten."""
        self.before: dict[JobId, Job] = {}
        self.queue: list[JobId] = []
        """Waiting jobs that keep their order; those that came back to the head are not in it."""
        self.returned: set[JobId] = set()
        """Those."""
        self.lost: dict[JobId, set[WorkerId]] = defaultdict(set)
        """Workers that have lost a job or run out of its time, and so may still report on it."""
        self.ends: dict[tuple[JobId, int], tuple[JobState, bytes | None, str | None]] = {}
        self.retried = 0
        self.unsure: set[JobId] = set()
        """What may or may not have changed when the platform died: nobody was told."""
        self.promise: Promise | None = None
        """What somebody was told."""
        self.had: set[tuple[WorkerId, JobId]] = set()
        """What each worker had in its hands before that."""

    def teardown(self) -> None:
        try:
            self.all_comes_to_rest()
        finally:
            self.yard.close()

    def check_hand_over(self, poll: Poll, jobs: Sequence[Job]) -> None:
        """First in, first out after what came back, save for what the worker may not have."""
        for job in jobs:
            assert job.held_by(poll.worker.id)
            assert job.input == input_of(job.id), "it comes with its input, wherever that was"
            assert poll.worker.id not in self.lost[job.id]
            assert job.expires_at > self.yard.clock.now(), f"{job.id} was handed out after its time"
            if job.id in self.queue:
                ahead = {*self.returned, *self.queue[: self.queue.index(job.id)]} - {other.id for other in jobs}
                passed = [id for id in ahead if poll.worker.id not in self.lost[id] and not self.waits_too_long(id)]
                assert [] == passed, f"{job.id} was handed out before {passed}"
        kept_order = [self.queue.index(job.id) for job in jobs if job.id in self.queue]
        assert sorted(kept_order) == kept_order
        if poll.open:
            given = {job.id for job in jobs}
            self.queue = [id for id in self.queue if id not in given]
            self.returned -= given

    # What clients do

    @initialize()
    def two_workers_poll(self) -> None:
        for _ in range(2):
            self.yard.open_poll(self.yard.start_worker(), limit=1)

    @rule(
        count=st.integers(1, 3),
        low=st.booleans(),
        ttl_s=st.sampled_from([10, 10, 86_400]),
        timeout_s=st.sampled_from([5, 600]),
        named=st.booleans(),
        scope=st.sampled_from(TtlScope),
    )
    def submit(self, count: int, low: bool, ttl_s: int, timeout_s: int, named: bool, scope: TtlScope) -> None:
        self.yard.terms = JobTerms(ttl_scope=scope)
        policy = ExecutionPolicy(
            low_priority=low, ttl=timedelta(seconds=ttl_s), execution_timeout=timedelta(seconds=timeout_s)
        )
        for _ in range(count):
            id = self.yard.jobs.new_id(sync=False)
            self.submitted.add(id)
            self.queue.append(id)
            if named:
                assert not self.yard.submit_once(id, policy=policy)[1]
            else:
                self.yard.submit(id, policy=policy)

    @precondition(lambda self: any(job.fingerprint for job in self.before.values()))
    @rule(pick=PICKS, same=st.booleans())
    def submit_again(self, pick: int, same: bool) -> None:
        named = [job for job in self.before.values() if job.fingerprint]
        was = named[pick % len(named)]
        if same and not is_over(was, self.yard.clock.now()):
            assert (was, True) == self.yard.submit_once(was.id, policy=was.policy)
        else:
            with pytest.raises(Expired if same else Conflict):
                self.yard.submit_once(was.id, policy=was.policy, other=b"" if same else b"2")

    @precondition(lambda self: self.present())
    @rule(pick=PICKS)
    def cancel(self, pick: int) -> None:
        was = self.pick(pick)
        job = self.yard.run(self.yard.jobs.cancel(ENDPOINT, was.id))

        assert job == was if was.terminal else job.state is JobState.CANCELLED

    @precondition(lambda self: any(job.state in RETRYABLE for job in self.before.values()))
    @rule(pick=PICKS, force=st.booleans())
    def retry(self, pick: int, force: bool) -> None:
        ended = [job for job in self.before.values() if job.state in RETRYABLE]
        was = ended[pick % len(ended)]
        if was.quarantined and not force:
            with pytest.raises(Quarantined):
                self.yard.run(self.yard.jobs.retry(ENDPOINT, was.id))
            return
        self.queue.append(was.id)
        self.before[was.id] = was.retry(self.yard.clock.now(), force=force)
        job = self.yard.run(self.yard.jobs.retry(ENDPOINT, was.id, force=force))

        assert (was.id, was.run + 1) == (job.id, job.run)

    @precondition(lambda self: any(job.state in RETRYABLE for job in self.kept.values()))
    @rule(pick=PICKS)
    def redrive_what_is_kept(self, pick: int) -> None:
        dead = [job for job in self.kept.values() if job.state in RETRYABLE]
        was = dead[pick % len(dead)]
        with pytest.raises(Expired):
            self.yard.run(self.yard.jobs.retry(ENDPOINT, was.id, force=True))
        self.queue.append(was.id)
        self.before[was.id] = was.retry(self.yard.clock.now(), force=True)
        job = self.yard.run(self.yard.jobs.retry(ENDPOINT, was.id, force=True, kept=True))

        assert (was.id, was.run + 1) == (job.id, job.run)
        self.expired.discard(was.id)
        del self.kept[was.id]

    @precondition(lambda self: len(self.kept) > 2)
    @rule()
    def forget_what_is_kept(self) -> None:
        now = self.yard.clock.now()
        while self.yard.run(self.yard.store.archive.forget(ENDPOINT, now, now)):
            pass
        self.kept.clear()

    @precondition(lambda self: self.present())
    @rule(pick=PICKS, ttl_s=st.sampled_from([1, 100]))
    def set_lifetime(self, pick: int, ttl_s: float) -> None:
        self.yard.run(self.yard.jobs.expire_in(ENDPOINT, self.pick(pick).id, ttl_s))

    @precondition(lambda self: len(self.yard.waiting()) > 3)
    @rule()
    def purge(self) -> None:
        waiting = len(self.yard.waiting())

        assert waiting == self.yard.run(self.yard.jobs.purge(ENDPOINT))
        assert [] == self.yard.waiting()

    # What workers do

    @precondition(lambda self: sum(process.live.worker.takes_jobs for process in self.yard.processes) < 3)
    @rule(limit=LIMITS)
    def start_worker(self, limit: int) -> None:
        self.yard.open_poll(self.yard.start_worker(), limit=limit)

    @precondition(lambda self: self.not_waiting())
    @rule(pick=PICKS, limit=LIMITS, stays=st.sampled_from([True, True, True, False]))
    def poll(self, pick: int, limit: int, stays: bool) -> None:
        pollers = self.not_waiting()
        self.yard.open_poll(pollers[pick % len(pollers)], limit=limit, stays=stays)

    @precondition(lambda self: self.holders())
    @rule(pick=PICKS, outcome=st.sampled_from(["result", "result", "error", "nothing", "stopped"]))
    def finish(self, pick: int, outcome: str) -> None:
        process, id = self.held(pick)
        match outcome:
            case "stopped":
                process.hands -= process.live.stopping.keys()
                self.yard.dispatch.pinged(process.live, frozenset(process.hands))
            case "nothing":
                process.hands.discard(id)
                process.careless = True
            case _:
                process.hands.discard(id)
                self.report(process, id, b'"result"', None if outcome == "result" else "boom")

    @precondition(lambda self: self.present() and self.yard.processes)
    @rule(pick=PICKS, worker=PICKS, kind=st.sampled_from(["result", "progress", "chunk"]))
    def say_what_may_not_count(self, pick: int, worker: int, kind: str) -> None:
        """Any worker says something about any job: only the holder's word counts."""
        process, job = self.process(worker), self.pick(pick)
        holds = job.held_by(process.id)
        match kind:
            case "result":
                process.hands.discard(job.id)
                self.report(process, job.id, b'"late"', None)
                assert holds or job == self.yard.all_jobs().get(job.id)
            case "progress":
                self.yard.run(self.yard.dispatch.progress(process.live, job.id, b'"half"'))
                assert (job._replace(output=b'"half"') if holds else job) == self.yard.all_jobs()[job.id]
            case _:
                self.yard.run(self.yard.store.drain_output(job, None))
                self.yard.run(self.yard.dispatch.stream(process.live, job.id, [b"1"]))
                assert [b"1"] * holds == self.yard.run(self.yard.store.drain_output(job, None))

    # What goes wrong

    @precondition(lambda self: self.yard.processes)
    @rule(pick=PICKS, kind=st.sampled_from(["dies", "is killed", "drains", "is told to end"]))
    def a_worker_goes(self, pick: int, kind: str) -> None:
        process = self.process(pick)
        if kind in ("dies", "is killed"):
            self.yard.kill(process, Cause.WORKER_DIED if kind == "dies" else Cause.WORKER_STOPPED)
            return
        process.live.worker = process.live.worker.drain("scaled down")
        if kind == "is told to end":
            self.yard.dispatch.release_polls(process.live)
            assert not process.waits

    @precondition(lambda self: any(process.waits for process in self.yard.processes))
    @rule(pick=PICKS, noticed=st.sampled_from([True, False, False]))
    def a_client_leaves_before_the_answer(self, pick: int, noticed: bool) -> None:
        waiting = [process for process in self.yard.processes if process.waits]
        process = waiting[pick % len(waiting)]
        if noticed:
            self.yard.leave(process)
        else:
            process.poll.open = False

    @rule()
    def restart(self) -> None:
        self.unsure, self.promise, self.had = set(), None, {(process.id, id) for process, id in self.holders()}
        self.yard.restart()

    @rule(
        kind=PICKS,
        pick=PICKS,
        turns=st.none() | st.integers(0, 12),
        workers=st.sampled_from(["all live", "all live", "one dies", "all die", "all die unrecorded"]),
    )
    def the_platform_dies(self, kind: int, pick: int, turns: int | None, workers: str) -> None:
        """Amid one thing that nobody has been told of, or right after. Workers die with it when the keeper does."""
        dying = {"all live": [], "one dies": self.yard.processes[:1]}.get(workers, list(self.yard.processes))
        self.unsure, amid, promise = self.something(kind, pick)
        self.promise = promise if turns is None else None
        self.had = {(process.id, id) for process, id in self.holders()}
        self.yard.crash(amid, turns=turns, dying=dying, recorded=workers != "all die unrecorded")
        jobs = self.yard.all_jobs()
        for id in self.unsure & jobs.keys():
            self.submitted.add(id)
            fresh = id not in self.before or self.before[id].run < jobs[id].run
            if fresh and jobs[id].state is JobState.IN_QUEUE and not jobs[id].attempts_lost:
                self.queue.append(id)

    def something(self, kind: int, pick: int) -> tuple[set[JobId], Coroutine[Any, Any, Any], Promise]:
        """A thing that the platform may be doing, the jobs that it may change, and what each is once it is answered."""
        yard, pollers = self.yard, self.not_waiting()
        held = [(p, id) for p, id in self.holders() if id in self.before and self.before[id].held_by(p.id)]
        waiting = {job.id for job in yard.waiting()}
        ended = [job for job in self.before.values() if job.state in RETRYABLE and not job.quarantined]
        possible = {
            "submit": True,
            "result": held,
            "lose": held,
            "take": waiting and pollers,
            "poll": waiting and pollers,
            "cancel": self.present(),
            "purge": waiting,
            "retry": ended,
        }
        kinds = [name for name, possibility in possible.items() if possibility]
        match kinds[kind % len(kinds)]:
            case "result":
                process, id = held[pick % len(held)]
                process.hands.discard(id)
                report = yard.dispatch.report(process.live, id, end_state(b'"result"', None))
                return {id}, report, lambda told, job: job.terminal
            case "lose":
                process, id = held[pick % len(held)]
                process.careless = True
                lose = yard.dispatch._lose  # pyright: ignore[reportPrivateUsage]
                lost, had = lose(process.live, [id], "it was lost", Cause.RESULT_LOST), process.id
                return {id}, lost, lambda told, job: job.terminal or not job.held_by(had)
            case "take":
                take = yard.store.take(ENDPOINT, pollers[pick % len(pollers)].id, 1 + pick % 3, yard.clock.now())
                return waiting, take, lambda told, job: job in told or job.id not in {other.id for other in told}
            case "poll":
                poll = Poll(yard, process := pollers[pick % len(pollers)], limit=1 + pick % 3, idle=False)
                process.poll = poll
                return waiting, yard.dispatch.poll(process.live, poll), lambda told, job: True
            case "cancel":
                return {id := self.pick(pick).id}, yard.jobs.cancel(ENDPOINT, id), lambda told, job: told == job
            case "retry":
                retry = yard.jobs.retry(ENDPOINT, id := ended[pick % len(ended)].id)
                return {id}, retry, lambda told, job: told.run == job.run
            case "purge":
                purge = yard.store.purge(ENDPOINT, yard.clock.now(), 1000)
                return waiting, purge, lambda told, job: job.state is JobState.CANCELLED
            case _:
                id = yard.jobs.new_id(sync=False)
                submit = yard.jobs.submit(yard.endpoint, Request(input=input_of(id)), id)
                return {id}, submit, lambda told, job: told.id == job.id

    def check_takeover(self) -> None:
        """The next process finds every job as it was, save for those that nobody was told of."""
        now, jobs = self.yard.clock.now(), self.yard.all_jobs()
        changed = [id for id, job in self.before.items() if jobs.get(id) != job and not is_over(job, now)]

        assert set(changed) <= self.unsure
        assert jobs.keys() <= self.submitted | self.unsure
        if self.promise is not None:
            expired = self.expired | {id for id, job in self.before.items() if job.expires_at <= now}
            promised = self.unsure - (expired - jobs.keys())
            broken = [id for id in promised if id not in jobs or not self.promise(self.yard.told, jobs[id])]
            assert [] == broken, f"what was acknowledged of {broken} is not there"
        for process, id in self.holders():
            # A new job may be handed out before it is kept: then neither is, and nobody else was told of it.
            job = jobs.get(id)
            never_was = job is None and id in self.unsure - self.submitted and self.promise is None
            leased = never_was or (job is not None and job.held_by(process.id))
            assert leased or (process.id, id) in self.had, f"{id} was handed out without a lease"

    @rule(seconds=st.sampled_from([0.1, SUSPICION_S, SUSPICION_S, 5, 11, 11]))
    def time_passes(self, seconds: float) -> None:
        self.yard.clock.at += seconds
        self.yard.sweep()

    @precondition(lambda self: len(self.before) > 5)
    @rule()
    def much_time_passes(self) -> None:
        self.time_passes(1801)

    # What always holds

    @invariant()
    def every_job_is_accounted_for(self) -> None:
        now, jobs = self.yard.clock.now(), self.yard.all_jobs()
        for id in self.submitted - self.expired - jobs.keys():
            # One that may have come back to the queue as the platform died may have expired there.
            was = self.before[id]
            over = was.expires_at <= now if id in self.unsure else is_over(was, now)
            assert over, f"{id} is missing before its time"
            self.expired.add(id)
            if self.before[id].terminal:
                self.kept[id] = self.before[id]
        counts = self.yard.run(self.yard.jobs.counts(ENDPOINT))
        ended = sum(1 for job in jobs.values() if job.terminal)

        assert jobs.keys() == self.submitted - self.expired
        assert len(self.submitted) - len(self.expired) == counts.in_queue + counts.in_progress + ended
        states = [job.state for job in jobs.values()]
        assert states.count(JobState.IN_QUEUE) == counts.in_queue

    @invariant()
    def what_has_expired_is_known(self) -> None:
        """With all that it gave, until it is forgotten. Three jobs are looked at each time."""
        ids = sorted(self.expired)
        for id in ids[int(self.yard.clock.at * 10) % (len(ids) or 1) :][:3]:
            found = self.yard.run(self.yard.store.find(ENDPOINT, id))
            assert self.kept.get(id) == (found if isinstance(found, Job) else None)
            assert found is not None

    @invariant()
    def what_jobs_name_is_there(self) -> None:
        for job in self.yard.all_jobs().values():
            if isinstance(job.input, Spilled):
                assert input_of(job.id) == self.yard.payloads.load(job.input)

    @invariant()
    def a_run_ends_once(self) -> None:
        for job in self.yard.all_jobs().values():
            if job.terminal:
                end = (job.state, job.output, job.error)
                assert end == self.ends.setdefault((job.id, job.run), end)
            assert job.attempts_lost - job.attempts_excused < ATTEMPTS_MAX or job.state is JobState.FAILED

    @invariant()
    def a_job_times_out_when_it_has_run_for_its_time(self) -> None:
        for job in self.yard.all_jobs().values():
            if job.state is JobState.TIMED_OUT:
                assert (job.execution_s or 0) > job.execution_timeout_s - 0.001

    @invariant()
    def what_was_let_finish_is_kept_for_its_retention(self) -> None:
        for job in self.yard.all_jobs().values():
            if job.finished_at is not None and job.ttl_scope is QUEUE:
                assert job.finished_at + job.retention_s == job.expires_at

    @invariant()
    def what_a_job_lost_is_in_its_history(self) -> None:
        for job in self.yard.all_jobs().values():
            lost = [a for a in job.attempts if a.run == job.run and a.evidence.cause is not Cause.TIMED_OUT]
            died = {a.worker_id for a in lost if a.evidence.cause is Cause.WORKER_DIED}
            assert min(job.attempts_lost, ATTEMPTS_KEPT_MAX) == len(lost)
            assert job.attempts_lost - job.attempts_excused == sum(a.counted for a in lost)
            assert {a.worker_id for a in lost} <= job.fenced_from
            assert job.quarantined == (len(died) == ATTEMPTS_MAX)

    @invariant()
    def every_end_and_every_loss_is_counted_once(self) -> None:
        """For ever: a job that is deleted, or retried, has still ended."""
        counts, ends = self.yard.run(self.yard.jobs.counts(ENDPOINT)), Counter(end[0] for end in self.ends.values())
        for id, job in self.yard.all_jobs().items():
            was = self.before.get(id)
            self.retried += requeued(job) - (requeued(was) if was is not None and was.run == job.run else 0)

        assert (
            ends[JobState.COMPLETED],
            ends[JobState.FAILED],
            ends[JobState.CANCELLED],
            ends[JobState.TIMED_OUT],
            self.retried,
        ) == (counts.completed, counts.failed, counts.cancelled, counts.timed_out, counts.retried)

    @invariant()
    def a_running_job_is_held_by_its_worker_and_no_other(self) -> None:
        jobs = self.yard.all_jobs()
        for job in jobs.values():
            owners = [p.id for p in self.yard.processes if job.id in p.live.held and job.id not in p.live.stopping]
            if job.state is JobState.IN_PROGRESS:
                assert job.lease is not None
                assert [job.lease.worker_id] == owners
            else:
                assert [] == owners, f"{job.id} is {job.state} and held by {owners}"

    @invariant()
    def what_a_worker_works_on_was_handed_to_it(self) -> None:
        for process in self.yard.processes:
            for id in process.hands:
                job = self.yard.all_jobs().get(id)
                told = id in process.live.held
                assert told or job is None or not job.held_by(process.id)

    @invariant()
    def no_job_waits_while_a_worker_waits_that_may_have_it(self) -> None:
        for process in self.yard.processes:
            if process.waits and process.live.worker.takes_jobs:
                waiting = [job.id for job in self.yard.waiting() if not is_over(job, self.yard.clock.now())]
                assert [] == [id for id in waiting if process.id not in self.lost[id]]

    @invariant()
    def the_book_is_kept(self) -> None:
        """Last: carries what happened into the machine's own book."""
        jobs = self.yard.all_jobs()
        waiting = {id for id, job in jobs.items() if job.state is JobState.IN_QUEUE}
        self.returned = {id for id in waiting if jobs[id].attempts_lost}
        self.queue = [id for id in self.queue if id in waiting - self.returned]
        for id, was in self.before.items():
            job = jobs.get(id, was)
            assert (was.run, was.attempts_lost) <= (job.run, job.attempts_lost)
            if was.lease is not None and (job.attempts_lost > was.attempts_lost or job.state is JobState.TIMED_OUT):
                self.lost[id].add(was.lease.worker_id)
        self.before = jobs

    def all_comes_to_rest(self) -> None:
        """At the end of each story nothing more goes wrong: then every job ends, and every worker waits."""
        for _ in range(60):
            self.yard.sweep()  # One that waits again may have waited for too long.
            for process, id in self.holders():
                process.hands.discard(id)
                self.report(process, id, b'"result"', None)
            for process in list(self.yard.processes):
                if not process.live.worker.takes_jobs and not process.hands:
                    self.yard.kill(process)
            if self.yard.waiting():
                self.yard.start_worker()  # As the planner would, be it only for a job that no other worker may have.
            for process in self.yard.processes:
                self.yard.end_poll(process)
                if not process.hands:
                    self.yard.open_poll(process, limit=1)
                    self.the_book_is_kept()
            self.yard.clock.at += 1

        assert [] == [job for job in self.yard.all_jobs().values() if not job.terminal]
        assert all(process.waits and not process.live.held for process in self.yard.processes)

    # Helpers

    def report(self, process: Process, id: JobId, output: bytes, error: str | None) -> None:
        self.yard.run(self.yard.dispatch.report(process.live, id, end_state(output, error)))

    def waits_too_long(self, id: JobId) -> bool:
        """Whether a job that waits has waited for longer than it may."""
        return id in self.before and self.before[id].expires_at <= self.yard.clock.now()

    def pick(self, pick: int) -> Job:
        jobs = self.present()
        return jobs[pick % len(jobs)]

    def present(self) -> list[Job]:
        """Jobs that have not expired, as they are. One may have when it lost its worker, and nobody has swept it yet."""
        return [job for job in self.before.values() if not is_over(job, self.yard.clock.now())]

    def not_waiting(self) -> list[Process]:
        return [process for process in self.yard.processes if not process.waits]

    def process(self, pick: int) -> Process:
        return self.yard.processes[pick % len(self.yard.processes)]

    def holders(self) -> list[tuple[Process, JobId]]:
        return [(process, id) for process in self.yard.processes for id in sorted(process.hands)]

    def held(self, pick: int) -> tuple[Process, JobId]:
        holders = self.holders()
        return holders[pick % len(holders)]


class LastingJobLife(JobLife):
    ground = EmbeddedGround


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLastingJobLife = LastingJobLife.TestCase
TestLastingJobLife.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
