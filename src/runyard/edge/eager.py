"""Run a coroutine at once, and make a task only if it has to wait.

Services are coroutines, since a store may have to wait. With jobs in memory they never do, and a task for each request would
be a good part of its cost. (Python 3.12 has eager tasks; this is the part of them we need, for 3.11 too.) Up to its first
wait the coroutine runs outside any task, so it must not ask for the current one there, as `asyncio.timeout` does.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Failed = Callable[[BaseException], None]

_running: set[asyncio.Task[None]] = set()  # The loop itself keeps only weak references to tasks.


def start(coro: Coroutine[Any, Any, None], failed: Failed) -> None:
    """Run `coro` to its end or first wait; the rest goes on as a task. `failed` gets what it raises."""
    try:
        waiting = coro.send(None)
    except StopIteration:
        return
    except Exception as error:  # noqa: BLE001 - `failed` decides what each error means.
        failed(error)
        return
    task = asyncio.get_running_loop().create_task(_rest(coro, waiting, failed))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _rest(coro: Coroutine[Any, Any, None], waiting: Any, failed: Failed) -> None:
    try:
        await _resume(coro, waiting)
    except Exception as error:  # noqa: BLE001 - as above.
        failed(error)


@types.coroutine
def _resume(coro: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Pass what the coroutine waits for on to the task, and what the task sends back on to the coroutine."""
    while True:
        try:
            sent = yield waiting
        except BaseException as error:  # noqa: BLE001 - It belongs to the coroutine.
            step, value = coro.throw, error
        else:
            step, value = coro.send, sent
        try:
            waiting = step(value)
        except StopIteration:
            return
