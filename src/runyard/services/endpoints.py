"""What users deploy: endpoints and their releases.

All endpoints are in memory; the store is written first and then the memory, one change at a time. An edit bumps the
generation. What changes how workers run makes a new release, which rolls out; bounds, scaling, timeouts, terms and names
apply as they are (contract C.7, F106). Sending a bundle always makes a release, even an unchanged one:
it is a deployment. Sending the environment that is there already does not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, TypeVar

from runyard.domain.endpoint import RESERVED_IDS, Endpoint, EndpointKind, Release, ReleaseId, RunSpec
from runyard.domain.errors import BadRequest, Conflict, NotFound
from runyard.domain.job import EXECUTION_TIMEOUT_DEFAULT, EndpointId
from runyard.domain.scaling import QueueDelay, RequestCount, ScalingPolicy
from runyard.domain.terms import DEFAULT_TERMS, NO_OWN_TERMS, JobTerms, OwnTerms
from runyard.ports.stores import Blobs, ControlStore
from runyard.ports.system import Clock, Ids, Signals
from runyard.services import topics

HANDLER_LENGTH_MAX = 255
ID_TRIES_MAX = 10
_T = TypeVar("_T")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChange:
    """What to change of an endpoint; None leaves the field as it is. `env` replaces all variables. `terms` has the fields of
    `OwnTerms` that change.
    """

    name: str | None = None
    workers_min: int | None = None
    workers_max: int | None = None
    idle_timeout: timedelta | None = None
    scaler: QueueDelay | RequestCount | None = None
    execution_timeout: timedelta | None = None
    terms: Mapping[str, Any] = field(default_factory=dict[str, Any])
    bundle: str | None = None
    handler: str | None = None
    env: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDiff:
    """One field of `RunSpec` that a release changed."""

    field: str
    old: object
    new: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """A release beside what it changed against the one before; the first release changes nothing."""

    release: Release
    diff: tuple[FieldDiff, ...]


class Endpoints:
    """`load` it before the first request comes."""

    def __init__(
        self,
        control: ControlStore,
        blobs: Blobs,
        clock: Clock,
        ids: Ids,
        signals: Signals,
        *,
        terms: JobTerms = DEFAULT_TERMS,
    ) -> None:
        """`terms` are the platform's."""
        self._control = control
        self._blobs = blobs
        self._clock = clock
        self._ids = ids
        self._signals = signals
        self._platform_terms = terms
        self._by_id: dict[EndpointId, Endpoint] = {}
        self._terms: dict[EndpointId, JobTerms] = {}
        """What holds for each: computed once, since each job asks."""
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        endpoints = await self._control.endpoints()
        self._by_id = {endpoint.id: endpoint for endpoint in endpoints}
        self._terms = {endpoint.id: endpoint.terms.over(self._platform_terms) for endpoint in endpoints}

    def get(self, endpoint_id: EndpointId | str) -> Endpoint:
        """Raises `NotFound`."""
        endpoint = self._by_id.get(EndpointId(endpoint_id))
        if endpoint is None:
            raise NotFound(f"endpoint {endpoint_id!r} does not exist: `runyard endpoints` lists those that do")
        return endpoint

    def find(self, id_or_name: str) -> Endpoint:
        """By id, else by name. Raises `NotFound`."""
        named = (endpoint for endpoint in self._by_id.values() if endpoint.name == id_or_name)
        return self._by_id.get(EndpointId(id_or_name)) or next(named, None) or self.get(id_or_name)

    def terms(self, endpoint_id: EndpointId) -> JobTerms:
        """What holds for its jobs now; for those of an endpoint that is gone, the platform's."""
        return self._terms.get(endpoint_id, self._platform_terms)

    def pulling_with(self, registry_id: str) -> list[str]:
        """The names of endpoints whose images are pulled with this credential."""
        runs = {endpoint.name: endpoint.release.run.container for endpoint in self.list()}
        return [name for name, container in runs.items() if container is not None and container.registry == registry_id]

    def list(self) -> list[Endpoint]:
        """Oldest first."""
        return sorted(self._by_id.values(), key=lambda endpoint: (endpoint.created_at, endpoint.id))

    async def create(
        self,
        name: str,
        run: RunSpec,
        *,
        kind: EndpointKind = EndpointKind.QUEUE,
        scaling: ScalingPolicy | None = None,
        execution_timeout: timedelta = EXECUTION_TIMEOUT_DEFAULT,
        terms: OwnTerms = NO_OWN_TERMS,
    ) -> Endpoint:
        """A new endpoint with release 1. Raises `BadRequest`, or `Conflict` when the name is taken."""
        async with self._changing:
            await self._check_run(run)
            self._check_name_is_free(name, None)
            endpoint_id = self._fresh_id()
            endpoint = Endpoint(
                id=endpoint_id,
                name=name,
                kind=kind,
                scaling=scaling or ScalingPolicy(),
                execution_timeout=execution_timeout,
                terms=terms,
                release=self._release(endpoint_id, 1, run),
                created_at=self._clock.now(),
            )
            await self._control.add_endpoint(endpoint)
            self._remember(endpoint)
            return endpoint

    async def update(self, endpoint_id: EndpointId | str, change: EndpointChange) -> Endpoint:
        """Apply the change; an empty one does nothing. Raises `NotFound`, `BadRequest` or `Conflict`."""
        async with self._changing:
            was = self.get(endpoint_id)
            now = replace(
                was,
                name=_either(change.name, was.name),
                scaling=_changed_scaling(was.scaling, change),
                execution_timeout=_either(change.execution_timeout, was.execution_timeout),
                terms=replace(was.terms, **change.terms),
                release=await self._changed_release(was, change),
            )
            if now == was:
                return was
            self._check_name_is_free(now.name, was.id)
            now = replace(now, generation=was.generation + 1)
            if not await self._control.save_endpoint(now, generation=was.generation):
                await self.load()
                raise Conflict(f"endpoint {was.id} was changed by someone else in the meantime: try again")
            self._remember(now)
            return now

    async def delete(self, endpoint_id: EndpointId | str) -> Endpoint:
        """Forget the endpoint and its releases; it answers nobody from now on. Raises `NotFound`."""
        async with self._changing:
            endpoint = self.get(endpoint_id)
            await self._control.remove_endpoint(endpoint.id)
            del self._by_id[endpoint.id], self._terms[endpoint.id]
            self._tell(endpoint.id)
            return endpoint

    async def releases(self, endpoint_id: EndpointId | str) -> list[ReleaseView]:
        """All releases, newest first, each with what it changed. Raises `NotFound`."""
        endpoint = self.get(endpoint_id)
        releases = await self._control.releases(endpoint.id)
        olders = [*releases[1:], None]
        return [
            ReleaseView(release=release, diff=() if older is None else _diff(older.run, release.run))
            for release, older in zip(releases, olders, strict=False)
        ]

    async def set_lock(self, endpoint_id: EndpointId, release_id: ReleaseId, lock: str) -> None:
        """Remember what a release's requirements resolved to; the first answer stays. No edit: nothing rolls."""
        async with self._changing:
            await self._control.set_lock(release_id, lock)
            endpoint = self._by_id.get(endpoint_id)
            if endpoint is None or endpoint.release.id != release_id or endpoint.release.run.lock is not None:
                return
            release = replace(endpoint.release, run=replace(endpoint.release.run, lock=lock))
            self._by_id[endpoint_id] = replace(endpoint, release=release)

    async def _changed_release(self, was: Endpoint, change: EndpointChange) -> Release:
        old = was.release.run
        run = replace(
            old,
            bundle=_either(change.bundle, old.bundle),
            handler=_either(change.handler, old.handler),
            env=_either(change.env, old.env),
            # A new bundle may have new requirements; the same bundle keeps the packages it runs with.
            lock=old.lock if change.bundle is None else None,
        )
        if change.bundle is None and run == old:
            return was.release
        await self._check_run(run)
        return self._release(was.id, was.release.version + 1, run)

    async def _check_run(self, run: RunSpec) -> None:
        _check_handler(run.handler)
        if not _DIGEST.match(run.bundle):
            raise BadRequest("runyard.bundle must be the SHA-256 of an uploaded bundle: 64 lower-case hex digits")
        if not await self._blobs.exists(run.bundle):
            raise BadRequest(f"bundle {run.bundle} is not here: upload it with PUT /v2/bundles/{run.bundle} first")

    def _check_name_is_free(self, name: str, own_id: EndpointId | None) -> None:
        """The original allows a name twice; here it addresses the endpoint, so it may also not look like an id."""
        for endpoint in self._by_id.values():
            if endpoint.id != own_id and name in (endpoint.name, endpoint.id):
                raise Conflict(
                    f"the name {name!r} is taken by endpoint {endpoint.id}: names address endpoints here, so each is "
                    "given once. Choose another name, or update that endpoint"
                )

    def _release(self, endpoint_id: EndpointId, version: int, run: RunSpec) -> Release:
        return Release(
            id=self._ids.release(), endpoint_id=endpoint_id, version=version, run=run, created_at=self._clock.now()
        )

    def _fresh_id(self) -> EndpointId:
        taken = RESERVED_IDS | self._by_id.keys() | {endpoint.name for endpoint in self._by_id.values()}
        for _ in range(ID_TRIES_MAX):
            if (endpoint_id := self._ids.endpoint()) not in taken:
                return endpoint_id
        raise Conflict(f"no free endpoint id in {ID_TRIES_MAX} tries: try again")

    def _remember(self, endpoint: Endpoint) -> None:
        self._by_id[endpoint.id] = endpoint
        self._terms[endpoint.id] = endpoint.terms.over(self._platform_terms)
        self._tell(endpoint.id)

    def _tell(self, endpoint_id: EndpointId) -> None:
        self._signals.fire(topics.endpoint(endpoint_id))
        self._signals.fire(topics.ENDPOINTS)


def check_idle_timeout(scaler: QueueDelay | RequestCount) -> None:
    """Whoever sets an idle timeout must scale by queue delay: the other scaler has none (contract C.2)."""
    if isinstance(scaler, RequestCount):
        raise BadRequest("workers.idleTimeout does not apply when scaling on REQUEST_COUNT: leave it out")


def _changed_scaling(was: ScalingPolicy, change: EndpointChange) -> ScalingPolicy:
    scaler = _either(change.scaler, was.scaler)
    if change.idle_timeout is not None:
        check_idle_timeout(scaler)
    return ScalingPolicy(
        workers_min=_either(change.workers_min, was.workers_min),
        workers_max=_either(change.workers_max, was.workers_max),
        idle_timeout=_either(change.idle_timeout, was.idle_timeout),
        scaler=scaler,
    )


def _either(changed: _T | None, was: _T) -> _T:
    return was if changed is None else changed


def _check_handler(handler: str) -> None:
    path = PurePosixPath(handler)
    if (
        not handler.isprintable()
        or len(handler) > HANDLER_LENGTH_MAX
        or path.is_absolute()
        or ".." in path.parts
        or path.suffix != ".py"
    ):
        raise BadRequest(
            f"runyard.handler must be the path of a .py file inside the bundle, at most {HANDLER_LENGTH_MAX} characters"
        )


def _diff(old: RunSpec, new: RunSpec) -> tuple[FieldDiff, ...]:
    pairs = (
        ("bundle", old.bundle, new.bundle),
        ("handler", old.handler, new.handler),
        ("env", dict(old.env), dict(new.env)),
    )
    return tuple(FieldDiff(field=field, old=before, new=after) for field, before, after in pairs if before != after)
