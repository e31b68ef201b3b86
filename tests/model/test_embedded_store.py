"""The embedded store against the memory store, which is what the port means: over restarts, cleanings and full disks they
show the same jobs, in the same order, with the same output.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.attempt import Cause, Evidence
from runyard.domain.errors import Conflict, InvalidTransition, TooBusy
from runyard.domain.job import EndpointId, Job, JobId, JobState, WorkerId
from runyard.domain.payload import Spilled
from runyard.ports.stores import JobCounts, JobQuery, JobStore
from tests.builders import ENDPOINT, START, a_job

ENDPOINTS = [ENDPOINT, EndpointId("endpoint-2")]
WORKERS = [WorkerId("worker-a"), WorkerId("worker-b")]
PICKS = st.integers(0, 50)
STEPS: dict[str, Callable[[Job, float], Job]] = {
    "complete": lambda job, now: job.complete(b'{"big":"%b"}' % (b"x" * 300), now),
    "fail": lambda job, now: job.fail("boom", None, now),
    "time out": lambda job, now: job.time_out(now),
    "lose worker": lambda job, now: job.lose_worker(now, "it died"),
    "kill worker": lambda job, now: job.lose_worker(now, "it died", Evidence(Cause.WORKER_DIED, None, 9, ("boom",))),
    "stop worker": lambda job, now: job.lose_worker(now, "it was stopped", Evidence(Cause.WORKER_STOPPED, 0)),
    "give back": lambda job, now: job.give_back(),
    "progress": lambda job, now: job.progress(b"0.5"),
    "cancel": lambda job, now: job.cancel(now),
    "retry": lambda job, now: job.retry(now, force=True),
    "expire later": lambda job, now: job.expire_in(100_000, now),
}
ALL = JobQuery(limit=10**6)


def reopened(path: Path) -> EmbeddedJobs:
    return EmbeddedJobs(path, clean_from_bytes=1500, ended_max=10, pause_s=0)


def stepped(way: Callable[[Job, float], Job], job: Job, now: float) -> Job | None:
    """The job after the step, if it can take it."""
    try:
        return way(job, now)
    except InvalidTransition:
        return None


async def view(store: JobStore) -> list[tuple[list[Job], JobCounts]]:
    return [((*(await store.list(id, ALL)).jobs,), await store.counts(id)) for id in ENDPOINTS]  # type: ignore[misc]


def fill_disk(store: EmbeddedJobs, *, full: bool) -> None:
    """As SQLite sees it: no page more."""
    journal = store._journal  # pyright: ignore[reportPrivateUsage]

    database = journal._database  # pyright: ignore[reportPrivateUsage]
    pages = database.execute("pragma page_count").fetchone()[0]
    database.execute(f"pragma max_page_count = {pages if full else 1 << 30}")


class SameStores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.db"
        self.loop = asyncio.new_event_loop()
        self.now = START
        self.memory, self.store = MemoryJobs(), reopened(self.path)
        self.jobs: list[tuple[EndpointId, JobId]] = []
        self.crashes = 0

    def teardown(self) -> None:
        try:
            self.restart()
            for endpoint_id in ENDPOINTS:
                for worker in WORKERS:
                    self.same(lambda store, e=endpoint_id, w=worker: store.take(e, w, 1000, self.now))
        finally:
            self.loop.run_until_complete(self.store.close())
            self.loop.close()
            self.folder.cleanup()

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        async def with_limit() -> Any:
            async with asyncio.timeout(10):
                return await doing

        return self.loop.run_until_complete(with_limit())

    def same(self, ask: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        self.now += 1
        answers: list[Any] = []
        for store in (self.memory, self.store):
            try:
                answers.append(self.run(ask(store)))
            except Conflict as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
        assert self.run(view(self.memory)) == self.run(view(self.store))
        return answers[0]

    def job(self, pick: int) -> Job | None:
        endpoint_id, job_id = self.jobs[pick % len(self.jobs)]
        return self.same(lambda store: store.get(endpoint_id, job_id))

    @rule(number=st.integers(0, 30), endpoint=PICKS, leased=st.booleans(), webhook=st.none() | st.just("http://a/"))
    def add(self, number: int, endpoint: int, leased: bool, webhook: str | None) -> None:
        endpoint_id, job_id = ENDPOINTS[endpoint % 2], JobId(f"job-{number}")
        if any(self.run(self.memory.find(id, job_id)) for id in ENDPOINTS):
            return  # Nobody is asked whether an id is that of a job which was put away.
        input = b"%d" % number * 50 if number % 3 else Spilled(f"payload-{number}", 5000)
        job = a_job(job_id, at=self.now, endpoint_id=endpoint_id, webhook=webhook, input=input)
        self.jobs.append((endpoint_id, job_id))
        self.same(lambda store: store.add(job.take(WORKERS[0], self.now) if leased else job))

    @rule(endpoint=PICKS, worker=PICKS, limit=st.integers(1, 4))
    def take(self, endpoint: int, worker: int, limit: int) -> None:
        self.same(lambda store: store.take(ENDPOINTS[endpoint % 2], WORKERS[worker % 2], limit, self.now))

    @precondition(lambda self: self.jobs)
    @rule(pick=PICKS, step=PICKS)
    def save(self, pick: int, step: int) -> None:
        was = self.job(pick)
        if was is None:
            return
        possible = [job for way in STEPS.values() if (job := stepped(way, was, self.now)) is not None]
        job = possible[step % len(possible)]
        assert self.same(lambda store: store.save(job, was))
        if job != was:
            assert not self.same(lambda store: store.save(was, was))

    @precondition(lambda self: self.jobs)
    @rule(pick=PICKS, chunks=st.lists(st.sampled_from([b"1", b'"two"']), min_size=1, max_size=3))
    def append(self, pick: int, chunks: list[bytes]) -> None:
        if (job := self.job(pick)) is not None:
            self.same(lambda store: store.append_output(job, chunks))

    @precondition(lambda self: self.jobs)
    @rule(pick=PICKS, bytes_max=st.sampled_from([None, 1, 5]))
    def drain(self, pick: int, bytes_max: int | None) -> None:
        if (job := self.job(pick)) is not None:
            self.same(lambda store: store.drain_output(job, bytes_max))

    @rule(endpoint=PICKS, limit=st.integers(1, 3))
    def purge(self, endpoint: int, limit: int) -> None:
        self.same(lambda store: store.purge(ENDPOINTS[endpoint % 2], self.now, limit))

    @rule(endpoint=PICKS)
    def remove_endpoint(self, endpoint: int) -> None:
        if endpoint % 5 == 0:
            self.same(lambda store: self.removed(store, ENDPOINTS[endpoint % 2]))

    async def removed(self, store: JobStore, endpoint_id: EndpointId) -> None:
        await store.remove_endpoint(endpoint_id)
        while await store.archive.clear(endpoint_id):
            pass

    @rule(seconds=st.sampled_from([10, 2000, 90_000]))
    def sweep(self, seconds: int) -> None:
        self.now += seconds
        self.put_away_expired()

    def put_away_expired(self) -> None:
        expired = [job for job in self.run(self.memory.due(self.now, 1000)) if job.expires_at <= self.now]
        for store in (self.memory, self.store):
            self.run(store.put_away(expired, self.now))
        self.same(lambda store: store.due(self.now, 1000))

    @rule(endpoint=PICKS)
    def forget(self, endpoint: int) -> None:
        self.put_away_expired()
        for store in (self.memory, self.store):
            while self.run(store.archive.forget(ENDPOINTS[endpoint % 2], self.now, self.now)):
                pass
        for endpoint_id, job_id in self.jobs:
            self.same(lambda store, e=endpoint_id, j=job_id: store.find(e, j))

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.begin_again()

    def begin_again(self) -> None:
        self.store = reopened(self.path)
        assert self.run(view(self.memory)) == self.run(view(self.store))

    @rule()
    def crash(self) -> None:
        """The process dies: what is left is its files as they are, and what was acknowledged is in them."""
        self.crashes += 1
        copy = self.path.parent / str(self.crashes) / "jobs.db"
        copy.parent.mkdir()
        for file in self.path.parent.glob("jobs.db*"):
            if not file.name.endswith("-shm"):  # It is mapped, and goes with the process.
                shutil.copyfile(file, copy.with_name(file.name))
        self.run(self.store.close())
        self.path = copy
        self.begin_again()

    @rule(big=st.integers(5_000, 50_000), endpoint=PICKS)
    def disk_is_full_for_a_while(self, big: int, endpoint: int) -> None:
        self.now += 1
        before = self.run(view(self.store))
        # What is cleaned meanwhile can make room for it; then the next one must have another name.
        job = a_job(f"big-{self.now}", at=self.now, endpoint_id=ENDPOINTS[endpoint % 2], input=b"1" * big)
        fill_disk(self.store, full=True)
        try:
            self.run(self.store.add(job))
        except TooBusy:
            assert before == self.run(view(self.store))
        else:
            self.run(self.memory.add(job))
        fill_disk(self.store, full=False)


TestSameStores = SameStores.TestCase
TestSameStores.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_shown_after_a_storm_is_what_is_on_disk(data: st.DataObject) -> None:
    """Many change the same jobs at once, and now and then the disk is full; memory and disk agree when all is quiet."""
    plan = data.draw(
        st.lists(st.tuples(PICKS, st.sampled_from(sorted([*STEPS, "add", "take", "full", "free"]))), max_size=150)
    )

    async def storm(path: Path) -> None:
        store = reopened(path)

        async def act(number: int, pick: int, step: str) -> None:
            for _ in range(pick):
                await asyncio.sleep(0)
            try:
                if step == "add":
                    await store.add(a_job(f"job-{number}", input=b"1" * pick * 200))
                elif step == "take":
                    await store.take(ENDPOINT, WORKERS[pick % 2], 1 + pick % 3, START)
                elif step in ("full", "free"):
                    fill_disk(store, full=step == "full")
                else:
                    jobs = (await store.list(ENDPOINT, ALL)).jobs
                    if jobs and (job := stepped(STEPS[step], was := jobs[pick % len(jobs)], START + number)):
                        await store.save(job, was)
            except TooBusy:
                pass

        async with asyncio.timeout(20):
            await asyncio.gather(*(act(number, pick, step) for number, (pick, step) in enumerate(plan)))
            fill_disk(store, full=False)
            shown = await view(store)
            await store.close()
            store = reopened(path)
            assert shown == await view(store)
            waiting = [job for job in shown[0][0] if job.state is JobState.IN_QUEUE]
            assert len(waiting) == (await store.counts(ENDPOINT)).in_queue
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(storm(Path(folder) / "jobs.db"))
