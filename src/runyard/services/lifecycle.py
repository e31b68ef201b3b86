"""One worker's life, from the decision to start it to its last trace.

What is decided is recorded before it is done: a worker is in the roster, STARTING, before the runtime hears of it. Starting
and stopping take time and happen in tasks. Starts of a release that go wrong are counted in a row, with the evidence, for
the planner's back-off and for whoever asks why a job waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from runyard.domain.account import digest_of
from runyard.domain.attempt import Cause
from runyard.domain.endpoint import Endpoint, Release, ReleaseId, RunSpec
from runyard.domain.errors import NotFound, RunyardError, TooBusy
from runyard.domain.fleet import CRASH_LOOP, OUT_OF_MEMORY, Failures
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit, Worker, builder_id, cause_of_end
from runyard.ports.runtime import Launch, LogSource, Say, WorkerRuntime
from runyard.ports.system import Clock, Ids, Signals
from runyard.services import topics
from runyard.services.adoption import Records
from runyard.services.background import Background
from runyard.services.dispatch import Dispatch
from runyard.services.failures import EVIDENCE_LINES, StartFailures, failure_of, told_by
from runyard.services.insistence import insist
from runyard.services.logs import Logs
from runyard.services.preparing import Preparations
from runyard.services.redaction import Redaction
from runyard.services.roster import LiveWorker, Roster
from runyard.services.worker_env import worker_env

log = logging.getLogger("runyard.fleet")

SEE_TO_S_MAX = 1.0
END_S_MAX = 5.0
_STOP, _END = "stop a worker", "a worker has ended"


class EndpointBook(Protocol):
    """The endpoints as they are now."""

    def list(self) -> list[Endpoint]: ...

    def get(self, endpoint_id: EndpointId) -> Endpoint:
        """Raises `NotFound`."""
        ...

    async def set_lock(self, endpoint_id: EndpointId, release_id: ReleaseId, lock: str) -> None:
        """Remember what a release's requirements resolved to."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How workers reach the platform, and how much time they get to end."""

    worker_url: str
    ping_interval_ms: int = 10_000
    stop_grace: timedelta = timedelta(seconds=10)
    job_stop_grace: timedelta = timedelta(seconds=5)


class Lifecycle:
    """Starts and stops workers. As `RuntimeObserver` it hears of their output and their end."""

    def __init__(
        self,
        endpoints: EndpointBook,
        dispatch: Dispatch,
        roster: Roster,
        records: Records,
        signals: Signals,
        clock: Clock,
        ids: Ids,
        logs: Logs,
        redaction: Redaction,
        options: WorkerOptions,
    ) -> None:
        self._endpoints = endpoints
        self._dispatch = dispatch
        self._roster = roster
        self._records = records
        self._signals = signals
        self._clock = clock
        self._ids = ids
        self._logs = logs
        self._redaction = redaction
        self._options = options
        self._runtime: WorkerRuntime | None = None
        self._secrets: dict[WorkerId, str] = {}
        self._stopping: set[WorkerId] = set()
        self._failures = StartFailures(clock)
        self.preparations = Preparations(endpoints.set_lock, self._changed, redact=redaction.redact)
        self._tasks = Background(log, "a worker's start or stop failed")
        self._closed = False
        dispatch.replace_worker = self.replace
        dispatch.last_words = logs.last_words
        logs.redact = redaction.redact

    def open(self, runtime: WorkerRuntime) -> None:
        """Use this runtime."""
        self._runtime = runtime

    async def close(self) -> None:
        """Give up what is under way, and record how it stands. The runtime ends, or leaves to others, what still runs."""
        self._closed = True
        await self._tasks.cancel()
        for live in self._roster:
            if live.worker.spawned_at is not None:
                with suppress(TooBusy):  # The record is a little old, then; the platform must end nevertheless.
                    await self._records.keep(live)

    async def adopted(self, live: LiveWorker) -> None:
        """A platform process before this one has started it, and it still runs."""
        await self._redaction.adopt(live.worker)
        self._logs.worker_goes_on(live.id)
        held = f", with {len(live.held)} jobs" if live.held else ""
        self._say(live, f"goes on under a new platform process{held}")

    async def gone(self, live: LiveWorker) -> None:
        """A platform process before this one has started it, and it does not run any more."""
        await self._ended(live, None, f"worker {live.id} ended while the platform was away")

    async def see_to(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this, in the background when it takes more than a moment: what cannot be written on a full disk must not keep
        the platform from opening.
        """
        await asyncio.wait([self._tasks.spawn(work)], timeout=SEE_TO_S_MAX)

    def record(self, live: LiveWorker) -> None:
        """Bring the stored record up to date soon, if need be."""
        if live.worker.spawned_at is not None and self._records.differs(live):
            self._tasks.spawn(insist(lambda: self._records.keep(live), self._clock))

    def stop_soon(self, live: LiveWorker, reason: str) -> None:
        """Stop this worker whatever it holds, with its grace."""
        self.replace(live, reason)
        self._stop(live)

    async def stopped(self) -> None:
        """Return when no worker is being stopped, and the jobs of those that were are back in the queue. They can still
        report while this waits.
        """
        while waits := {task: task.get_name() for task in self._tasks if task.get_name() in (_STOP, _END)}:
            # On a full disk an end cannot be written down: the next start finds the jobs of workers that are gone.
            patience_s = None if _STOP in waits.values() else END_S_MAX
            done, _ = await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return

    # Starts

    def prepare_ahead(self, endpoint: Endpoint) -> None:
        """Build a new release's environment when it is deployed, not when its first job waits for it."""
        self._tasks.spawn(self._build_ahead(endpoint))

    def start(self, endpoint: Endpoint, reason: str) -> None:
        """Start one worker of the endpoint's release."""
        secret = self._ids.secret()
        worker = Worker(
            id=self._ids.worker(),
            endpoint_id=endpoint.id,
            release=endpoint.release,
            secret_digest=digest_of(secret),
            created_at=self._clock.now(),
        )
        self._secrets[worker.id] = secret
        live = self._roster.add(worker)
        self._say(live, f"starting for release {worker.release.version}: {reason}")
        self._tasks.spawn(self._launch(live))

    async def _launch(self, live: LiveWorker) -> None:
        worker = live.worker
        try:
            await self._redaction.begin(worker.id, worker.release)
            run = await self._prepare(worker.endpoint_id, worker.release, lambda line: self._say(live, line))
            if not live.worker.takes_jobs:
                await self._ended(live, None)
                return
            env = await self._redaction.environment(worker)
            live.worker = live.worker.spawned(self._clock.now())
            self._changed(worker.endpoint_id)
            await self._records.keep(live)
            await self._runtime_now.start(self._launch_of(live, run, env))
        except Exception as error:  # noqa: BLE001 - Whatever it is, a worker that stays STARTING would be waited for for ever.
            failure = failure_of(error)
            self._say(live, f"did not start: {failure.message}")
            self._count_failure(worker.endpoint_id, worker.release, *told_by(failure))
            live.worker = live.worker.drain(self._redaction.redact(worker.endpoint_id, failure.message))
            await self._ended(live, None)
        if live.worker.alive and not live.worker.takes_jobs and not live.held:
            # Drained while the runtime was starting it, when there was nothing to stop yet.
            self._stopping.discard(live.id)
            self._stop(live)

    async def _prepare(self, endpoint_id: EndpointId, release: Release, say: Say) -> RunSpec:
        return await self.preparations.prepare(self._runtime_now, endpoint_id, release, say)

    async def _build_ahead(self, endpoint: Endpoint) -> None:
        builder = builder_id(endpoint.id, endpoint.release.version)

        def say(line: str) -> None:
            self._logs.append(builder, endpoint.id, line, source=LogSource.SYSTEM)

        try:
            await self._redaction.begin(builder, endpoint.release)
            await self._prepare(endpoint.id, endpoint.release, say)
        except RunyardError as error:
            say(f"failed: {error.message}")
            self._count_failure(endpoint.id, endpoint.release, *told_by(error))
        finally:
            self._redaction.end(builder, endpoint.release)
            self._logs.worker_stopped(builder)

    def _launch_of(self, live: LiveWorker, run: RunSpec, user_env: Mapping[str, str]) -> Launch:
        worker = live.worker
        env = worker_env(
            base_url=self._runtime_now.plane_url(worker.endpoint_id, run) or self._options.worker_url,
            endpoint_id=worker.endpoint_id,
            worker_id=worker.id,
            secret=self._secrets[worker.id],
            ping_interval_ms=self._options.ping_interval_ms,
            user_env=user_env,
        )
        return Launch(worker_id=worker.id, endpoint_id=worker.endpoint_id, run=run, env=env)

    # Ends

    def replace(self, live: LiveWorker, reason: str) -> None:
        """Give the worker no more jobs, and stop it once it holds none."""
        if not live.worker.takes_jobs:
            return
        live.worker = live.worker.drain(reason)
        self.record(live)
        self._say(live, f"draining: {reason}")
        self.stop_if_free(live)

    def stop_if_free(self, live: LiveWorker) -> None:
        """Stop a draining worker that holds no job any more."""
        if not live.worker.takes_jobs and not live.held:
            self._stop(live)

    def replace_if_stuck(self, live: LiveWorker, now: float) -> float | None:
        """Stop a worker that does not let go of a job it was told to stop; returns when to look again.

        A blocking handler hears no stop signal (protocol A.2), so the worker goes with the job. Others that run beside it
        finish first. A handler that was cancelled gets the time that two pings take: they tell whether it has ended, and
        beside siblings nothing else does.
        """
        due: list[float] = []
        for job_id, since in live.stopping.items():
            grace_s = self._options.job_stop_grace.total_seconds()
            if job_id in live.heeded:
                grace_s += 2 * self._options.ping_interval_ms / 1000
            due.append(since + grace_s)
            if due[-1] <= now:
                self.replace(live, f"did not stop job {job_id} within {grace_s:g} s")
        if due and max(due) <= now and live.held.keys() <= live.stopping.keys():
            self._stop(live, timedelta(0))
        return min((at for at in due if at > now), default=None)

    def _stop(self, live: LiveWorker, grace: timedelta | None = None) -> None:
        if live.id not in self._stopping and live.worker.spawned_at is not None:
            self._stopping.add(live.id)
            self._dispatch.release_polls(live)
            grace = self._options.stop_grace if grace is None else grace
            self._tasks.spawn(self._runtime_now.stop(live.id, grace), name=_STOP)

    def worker_exited(self, worker_id: WorkerId, exit: Exit) -> None:
        """From the runtime: nothing of this worker runs any more."""
        live = self._roster.get(worker_id)
        if live is not None:
            self._tasks.spawn(self._ended(live, exit), name=_END)

    def worker_said(self, worker_id: WorkerId, line: str) -> None:
        """From the runtime: a line of the worker's output."""
        live = self._roster.get(worker_id)
        if live is not None:
            line, job_id = self._redaction.said(worker_id, line), live.job_of_output(self._clock.now())
            self._logs.append(worker_id, live.worker.endpoint_id, line, job_id=job_id)

    def ailing(self, live: LiveWorker, reason: str) -> None:
        """Its own fitness check failed; the process ends itself right after saying so (F125)."""
        reason = self._redaction.redact(live.worker.endpoint_id, self._redaction.said(live.id, reason))
        live.worker = live.worker.ailing(reason)
        self._say(live, f"unhealthy: {reason}")

    async def _ended(self, live: LiveWorker, exit: Exit | None, how: str | None = None) -> None:
        worker = live.worker
        if not worker.alive:
            return
        live.worker = worker.stopped(self._clock.now(), exit)
        self._secrets.pop(worker.id, None)
        # One that is draining and ends before it is told to has ended by itself.
        cause = cause_of_end(exit, asked=worker.id in self._stopping or self._closed)
        self._stopping.discard(worker.id)
        ending = live.worker.ending
        reason = how or f"worker {worker.id} {f'ended ({ending})' if ending is not None else 'did not start'}"
        self._say(live, reason)
        if exit is not None and _unexpected(live, exit):
            code = OUT_OF_MEMORY if exit.out_of_memory else CRASH_LOOP
            message = self._crash_message(live)
            self._count_failure(worker.endpoint_id, worker.release, code, message, fresh=live.finished > 0)
        self._roster.retire(live)
        self._logs.worker_stopped(live.id)
        if cause is Cause.WORKER_STOPPED and worker.stop_reason is not None:
            reason = f"worker {worker.id} was stopped: {worker.stop_reason}"
        await self._dispatch.worker_gone(live, reason, cause, exit)
        await insist(lambda: self._records.forget(worker.id), self._clock)
        await insist(lambda: self._redaction.ended(worker), self._clock)
        if self._release_of(worker.endpoint_id) is None:
            self._roster.forget_endpoint(worker.endpoint_id)
        self._changed(worker.endpoint_id)

    # Failures

    def failures_of(self, endpoint: Endpoint) -> Failures:
        """Starts of its release that went wrong in a row."""
        return self._failures.of(endpoint.release.id, self._roster.of_endpoint(endpoint.id))

    def _count_failure(
        self, endpoint_id: EndpointId, release: Release, code: str, message: str, *, fresh: bool = False
    ) -> None:
        if self._release_of(endpoint_id) != release.id:
            return
        message = self._redaction.redact(endpoint_id, message)
        self._failures.count(release.id, code, message, fresh=fresh)
        log.warning("%s: %s", endpoint_id, message)
        self._changed(endpoint_id)

    def _crash_message(self, live: LiveWorker) -> str:
        when = "before it was ready" if live.worker.ready_at is None else "while it ran"
        said = [
            line.line for line in self._logs.tail(live.id, 2 * EVIDENCE_LINES) if line.source is LogSource.CONTAINER
        ]
        last = " | ".join(said[-EVIDENCE_LINES:]) or "it said nothing"
        return f"worker {live.id} of release {live.worker.release.version} ended {when} ({live.worker.ending}): {last}"

    def forget(self, releases: set[ReleaseId]) -> None:
        """Drop what is known of all releases but these."""
        self._failures.keep_only(releases)
        self.preparations.keep_only(releases)

    def secrets_changed(self) -> None:
        """What did not start for a secret is started again at once."""
        self._failures.secrets_changed()
        self._signals.fire(topics.ENDPOINTS)

    def _release_of(self, endpoint_id: EndpointId) -> ReleaseId | None:
        """The release the endpoint runs; None when there is no such endpoint (any more)."""
        try:
            return self._endpoints.get(endpoint_id).release.id
        except NotFound:
            return None

    @property
    def _runtime_now(self) -> WorkerRuntime:
        assert self._runtime is not None, "no runtime yet: `open` comes first"
        return self._runtime

    def _say(self, live: LiveWorker, line: str) -> None:
        self._logs.append(live.id, live.worker.endpoint_id, line, source=LogSource.SYSTEM)

    def _changed(self, endpoint_id: EndpointId) -> None:
        self._signals.fire(topics.demand(endpoint_id))


def _unexpected(live: LiveWorker, exit: Exit) -> bool:
    """A worker that ends by itself has failed, unless it was ready and left in good order (config `refresh_worker`). Who
    was taken along by what looked after it did not end by itself.
    """
    worker = live.worker
    if worker.stop_reason is not None or exit.with_platform:
        return False
    return worker.ready_at is None or worker.unhealthy_reason is not None or exit.code != 0
