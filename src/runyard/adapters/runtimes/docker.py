"""Workers as containers of a Docker Engine.

    <folder>/id                         what the Engine's labels call this data directory
    <folder>/workers/<worker id>.json   that it is a container, and how far its log was read

1. A container is ours by its labels. Its name is for people: once it is made it goes by its id, which no renaming changes.
   It outlives the platform, and its log is with the Engine. It is noted before it is made, and until its end is reported,
   which is when all of its log was read; then it is removed.
2. The Engine may go away and come back, with its containers or without. Meanwhile workers count as running, since they may;
   what has become of them is found out when it is back, and who was to be stopped is stopped then.
3. How far a log was read is noted every other second. After a platform that left in good order nothing is said twice, after
   one that was killed what was said in those seconds; nothing is lost either way.
4. An Engine is asked for nothing before there is a container to start or to look after.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from runyard.adapters.docker.contained import Contained
from runyard.adapters.docker.disk import LOOK_EVERY_S, watch_disks
from runyard.adapters.docker.engine import Engine, EngineError, NoEngine
from runyard.adapters.docker.maker import ImageStore, Maker
from runyard.adapters.docker.networks import Networks
from runyard.adapters.docker.notes import Note, Notes, platform_id
from runyard.adapters.docker.spec import Policy
from runyard.adapters.docker.watch import Seen, Watch
from runyard.adapters.locks import KeyedLocks
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import NotFound, StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.ports.runtime import Launch, RuntimeObserver, Say
from runyard.ports.worker_ports import WorkerPorts
from runyard.services.background import Background

log = logging.getLogger(__name__)

RETURN_S_MAX = 20.0
"""How long a start waits for an Engine that was there and is away: one that was killed takes 10 s to come back."""
ASK_AGAIN_S = 0.5
CLOSE_S_MAX = 10.0
BELATED_GRACE_S = 10.0
"""Of workers that were to be stopped while their Engine was away."""
SAVE_EVERY_S = 2.0
TIDY_EVERY_S = 60.0
T = TypeVar("T")
_WORKER_ID = re.compile(r"[A-Za-z0-9_.-]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """What there is once the Engine was needed."""

    networks: Networks
    maker: Maker
    watch: Watch


class DockerRuntime:
    """`endpoints` tells those that there are: networks of others are removed. `named` is the platform's own container, where
    it runs in one and cannot see that. Closes the Engine's client when it is closed or left.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        images: ImageStore,
        planes: WorkerPorts,
        observer: RuntimeObserver,
        *,
        endpoints: Callable[[], Awaitable[Collection[EndpointId]]],
        policy: Policy,
        subnets: ipaddress.IPv4Network,
        named: str = "",
        disk_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._images = images
        self._planes = planes
        self._observer = observer
        self._endpoints = endpoints
        self._policy = policy
        self._subnets = subnets
        self._named = named
        self._disk_every_s = disk_every_s
        self._notes = Notes(folder / "workers")
        self._workers: dict[WorkerId, Contained] = {}
        self._followers: dict[WorkerId, asyncio.Task[None]] = {}
        self._locks = KeyedLocks()
        self._tasks = Background(log, "looking after containers failed")
        self._starts: set[asyncio.Task[None]] = set()
        self._site: _Site | None = None
        self._closed = False
        self._let_go_of_all = False

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        """Raises `NoEngine`, beside `BuildFailed`."""

        async def prepare(site: _Site) -> RunSpec:
            prepared = await self._images.prepare(endpoint_id, run, say)
            await site.networks.ensure(endpoint_id)
            return prepared

        return await self._insist(prepare)

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        network = None if self._site is None else self._site.networks.find(endpoint_id)
        return None if network is None else network.plane

    async def start(self, launch: Launch) -> None:
        # Finished even if nobody waits any more: half a start is nothing that can be left to another process.
        work = self._insist(lambda site: self._start(site, launch))
        start = asyncio.create_task(work, name=f"start {launch.worker_id}")
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)
        await asyncio.shield(start)

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None:
        """While the Engine is away this returns at once; the worker is stopped when it is back."""
        await self.adopt(worker_id)
        async with self._locks.held(worker_id):  # It may just be starting.
            contained, follower = self._workers.get(worker_id), self._followers.get(worker_id)
        if contained is not None and follower is not None:
            try:
                await contained.stop(grace.total_seconds())
                await asyncio.shield(follower)
            except NoEngine as error:
                log.warning("worker %s will be stopped later: %s", worker_id, error)

    async def list(self) -> list[WorkerId]:
        return list({*self._workers, *self._notes.workers()})

    async def adopt(self, worker_id: WorkerId) -> None:
        if worker_id in self._workers or (note := self._notes.read(worker_id)) is None:
            return
        contained = self._contained(worker_id, note)
        contained.adopt()
        self._look_after(worker_id, contained)

    async def leave(self) -> None:
        self._closed = True
        await self._images.close()
        await asyncio.gather(*self._starts, return_exceptions=True)
        self._save()
        await self._let_go()

    async def close(self) -> None:
        if self._let_go_of_all:
            return
        self._closed = True
        await asyncio.gather(*self._starts, return_exceptions=True)
        for worker_id in self._notes.workers():
            await self.adopt(worker_id)
        with suppress(TimeoutError, StartFailed):
            async with asyncio.timeout(CLOSE_S_MAX):
                await asyncio.gather(*map(self._end, list(self._workers)), return_exceptions=True)
                if self._site is not None:
                    await self._site.networks.remove()
        await self._let_go()

    async def collect(self, in_use: Collection[str]) -> None:
        if self._site is not None and self._site.watch.up.is_set():
            await self._images.collect(in_use)

    async def freeze(self, worker_id: WorkerId) -> None:
        await self._worker(worker_id).pause()

    async def thaw(self, worker_id: WorkerId) -> None:
        await self._worker(worker_id).unpause()

    async def exec(self, worker_id: WorkerId, argv: Sequence[str], say: Say) -> int:
        """Raises `NotFound`, and `StartFailed` where that is not possible."""
        return await self._worker(worker_id).exec(argv, say)

    async def tidy(self) -> None:
        """Remove networks that no container uses and whose endpoint is gone. Happens by itself now and then."""
        if self._site is not None:
            with suppress(StartFailed):
                await self._site.networks.remove(but=await self._endpoints())

    # From the Engine (watch.Ears)

    async def compared(self, there: Mapping[WorkerId, Seen]) -> None:
        for worker_id, contained in self._workers.items():
            seen = there.get(worker_id)
            if not contained.started:
                continue
            if seen is None or seen.ended:
                contained.died(unseen=True)
            elif contained.stopping:
                self._tasks.spawn(self.stop(worker_id, timedelta(seconds=BELATED_GRACE_S)))
        running = [seen for seen in there.values() if not seen.ended]
        await self._open().networks.resume({seen.endpoint_id: seen.plane for seen in running if seen.plane})
        noted = self._notes.workers()
        for worker_id in there.keys() - self._workers.keys() - set(noted):
            self._tasks.spawn(self._remove(there[worker_id].id))

    def killed(self, worker_id: WorkerId) -> None:
        if (contained := self._workers.get(worker_id)) is not None:
            contained.killed()

    def out_of_memory(self, worker_id: WorkerId) -> None:
        if (contained := self._workers.get(worker_id)) is not None:
            contained.out_of_memory()

    def died(self, worker_id: WorkerId) -> None:
        if (contained := self._workers.get(worker_id)) is not None:
            contained.died()

    # One worker

    async def _start(self, site: _Site, launch: Launch) -> None:
        worker_id = launch.worker_id
        if not _WORKER_ID.match(worker_id):
            raise StartFailed(f"worker id {worker_id!r} cannot name a container")
        async with self._locks.held(worker_id):
            if worker_id in self._workers:
                return
            note = Note(endpoint_id=launch.endpoint_id)
            self._notes.write(worker_id, note)
            contained = self._workers[worker_id] = self._contained(worker_id, note)
            try:
                network = site.networks.find(launch.endpoint_id) or await site.networks.ensure(launch.endpoint_id)
                contained.made(*await site.maker.make(launch, network))
            except BaseException:
                del self._workers[worker_id]
                self._notes.remove(worker_id)
                raise
            contained.started = True
            self._notes.write(worker_id, contained.note())
            self._look_after(worker_id, contained)

    def _contained(self, worker_id: WorkerId, note: Note) -> Contained:
        def say(line: str) -> None:
            self._observer.worker_said(worker_id, line)

        return Contained(self._engine, self._open().watch.up, worker_id, note, say)

    def _look_after(self, worker_id: WorkerId, contained: Contained) -> None:
        self._workers[worker_id] = contained
        self._followers[worker_id] = self._tasks.spawn(self._follow(worker_id, contained))

    async def _follow(self, worker_id: WorkerId, contained: Contained) -> None:
        exit = await contained.see_out()
        del self._workers[worker_id], self._followers[worker_id]
        self._notes.remove(worker_id)
        self._observer.worker_exited(worker_id, exit)
        await self._remove(contained.container)

    async def _end(self, worker_id: WorkerId) -> None:
        follower = self._followers[worker_id]
        await self._workers[worker_id].kill()
        await asyncio.shield(follower)

    async def _remove(self, container: str) -> None:
        """Of an Engine that is away it is removed when that is back: then it is nobody's."""
        with suppress(StartFailed):
            await self._engine.call("DELETE", f"/containers/{container}", force=True, v=True)

    def _worker(self, worker_id: WorkerId) -> Contained:
        if (contained := self._workers.get(worker_id)) is None:
            raise NotFound(f"no container runs worker {worker_id}")
        return contained

    # All of them

    async def _insist(self, work: Callable[[_Site], Awaitable[T]]) -> T:
        """Do it again when the Engine goes away meanwhile and comes back soon."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETURN_S_MAX
        while True:
            site = await self._there()
            try:
                return await work(site)
            except (NoEngine, EngineError) as error:
                # Its socket goes before its streams do, so that one that is ending may seem to be up; and it says strange
                # things.
                if isinstance(error, EngineError) and error.status < 500:
                    raise
                await asyncio.sleep(ASK_AGAIN_S)
                if (isinstance(error, EngineError) and site.watch.up.is_set()) or loop.time() > deadline:
                    raise

    async def _there(self) -> _Site:
        """Raises `NoEngine`, when it does not come back soon, and `StartFailed` as soon as the platform stops."""
        if self._closed:
            raise StartFailed("the platform is stopping")
        site = self._open()
        if not site.watch.was_up:
            await self._engine.api_version()
        for _ in range(round(RETURN_S_MAX / ASK_AGAIN_S)):
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await site.watch.up.wait()
                    return site
            if self._closed:
                raise StartFailed("the platform is stopping")
        await self._engine.api_version()
        raise NoEngine(f"the Docker Engine at {self._engine.address} does not tell what happens to its containers")

    def _open(self) -> _Site:
        if self._site is None:
            platform = platform_id(self._folder / "id")
            self._site = _Site(
                networks=Networks(self._engine, platform, self._planes, self._subnets, named=self._named),
                maker=Maker(self._engine, platform, self._images, self._policy),
                watch=Watch(self._engine, platform, self),
            )
            self._tasks.spawn(self._site.watch.run())
            self._tasks.spawn(watch_disks(self._engine, self._all, self._disk_every_s))
            self._tasks.spawn(self._saving())
            self._tasks.spawn(self._tidying())
        return self._site

    def _all(self) -> Iterable[Contained]:
        return list(self._workers.values())

    async def _saving(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self._save()

    def _save(self) -> None:
        for worker_id, contained in self._workers.items():
            if contained.started and contained.differs:
                self._notes.write(worker_id, contained.note())

    async def _tidying(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            await self.tidy()

    async def _let_go(self) -> None:
        self._let_go_of_all = True
        await self._tasks.cancel()
        await self._images.close()
        await self._engine.close()
