"""Large inputs: out of memory while their jobs wait, and back in it before these are handed over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runyard.domain.errors import RunyardError
from runyard.domain.job import Job
from runyard.ports.stores import JobStore
from runyard.ports.system import Clock, Signals
from runyard.services.hand import Batch, Hand
from runyard.services.loading import Loading
from runyard.services.spill import Spills

PIECE_BYTES = 1 << 20
"""Written at once: to copy more would keep others waiting."""


class Inputs:
    """Those of more than `inline_bytes_max` are spilled. `close` it at the end."""

    def __init__(
        self, spills: Spills, store: JobStore, signals: Signals, clock: Clock, *, inline_bytes_max: int
    ) -> None:
        self._spills = spills
        self._hand = Hand()
        self.loading = Loading(spills, store, self._hand, signals, clock)
        self.inline_bytes_max = inline_bytes_max

    async def spill(self, job: Job, store: Callable[[Job], Awaitable[Job]]) -> Job:
        """Keep the input of a new job first, and then `store` the job, which names it. Raises `TooBusy`, and whatever
        `store` does; then nothing is left.
        """
        incoming = await self._spills.begin_input(job)
        try:
            assert isinstance(job.input, bytes)
            for start in range(0, len(job.input), PIECE_BYTES):
                await incoming.write(job.input[start : start + PIECE_BYTES])
            payload = await incoming.keep()
            try:
                return await store(job._replace(input=payload))
            except RunyardError:
                await self._spills.drop_unless_named(payload, job)
                raise
        finally:
            await incoming.close()

    def batch(self) -> Batch:
        """For one answer."""
        return Batch(self._hand)

    async def close(self) -> None:
        """Nothing is loaded any more."""
        await self.loading.close()
