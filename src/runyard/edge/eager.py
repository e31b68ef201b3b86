"""Run a coroutine at once, and on from each future it waits for, without a task.

Services are coroutines, since a store may have to wait. With jobs in memory they never do, and where they wait it is for one
future, a commit: a task for each request would be a good part of its cost. So the coroutine must not ask for its task, as
`asyncio.timeout` and task groups do, and nothing can cancel it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

Failed = Callable[[BaseException], None]


def start(coro: Coroutine[Any, Any, None], failed: Failed) -> None:
    """Run `coro` to its end or first wait, and go on when that is over. `failed` gets what it raises."""
    _step(coro, failed)


def _step(coro: Coroutine[Any, Any, None], failed: Failed) -> None:
    try:
        waiting: Any = coro.send(None)  # What became of a future, its result or its error, the coroutine gets from it.
    except StopIteration:
        return
    except Exception as error:  # noqa: BLE001 - `failed` decides what each error means.
        failed(error)
        return
    if waiting is None:  # `sleep(0)`
        asyncio.get_running_loop().call_soon(_step, coro, failed)
    else:
        waiting._asyncio_future_blocking = False  # It is waited for, as a task would say.
        waiting.add_done_callback(partial(_go_on, coro, failed))


def _go_on(coro: Coroutine[Any, Any, None], failed: Failed, _: object) -> None:
    _step(coro, failed)
