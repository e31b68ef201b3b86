"""Work that several ask for, done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from runyard.domain.errors import BuildFailed
from runyard.ports.runtime import Say

T = TypeVar("T")


@dataclass(slots=True)
class _Work(Generic[T]):
    task: asyncio.Task[T]
    ears: list[Say] = field(default_factory=list[Say])
    last: str | None = None


class SharedWork(Generic[T]):
    """Who asks for work of a key that is under way joins it: hears its last line and those to come, and has its result or
    its error. `goes_on`: it is finished also when nobody waits for it any more; otherwise it is cancelled then.
    """

    def __init__(self, *, goes_on: bool) -> None:
        self._goes_on = goes_on
        self._under_way: dict[str, _Work[T]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def do(self, key: str, work: Callable[[Say], Awaitable[T]], say: Say) -> T:
        shared = self._under_way.get(key)
        if shared is None:
            shared = self._begin(key, work)
        elif shared.last is not None:
            say(shared.last)
        shared.ears.append(say)
        try:
            return await asyncio.shield(shared.task)
        except asyncio.CancelledError:
            asker = asyncio.current_task()
            if shared.task.cancelled() and not (asker and asker.cancelling()):
                raise BuildFailed("the platform stops, and its pulls and builds with it") from None
            raise
        finally:
            shared.ears.remove(say)
            if not shared.ears and not self._goes_on and not shared.task.done():
                self._under_way.pop(key, None)
                shared.task.cancel()

    async def close(self) -> None:
        """Cancel all of it; who waits has `BuildFailed`."""
        tasks = [shared.task for shared in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: str, work: Callable[[Say], Awaitable[T]]) -> _Work[T]:
        def tell(line: str) -> None:
            shared.last = line
            for ear in list(shared.ears):
                ear(line)

        async def run() -> T:
            try:
                return await work(tell)
            finally:
                if self._under_way.get(key) is shared:
                    del self._under_way[key]

        shared = self._under_way[key] = _Work(asyncio.ensure_future(run()))
        shared.task.add_done_callback(_look_at)
        return shared


def _look_at(task: asyncio.Task[T]) -> None:
    """Its error is its askers' matter, and nobody's where all of them have gone."""
    if not task.cancelled():
        task.exception()
