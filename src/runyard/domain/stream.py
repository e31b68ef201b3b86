"""A reader's place in the stream of a job.

Chunks are numbered from 1 on in each attempt: when a job loses its worker, or is run again, what it had made is forgotten
with the attempt that made it. A place therefore names the attempt, too, so that nobody goes on behind chunks that are no
more. A run and a worker are that name, since no worker has a job twice in one run.
"""

from __future__ import annotations

from typing import NamedTuple

from runyard.domain.job import Job


class Place(NamedTuple):
    """Behind the first `seen` chunks of an attempt. The default one is before all chunks of any."""

    run: int = 0
    worker_id: str = ""
    """Empty while the job waits."""
    seen: int = 0

    def in_attempt_of(self, job: Job) -> Place:
        """This place if it lies in the job's present or last attempt, else that attempt's beginning."""
        run, worker_id = job.run, "" if job.lease is None else job.lease.worker_id
        return self if (self.run, self.worker_id) == (run, worker_id) else Place(run, worker_id)

    def behind(self, chunks: int) -> Place:
        """So many chunks further on."""
        return Place(self.run, self.worker_id, self.seen + chunks)
