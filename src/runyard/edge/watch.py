"""Waiting, for those who answer a request bit by bit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runyard.edge.exchange import Exchange

Subscribe = Callable[[Callable[[], None]], Callable[[], None]]
"""Calls its argument at each piece of news until what it returns is called."""


class Watch:
    """What one coroutine waits for that answers an exchange: news, room for more, and the end.

    It is woken when there is news, when a client that was slow has taken what it was sent, when it leaves, and when the
    answer has to end: after `ends_after_s`, or at once when the server stops or hands over. A wake-up is but a hint.
    """

    def __init__(self, x: Exchange, subscribe: Subscribe, *, ends_after_s: float) -> None:
        self._x = x
        self._woken = asyncio.Event()
        self._quiet = False
        self._must_end = False
        unsubscribe = subscribe(self.wake)

        def ended() -> None:
            unsubscribe()
            self.wake()

        x.on_end(ended)
        x.hold(ends_after_s, self._end)

    def wake(self) -> None:
        self._woken.set()

    async def room(self) -> bool:
        """Wait until the client can take more; False when it has left or the answer has to end.

        What happens from now on wakes `news`, so read after this, and then wait.
        """
        while self._goes_on() and self._x.clogged:
            self._woken.clear()
            await self._woken.wait()
        self._woken.clear()
        return self._goes_on()

    async def news(self, seconds: float) -> bool:
        """Wait for a wake-up; False when none came for so long."""
        self._quiet = False
        timer = self._x.protocol.loop.call_later(seconds, self._nothing)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
        return not self._quiet

    def _goes_on(self) -> bool:
        return self._x.open_for_answer and not self._must_end

    def _nothing(self) -> None:
        self._quiet = True
        self.wake()

    def _end(self) -> None:
        self._must_end = True
        self.wake()
