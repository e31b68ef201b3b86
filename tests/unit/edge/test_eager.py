"""Coroutines that run without a task."""

from __future__ import annotations

import asyncio
import gc

import pytest

from runyard.edge import eager


class Run:
    """A coroutine that does what it is told, and what came of it."""

    def __init__(self) -> None:
        self.did: list[object] = []
        self.errors: list[BaseException] = []

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


async def test_it_runs_at_once_up_to_its_first_wait_and_then_on() -> None:
    run, future = Run(), asyncio.get_running_loop().create_future()

    async def work() -> None:
        run.did.append("begun")
        run.did.append(await future)
        await asyncio.sleep(0)
        run.did.append("ended")

    eager.start(work(), run.failed)
    assert ["begun"] == run.did
    gc.collect()  # The future alone holds it.
    future.set_result("told")
    await asyncio.sleep(0.001)

    assert ["begun", "told", "ended"] == run.did


async def test_what_a_future_fails_with_is_raised_where_it_is_awaited() -> None:
    run, loop = Run(), asyncio.get_running_loop()
    futures = [loop.create_future(), loop.create_future()]

    async def work() -> None:
        with pytest.raises(OSError, match="first"):
            await futures[0]
        await futures[1]

    eager.start(work(), run.failed)
    for future, name in zip(futures, ("first", "second"), strict=True):
        future.set_exception(OSError(name))
        await asyncio.sleep(0)

    assert ["second"] == [str(error) for error in run.errors]


async def test_an_error_before_any_wait_is_told_at_once() -> None:
    run = Run()

    async def work() -> None:
        raise ValueError("wrong")

    eager.start(work(), run.failed)
    assert ["wrong"] == [str(error) for error in run.errors]


async def test_tasks_and_threads_may_be_awaited() -> None:
    run = Run()

    async def part() -> str:
        await asyncio.sleep(0.001)
        return "task"

    async def work() -> None:
        run.did.append(await asyncio.create_task(part()))
        run.did.append(await asyncio.to_thread(lambda: "thread"))

    eager.start(work(), run.failed)
    async with asyncio.timeout(5):
        while len(run.did) < 2:  # noqa: ASYNC110 - what is waited for has no event.
            await asyncio.sleep(0.001)
    assert ["task", "thread"] == run.did
