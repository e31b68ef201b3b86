"""A `JobStore` whose disk a test can fill."""

from collections.abc import Callable, Sequence

from runyard.adapters.stores.memory import MemoryJobs
from runyard.domain.errors import TooBusy
from runyard.domain.job import EndpointId, Job, WorkerId
from runyard.ports.stores import Ready


class FullJobs(MemoryJobs):
    """While it is `full`, nothing changes in it, and what is there can be read: as the embedded store on a full disk."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.refused = 0
        self.on_taken: Callable[[], None] = lambda: None
        """What happens right after jobs were taken."""

    async def add(self, job: Job) -> None:
        self._refuse_if_full()
        await super().add(job)

    async def add_soon(self, job: Job) -> int:
        self._refuse_if_full()
        return await super().add_soon(job)

    async def take(
        self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float, ready: Ready | None = None
    ) -> list[Job]:
        jobs = [] if self.full else await super().take(endpoint_id, worker_id, limit, now, ready)
        if jobs:
            self.on_taken()
        return jobs

    async def save(self, job: Job, was: Job) -> bool:
        self._refuse_if_full()
        return await super().save(job, was)

    async def append_output(self, job: Job, chunks: Sequence[bytes]) -> bool:
        self._refuse_if_full()
        return await super().append_output(job, chunks)

    def _refuse_if_full(self) -> None:
        if self.full:
            self.refused += 1
            raise TooBusy("the job store cannot write (a test has filled its disk)")
