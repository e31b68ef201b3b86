"""An Engine that says what nobody expects is listened to again."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runyard.adapters.docker.engine import Engine
from runyard.adapters.docker.watch import Seen, Watch
from runyard.domain.job import WorkerId

pytestmark = pytest.mark.looptime


class OddEngine(Engine):
    """Lists nonsense a few times, then nothing; its streams of events break at once until it is `sound`."""

    def __init__(self, nonsense: list[Any]) -> None:
        super().__init__("unix:///nowhere")
        self.nonsense = nonsense
        self.streams: list[float] = []

    @property
    def sound(self) -> bool:
        return not self.nonsense

    async def call(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        return self.nonsense.pop() if self.nonsense else []

    @asynccontextmanager
    async def messages(self, method: str, path: str, body: Any = None, **_: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        self.streams.append(asyncio.get_running_loop().time())
        yield self._events()

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        if self.sound:
            await asyncio.Event().wait()
        yield {}


class Ears:
    async def compared(self, there: Mapping[WorkerId, Seen]) -> None: ...

    def killed(self, worker_id: WorkerId) -> None: ...

    def out_of_memory(self, worker_id: WorkerId) -> None: ...

    def died(self, worker_id: WorkerId) -> None: ...


async def watched(engine: OddEngine, seconds: float) -> Watch:
    watch = Watch(engine, "platform", Ears())
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(seconds)
    assert not running.done()
    running.cancel()
    await engine.close()
    return watch


@pytest.mark.parametrize("nonsense", [None, 7, [{"Id": "x"}], [{"Id": "x", "Labels": None, "State": "running"}]])
async def test_nonsense_does_not_end_the_watch(nonsense: Any) -> None:
    watch = await watched(OddEngine([nonsense] * 3), 10)

    assert watch.up.is_set()


async def test_streams_that_break_at_once_are_opened_less_and_less_often() -> None:
    engine = OddEngine([[]] * 1000)
    await watched(engine, 30)

    pauses = [after - before for before, after in zip(engine.streams, engine.streams[1:], strict=False)]
    assert pauses == sorted(pauses)
    assert len(engine.streams) < 20
