"""What must happen even if it cannot be written down now: it is tried until it is.

For facts that nobody will report again: that a worker has ended, that a job was not handed over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from runyard.domain.errors import TooBusy
from runyard.ports.system import Clock

INSIST_EVERY_S = 0.5
_T = TypeVar("_T")


async def insist(work: Callable[[], Awaitable[_T]], clock: Clock) -> _T:
    """Do the work, again and again while the store cannot write. It ends by cancellation at the latest."""
    while True:
        try:
            return await work()
        except TooBusy:
            await clock.sleep(INSIST_EVERY_S)
