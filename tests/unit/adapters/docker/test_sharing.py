import asyncio

import pytest

from runyard.adapters.docker.sharing import SharedWork
from runyard.domain.errors import BuildFailed
from runyard.ports.runtime import Say


class Slow:
    """Work that says a line, waits to be let go on, and says another."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.begun = self.cancelled = 0
        self._error = error

    async def __call__(self, say: Say) -> str:
        self.begun += 1
        say("first")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        say("second")
        if self._error:
            raise self._error
        return "done"


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_ask_for_the_same_share_it() -> None:
    shared, work = SharedWork[str](goes_on=True), Slow()
    heard: list[list[str]] = [[], [], []]
    tasks = []
    for lines in heard:
        tasks.append(asyncio.create_task(shared.do("a", work, lines.append)))
        await settle()
    work.go.set()

    assert ["done"] * 3 == await asyncio.gather(*tasks)
    assert [["first", "second"]] * 3 == heard
    assert (1, 0) == (work.begun, len(shared))
    assert "done" == await shared.do("a", work, print)
    assert 2 == work.begun


async def test_an_error_is_everybodys() -> None:
    shared, work = SharedWork[str](goes_on=True), Slow(BuildFailed("no"))
    tasks = [asyncio.create_task(shared.do("a", work, print)) for _ in range(2)]
    await settle()
    work.go.set()

    assert ["no", "no"] == [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_what_nobody_waits_for_goes_on_or_ends(*, goes_on: bool) -> None:
    shared, work = SharedWork[str](goes_on=goes_on), Slow()
    tasks = [asyncio.create_task(shared.do("a", work, print)) for _ in range(2)]
    await settle()
    tasks[0].cancel()
    await settle()

    assert 0 == work.cancelled
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert (not goes_on, goes_on) == (bool(work.cancelled), len(shared) == 1)
    await shared.close()


async def test_closing_fails_who_waits_and_cancels_nobody() -> None:
    shared, work = SharedWork[str](goes_on=True), Slow()
    task = asyncio.create_task(shared.do("a", work, print))
    await settle()
    await shared.close()

    with pytest.raises(BuildFailed, match="the platform stops"):
        await task
    assert 1 == work.cancelled
