"""uv as the builder of environments: one command at a time, in a room, heard and bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from runyard.adapters.runtimes import surroundings
from runyard.adapters.runtimes.rooms import Room
from runyard.adapters.runtimes.spawner import Spawner
from runyard.domain.errors import BuildFailed
from runyard.ports.runtime import Say

TAIL_LINES = 50


class CommandFailed(Exception):
    """A builder's command ended badly; `output` holds its last lines."""

    def __init__(self, output: Sequence[str]) -> None:
        super().__init__(output[-1] if output else "no output")
        self.output = tuple(output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A room to build in, what can be reached from it, and the cache to use."""

    room: Room
    cache: Path
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]


class Uv:
    """Runs uv, and what else building takes, through `spawner`."""

    def __init__(self, spawner: Spawner, env: Mapping[str, str]) -> None:
        self._spawner = spawner
        self._env = env
        self._bin = Path(find_uv_bin()).resolve()

    async def __call__(self, shop: Workshop, *arguments: str | Path, say: Say) -> None:
        """Run one uv command. Raises `CommandFailed`."""
        await self.run(shop, self._bin, *arguments, say=say)

    async def run(self, shop: Workshop, *argv: str | Path, say: Say) -> None:
        """Run any command like one of uv's. When cancelled, nothing of it is left running."""
        output: deque[str] = deque(maxlen=TAIL_LINES)

        def hear(line: str) -> None:
            output.append(line)
            say(line)

        child = await self._spawner.spawn(
            shop.room,
            [str(argument) for argument in argv],
            env=self._environ(shop),
            say=hear,
            reads=(self._bin.parent, *shop.reads),
            writes=shop.writes,
        )
        try:
            exit = await child.wait()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if self._spawner.closed:
            raise BuildFailed("the platform is stopping")
        if exit.code != 0:
            raise CommandFailed(output or [f"{Path(argv[0]).name} ended with {exit}"])

    def _environ(self, shop: Workshop) -> dict[str, str]:
        return {
            **surroundings.of_build(shop.room),
            **self._env,
            "UV_CACHE_DIR": str(shop.cache),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
