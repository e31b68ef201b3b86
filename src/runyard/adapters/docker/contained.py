"""One worker's container, from its start to its end and the last of its log."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any

from runyard.adapters.docker.engine import Engine, EngineError, NoEngine, frames
from runyard.adapters.docker.heard import Heard
from runyard.adapters.docker.notes import Note
from runyard.adapters.docker.spec import ENDED, exit_of, name_of
from runyard.adapters.runtimes.lines import LineSplitter
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Say

log = logging.getLogger(__name__)

QUIET_S = 1.0
"""How long an ended container's log may be silent and still be followed."""
AGAIN_S = 0.1
ASK_AGAIN_S = 1.0
KILL_S_MAX = 30.0
REST_ENTRIES = 1000
"""So many of the last entries are looked through before all are: those are found quickly, the others are not."""


class Contained:
    """The container of `worker_id`."""

    def __init__(self, engine: Engine, up: asyncio.Event, worker_id: WorkerId, note: Note, say: Say) -> None:
        """`up`: the Engine answers; followers wait for it when it does not."""
        self._engine = engine
        self._up = up
        self._heard = Heard(note.heard)
        self._say = say
        self._noted = note
        self._saved_entries = 0
        self.container = note.container or name_of(worker_id)
        """How the Engine knows it: by its id, which stays when somebody renames it, as soon as that is known."""
        self.started = False
        """Before, it is no sign of an end that it does not run."""
        self.stopping = False
        """We have decided that it ends."""
        self._adopted = False
        self._killed_by_others = False
        self._ended_unseen = False
        self._ran_out_of_memory = False
        self._died = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def endpoint_id(self) -> EndpointId:
        return self._noted.endpoint_id

    @property
    def disk_limit(self) -> int | None:
        return self._noted.disk_limit

    def adopt(self) -> None:
        """Another process has started it, and nobody has watched since."""
        self.started = self._adopted = True

    def made(self, id: str, disk_limit: int | None) -> None:
        self.container = id
        self._noted = replace(self._noted, container=id, disk_limit=disk_limit)

    def note(self) -> Note:
        """What the next process has to know."""
        self._saved_entries = self._heard.entries
        return replace(self._noted, heard=self._heard.save())

    @property
    def differs(self) -> bool:
        """Whether `note` would say more than it last did."""
        return self._saved_entries != self._heard.entries

    def remark(self, line: str) -> None:
        """Say something about it, among its own lines."""
        self._say(f"[runyard] {line}")

    # What the Engine says

    def killed(self) -> None:
        self._killed_by_others = self._killed_by_others or not self.stopping

    def out_of_memory(self) -> None:
        self._ran_out_of_memory = True

    def died(self, *, unseen: bool = False) -> None:
        """`unseen`: it was found so."""
        self._ended_unseen = self._ended_unseen or (unseen and not self._died.is_set())
        self._died.set()

    # What is wanted of it

    async def stop(self, grace_s: float) -> None:
        """Ask, wait, kill. Returns when nothing of it runs. Raises `NoEngine`."""
        self.stopping = True
        await self._signal(await self._stop_signal())
        if not await self._ends_within(grace_s):
            await self.kill()

    async def kill(self) -> None:
        """Returns when nothing of it runs, or after half a minute in vain. Raises `NoEngine`."""
        self.stopping = True
        await self._signal("SIGKILL")
        if not await self._ends_within(KILL_S_MAX):
            log.error("container %s does not die", self.container)

    async def see_out(self) -> Exit:
        """Say what it says until it has ended, and return how. Outlives the Engine."""
        try:
            while True:
                await self._up.wait()
                try:
                    await self._look_if_adopted()
                    if await self._hear():
                        return exit_of(await self._end_state(), with_platform=self._ended_for_others)
                except NoEngine:
                    await asyncio.sleep(AGAIN_S)
                except EngineError as error:
                    if error.status == 404:  # Somebody has removed it.
                        return Exit(None, signal.SIGKILL, with_platform=not self.stopping)
                    log.warning("container %s: %s", self.container, error)
                    await asyncio.sleep(ASK_AGAIN_S)
        finally:
            self._over.set()

    @property
    def _ended_for_others(self) -> bool:
        return not self.stopping and (self._killed_by_others or self._ended_unseen)

    async def _look_if_adopted(self) -> None:
        if self._adopted:
            if (await self._state())["Status"] in ENDED:
                self.died(unseen=True)
            self._adopted = False

    # Its log

    async def _hear(self) -> bool:
        """Follow the log as long as it comes; whether it has come to its end."""
        following = asyncio.create_task(self._follow())
        dying = asyncio.create_task(self._died.wait())
        try:
            await asyncio.wait((following, dying), return_when=asyncio.FIRST_COMPLETED)
            await self._last_words(following)
        finally:
            for task in (following, dying):
                task.cancel()
            await asyncio.wait((following, dying))
        if following.done() and not following.cancelled() and (error := following.exception()) is not None:
            raise error
        with suppress(TimeoutError):
            # The log may end a moment before the container does.
            async with asyncio.timeout(AGAIN_S):
                await self._died.wait()
        if (await self._state())["Status"] not in ENDED:
            self._died.clear()
            return False
        await self._hear_rest()
        for line in self._heard.end():
            self._say(line)
        return True

    async def _last_words(self, following: asyncio.Task[None]) -> None:
        """Wait while more comes. Not every Engine ends a log when its container does."""
        before = -1
        while not following.done() and self._heard.entries != before:
            before = self._heard.entries
            await asyncio.wait((following,), timeout=QUIET_S)

    async def _follow(self) -> None:
        self._heard.begin()
        async with self._log(follow=True, since=self._heard.since) as chunks:
            async for number, entry in frames(chunks):
                self._take(number, entry)

    async def _hear_rest(self) -> None:
        """What following has missed: Engines before 23 end that when the container ends, even amid its log."""
        rest: list[tuple[int, bytes]] = []
        since = self._heard.since
        async with self._log(follow=False, since=since, tail=str(REST_ENTRIES)) as chunks:
            rest += [piece async for piece in frames(chunks)]
        self._heard.begin()
        if len(rest) < REST_ENTRIES:
            for number, entry in rest:
                self._take(number, entry)
            return
        async with self._log(follow=False, since=since) as chunks:
            async for number, entry in frames(chunks):
                self._take(number, entry)

    def _log(self, **query: Any) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        path = f"/containers/{self.container}/logs"
        return self._engine.stream("GET", path, stdout=True, stderr=True, timestamps=True, **query)

    def _take(self, number: int, entry: bytes) -> None:
        for line in self._heard.take(number, entry):
            self._say(line)

    # Questions and orders

    async def pause(self) -> None:
        """Nothing happens when it is paused. Raises `StartFailed`."""
        await self._unless("is already paused", "pause")

    async def unpause(self) -> None:
        """Nothing happens when it is not paused. Raises `StartFailed`."""
        await self._unless("is not paused", "unpause")

    async def _unless(self, so_already: str, what: str) -> None:
        try:
            await self._engine.call("POST", f"/containers/{self.container}/{what}")
        except EngineError as error:
            if so_already not in str(error):
                raise

    async def exec(self, argv: Sequence[str], say: Say) -> int:
        """Raises `StartFailed` where nothing can be executed, as in a paused container."""
        body = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
        made = (await self._engine.call("POST", f"/containers/{self.container}/exec", body))["Id"]
        splitters = {1: LineSplitter(), 2: LineSplitter()}
        async with self._engine.stream("POST", f"/exec/{made}/start", {"Detach": False, "Tty": False}) as chunks:
            async for number, piece in frames(chunks):
                for line in splitters[number].feed(piece):
                    say(line)
        for splitter in splitters.values():
            for line in splitter.end():
                say(line)
        return int((await self._engine.call("GET", f"/exec/{made}/json"))["ExitCode"])

    async def _end_state(self) -> dict[str, Any]:
        state = await self._state()
        return {**state, "OOMKilled": state.get("OOMKilled") or self._ran_out_of_memory}

    async def _state(self) -> dict[str, Any]:
        return (await self._inspect())["State"]

    async def _inspect(self) -> dict[str, Any]:
        return await self._engine.call("GET", f"/containers/{self.container}/json")

    async def _stop_signal(self) -> str:
        try:
            return (await self._inspect())["Config"].get("StopSignal") or "SIGTERM"
        except EngineError:
            return "SIGTERM"

    async def _signal(self, name: str) -> None:
        """A paused one is woken for it by the Engine."""
        try:
            await self._engine.call("POST", f"/containers/{self.container}/kill", signal=name)
        except EngineError as error:
            if error.status not in (404, 409):  # It has ended.
                log.warning("container %s cannot be sent %s: %s", self.container, name, error)

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            # Not `wait_for`, which may lose a cancellation before Python 3.12.
            async with asyncio.timeout(seconds):
                await self._over.wait()
                return True
        return False
