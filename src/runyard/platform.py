"""A platform: all services over one set of adapters, and the loops that run in them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from starlette.applications import Starlette

from runyard.api.app import Services, build_app
from runyard.api.services import no_engine
from runyard.config import Settings
from runyard.domain.attempt import AttemptLimits
from runyard.domain.job import EndpointId
from runyard.domain.webhook import SCHEDULES
from runyard.edge.jobs import JobRoutes
from runyard.edge.worker import WorkerRoutes
from runyard.ports.logs import LogStore
from runyard.ports.payloads import Payloads
from runyard.ports.runtime import RuntimeObserver, SupportsCollect, WorkerRuntime
from runyard.ports.secrets import Credentials, SecretStore, Vault
from runyard.ports.stores import Blobs, ControlStore, FleetStore, JobStore
from runyard.ports.system import Clock, Disk, Ids, Signals
from runyard.ports.webhooks import Outbox, WebhookSender
from runyard.services.access import Access
from runyard.services.adoption import Adoption, Records
from runyard.services.collecting import Collecting
from runyard.services.dead_letters import DeadLetters
from runyard.services.dispatch import Dispatch
from runyard.services.endpoints import Endpoints
from runyard.services.fleet import Fleet
from runyard.services.forgetting import Forgetting
from runyard.services.inputs import Inputs
from runyard.services.insistence import insist
from runyard.services.jobs import Jobs
from runyard.services.kept_logs import DAY_S, KeptLogs
from runyard.services.lifecycle import Lifecycle, WorkerOptions
from runyard.services.limits import RateLimits
from runyard.services.logs import Logs
from runyard.services.redaction import Redaction
from runyard.services.registries import Registries
from runyard.services.room import Room
from runyard.services.roster import Roster
from runyard.services.secrets import Secrets
from runyard.services.spill import Carried, Spills
from runyard.services.sweeper import Sweeper
from runyard.services.webhooks import Keeping, Webhooks

log = logging.getLogger("runyard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What a platform stands on."""

    store: JobStore
    outbox: Outbox
    """What `store` owes."""
    control: ControlStore
    fleet: FleetStore
    secrets: SecretStore
    vault: Vault
    """With the keys to what is in `secrets`."""
    blobs: Blobs
    payloads: Payloads
    """For what is too large for `store`."""
    carried: Carried
    """What `outbox` may tell of that."""
    signals: Signals
    clock: Clock
    ids: Ids
    runtime: Callable[[RuntimeObserver, Credentials], WorkerRuntime]
    webhooks: WebhookSender
    disk: Disk
    logs: LogStore | None = None
    """None: lines are in memory alone."""
    lacking_engine: Callable[[], Awaitable[str | None]] = no_engine
    """Why no container can run now; None: containers can."""


class Platform:
    """All services over one set of adapters, and the routes in front of them."""

    def __init__(self, adapters: Adapters, settings: Settings, worker_url: str) -> None:
        a = adapters
        self.runtime_of = a.runtime
        self.clock = a.clock
        self.stores = (a.store, a.fleet, a.control, a.secrets)
        self._quarantine_after = settings.quarantine_after
        self.broken = asyncio.Event()
        """Set when a loop has ended by itself: without it jobs would wait for ever, so the platform must not go on."""
        self.handing_over = False
        """Another process goes on with the workers and the jobs."""
        self.roster = Roster()
        self.logs = Logs(a.clock)
        self.access = Access(a.control, a.clock, a.ids)
        self.endpoints = self._endpoints(a, settings)
        self.secrets = Secrets(a.secrets, a.vault, self.endpoints, self.roster.workers, a.clock)
        self.registries = Registries(a.secrets, a.vault, a.clock, a.ids, used_by=self.endpoints.pulling_with)
        self.webhooks = _webhooks(a, settings)
        self.spills = Spills(a.payloads, a.store, a.clock, a.carried)
        inline_bytes_max = settings.input_inline_bytes
        self.inputs = Inputs(self.spills, a.store, a.signals, a.clock, inline_bytes_max=inline_bytes_max)
        self.dispatch = Dispatch(a.store, self.roster, self.inputs, a.signals, a.clock, limits=self._attempt_limits)
        terms, endpoint_of = self.endpoints.terms, self.endpoints.get
        self.jobs = Jobs(
            a.store, self.dispatch, self.inputs, a.signals, a.clock, a.ids, terms=terms, endpoint_of=endpoint_of
        )
        self.room = Room(a.disk, a.clock, reserve_bytes=settings.disk_reserve_bytes)
        if settings.store != "memory":
            self.jobs.admit = self.room.admit
        self.kept_logs = None if a.logs is None else self._kept_logs(a.logs, settings)
        self.sweeper = Sweeper(a.store, self.dispatch, a.signals, a.clock)
        self.forgetting = _forgetting(a, self.endpoints, self.room, self.spills, settings)
        records = Records(a.fleet)
        self.adoption = Adoption(records, a.store, self.endpoints, self.roster, self.dispatch, a.clock)
        self.lifecycle = Lifecycle(
            self.endpoints,
            self.dispatch,
            self.roster,
            records,
            a.signals,
            a.clock,
            a.ids,
            self.logs,
            Redaction(self.secrets),
            _worker_options(settings, worker_url),
        )
        self.secrets.changed = self.lifecycle.secrets_changed
        self.fleet = Fleet(self.endpoints, a.store, self.roster, a.signals, a.clock, self.lifecycle)
        self.job_routes = self._job_routes(settings)
        self.worker_routes = WorkerRoutes(
            self.dispatch,
            self.roster,
            self.lifecycle.ailing,
            poll_hold_s=settings.poll_hold_s,
            result_bytes_max=settings.result_bytes_max,
            result_inline_bytes=settings.result_inline_bytes,
            spills=self.spills,
        )
        self.app = self._control_plane(adapters, settings)

    def _endpoints(self, a: Adapters, settings: Settings) -> Endpoints:
        return Endpoints(
            a.control,
            a.blobs,
            a.clock,
            a.ids,
            a.signals,
            terms=settings.job_terms,
            check_registry=self._check_registry,
        )

    def _kept_logs(self, store: LogStore, settings: Settings) -> KeptLogs:
        return KeptLogs(
            store,
            self.logs,
            self.clock,
            keep_s=settings.log_keep_days * DAY_S,
            bytes_max=settings.log_keep_bytes,
            endpoints=lambda: [endpoint.id for endpoint in self.endpoints.list()],
            is_full=lambda: self.room.full,
        )

    async def _check_registry(self, registry_id: str) -> None:
        await self.registries.check(registry_id)

    def _attempt_limits(self, endpoint_id: EndpointId) -> AttemptLimits:
        attempts_max = self.endpoints.terms(endpoint_id).attempts_max
        return AttemptLimits(attempts_max=attempts_max, quarantine_after=self._quarantine_after)

    def _job_routes(self, settings: Settings) -> JobRoutes:
        return JobRoutes(
            self.jobs,
            self.endpoints,
            self.fleet,
            self.access,
            limits=RateLimits(settings.rate_limits, self.fleet),
            run_bytes_max=settings.run_bytes_max,
            runsync_bytes_max=settings.runsync_bytes_max,
            spills=self.spills,
        )

    def _control_plane(self, a: Adapters, settings: Settings) -> Starlette:
        """What is not a hot route, behind the user port."""
        return build_app(
            Services(
                access=self.access,
                endpoints=self.endpoints,
                fleet=self.fleet,
                jobs=self.jobs,
                dead_letters=DeadLetters(a.store, self.jobs, a.clock),
                logs=self.logs,
                webhooks=self.webhooks,
                secrets=self.secrets,
                registries=self.registries,
                blobs=a.blobs,
                room=self.room,
                clock=a.clock,
                settings=settings,
                lacking_engine=a.lacking_engine,
                answers=lambda: self.job_routes.paths.answers() | self.worker_routes.paths.answers(),
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """The loops, for as long as the context is open. Workers end with it, in good order while `drain` waits, unless it
        is `handing_over`.
        """
        await self.access.load()
        await self.endpoints.load()
        await self.secrets.load()
        if self.kept_logs is not None:
            await self.kept_logs.load()
        runtime = self.runtime_of(self.lifecycle, self.registries.credential)
        self.lifecycle.open(runtime)
        await self.adoption.run(runtime, self.lifecycle)
        await self.lifecycle.see_to(insist(self.secrets.forget_former, self.clock))
        await self.room.look()
        looping = (self.fleet, self.sweeper, self.forgetting, self.webhooks, self.spills, self.room, self.kept_logs)
        loops = [asyncio.create_task(service.run()) for service in looping if service is not None]
        if isinstance(runtime, SupportsCollect):
            collecting = Collecting(self.endpoints, self.roster, runtime, self.clock)
            loops.append(asyncio.create_task(collecting.run()))
        for loop in loops:
            loop.add_done_callback(self._loop_ended)
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self.inputs.close()
            await self.lifecycle.close()
            await (runtime.leave() if self.handing_over else runtime.close())
            await self.lifecycle.stopped()  # Jobs of workers that have just ended go back while there is a store.
            if self.kept_logs is not None:
                await self.kept_logs.close()
            for store in self.stores:
                await store.close()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.critical("a loop of the platform has ended; the platform stops", exc_info=task.exception())
            self.broken.set()

    async def drain(self) -> None:
        """Take no more jobs, let workers finish what they hold within their grace, and end log followers."""
        self.jobs.closing = True
        self.logs.close()  # Followers would keep their connections, and so the port, open.
        await self.fleet.shutdown()
        await self.webhooks.settle()

    def hand_over(self) -> None:
        """Leave workers and jobs to the next process. Requests under way are still served."""
        self.handing_over = True
        self.fleet.pause()
        for live in self.roster:
            if live.stopping:  # Nobody else will know that it was told to stop a job, and whether it does.
                self.lifecycle.replace(live, "it was stopping a job when the server was replaced")
        self.logs.close()


def _forgetting(adapters: Adapters, endpoints: Endpoints, room: Room, spills: Spills, settings: Settings) -> Forgetting:
    bytes_max = settings.keep_bytes_max
    if settings.store == "memory":
        bytes_max = min(bytes_max, settings.store_bytes_max // 8)
    return Forgetting(
        adapters.store.archive,
        endpoints,
        adapters.clock,
        bytes_max=bytes_max,
        tombstone_s=settings.tombstone_s,
        lacking=room.lacking,
        forgotten=spills.sweep,
    )


def _webhooks(adapters: Adapters, settings: Settings) -> Webhooks:
    keeping = Keeping(
        keep=timedelta(seconds=settings.webhook_keep_s),
        finished_max=settings.webhook_keep_max,
        waiting_max=settings.webhook_waiting_max,
        bytes_max=settings.webhook_keep_bytes,
    )
    return Webhooks(
        adapters.outbox,
        adapters.webhooks,
        adapters.clock,
        adapters.ids,
        schedule=SCHEDULES[settings.webhook_retries],
        keeping=keeping,
        chance=random.random,
    )


def _worker_options(settings: Settings, worker_url: str) -> WorkerOptions:
    return WorkerOptions(
        worker_url=worker_url,
        ping_interval_ms=settings.ping_interval_ms,
        stop_grace=timedelta(seconds=settings.stop_grace_s),
        job_stop_grace=timedelta(seconds=settings.job_stop_grace_s),
    )
