"""Large inputs: out of memory while their jobs wait, and back in it when these are handed over."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from runyard.domain.errors import NotFound, RunyardError
from runyard.domain.job import Job
from runyard.domain.payload import Spilled
from runyard.services.spill import Spills

LOADED_BYTES_MAX = 32 << 20
"""Inputs in one answer, if it has more than one."""
PIECE_BYTES = 1 << 20
"""Written at once: to copy more would keep others waiting."""

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """Jobs that were taken, by what can be done with them."""

    ready: list[tuple[Job, bytes]]
    """With their inputs."""
    lost: list[tuple[Job, str]]
    """Whose inputs are not there any more, and why."""
    left: list[Job]
    """For another time: there is no room for their inputs in this answer, or they cannot be had just now. With some of these
    and none `ready` it is the latter.
    """

    @property
    def size(self) -> int:
        """Of what is ready."""
        return sum(len(input) for _, input in self.ready)


class Inputs:
    """Those of more than `inline_bytes_max` are spilled."""

    def __init__(self, spills: Spills, *, inline_bytes_max: int) -> None:
        self._spills = spills
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

    async def load(self, jobs: Sequence[Job]) -> Loaded:
        """What can be handed over of these, in one answer."""
        loaded, fails = Loaded([], [], []), False
        for number, job in enumerate(jobs):
            input = job.input
            if not isinstance(input, Spilled):
                loaded.ready.append((job, input))
            elif fails:
                loaded.left.append(job)
            elif loaded.size and loaded.size + input.size > LOADED_BYTES_MAX:
                loaded.left.extend(jobs[number:])  # All behind it, too: they keep their order.
                break
            else:
                fails = not await self._load(job, input, loaded)
        return loaded

    async def _load(self, job: Job, input: Spilled, into: Loaded) -> bool:
        """False when it cannot be had just now."""
        try:
            into.ready.append((job, await self._spills.load(input)))
        except NotFound as error:
            into.lost.append((job, f"the job's input is lost: {error.message}"))
        except (RunyardError, OSError) as error:
            log.warning("the input of job %s cannot be read, which waits for it: %s", job.id, error)
            into.left.append(job)
            return False
        return True


def any_spilled(jobs: Sequence[Job]) -> bool:
    """Whether some of their inputs have to be loaded."""
    for job in jobs:  # noqa: SIM110 - Each job's way passes here, and a generator costs more than all the rest.
        if isinstance(job.input, Spilled):
            return True
    return False
