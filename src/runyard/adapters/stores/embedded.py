"""Jobs in one SQLite file beside their state in memory: the store of a platform on one machine.

Every change is made in memory, said to the journal, and acknowledged when the journal has it on disk. Nobody sees a change
before: who asks for a job waits for the commit of its last change, and a job is handed out when its lease is kept. What
could not be written is undone in memory, so that memory never knows more than the disk.

Jobs that have ended leave memory and journal for the archive when their time is over, or earlier, the first ended first,
when they are many: so both stay small however long results are kept. A job of the archive comes back to be changed.

The journal is cleaned from its beginning when it has become twice as large as what is alive: what its oldest rows still
hold in full is written again at its end, and they are deleted when that is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from runyard.adapters.stores import records
from runyard.adapters.stores.archive import beside, page
from runyard.adapters.stores.archive_embedded import EmbeddedArchive
from runyard.adapters.stores.batches import Also
from runyard.adapters.stores.bounds import (
    CLEAN_FROM_BYTES,
    CLEAN_STEP_BYTES,
    ENDED_MAX,
    PAUSE_S,
    STREAM_BYTES_MAX,
    Bounds,
    step_of,
)
from runyard.adapters.stores.changes import NONE, Changes
from runyard.adapters.stores.entries import Before, Entry
from runyard.adapters.stores.index import IndexedJobs, JobIndex
from runyard.adapters.stores.journal import Journal
from runyard.adapters.stores.outbox_embedded import EmbeddedOutbox
from runyard.domain.errors import RunyardError, TooBusy
from runyard.domain.job import IN_QUEUE, TERMINAL, EndpointId, Job, JobId, WorkerId
from runyard.domain.tombstone import Tombstone
from runyard.domain.webhook import owes
from runyard.ports.archive import STEP
from runyard.ports.stores import JobPage, JobQuery, Ready

log = logging.getLogger(__name__)

LIST_TRIES = 3
"""To read a list with no job coming back from the archive amid it: they may come without end."""


class EmbeddedJobs(IndexedJobs):
    """A `JobStore` in the file `path`, which is opened, and read, at once; `close` it at the end.

    Holds at most `bytes_max` bytes of payload. `synced` is whether an acknowledged change survives a power failure; without,
    it survives the end of any process, and a power failure takes the last changes but never spoils the file. A journal of
    less than `clean_from_bytes` is never cleaned. Jobs that have ended leave memory when there are more than a fifth of
    `ended_max`, some every `pause_s`; without pause when there are more than that, or when more than `ended_bytes_max`
    bytes, a quarter of `bytes_max`, are held in all. `disk_works` is told when the event loop begins to wait for the disk,
    and when that is over.
    """

    outlives_process = True

    def __init__(
        self,
        path: Path,
        *,
        bytes_max: int = 1 << 31,
        synced: bool = True,
        clean_from_bytes: int = CLEAN_FROM_BYTES,
        ended_max: int = ENDED_MAX,
        pause_s: float = PAUSE_S,
        ended_bytes_max: int | None = None,
        disk_works: Callable[[bool], None] = lambda works: None,
        render: Callable[[Job], bytes] | None = None,
    ) -> None:
        """`render` makes the body of what a job's end owes its webhook; without, nothing is owed."""
        super().__init__(JobIndex(bytes_max=bytes_max))
        self._journal = Journal(path, synced=synced)
        self._bounds = Bounds(
            self._index,
            self._journal,
            clean_from_bytes=clean_from_bytes,
            ended_max=ended_max,
            ended_bytes_max=bytes_max // 4 if ended_bytes_max is None else ended_bytes_max,
        )
        self._pause_s = pause_s
        records.replay(self._journal.load(), self._index)
        self.archive = EmbeddedArchive(self._journal, lambda of, job_id: self._index.find(of, job_id) is not None)
        self.outbox = None if render is None else EmbeddedOutbox(self._journal, render)
        self._collected, self._in_writing = Changes(), Changes()
        self._going: dict[JobId, Entry] = {}
        """On their way to the archive."""
        self._recalls = 0
        """How often jobs have come from there."""
        self._tidying: asyncio.Task[None] | None = None
        self._closing = False
        self._journal.writing = self._writing
        self._journal.written = self._written
        self._journal.undo = self._undo
        self._journal.disk_works = disk_works

    async def close(self) -> None:
        self._closing = True
        if self._tidying is not None:
            await asyncio.wait([self._tidying])
        await self._journal.close()

    async def add(self, job: Job) -> None:
        await self._journal.wait(await self.add_soon(job))

    async def add_soon(self, job: Job) -> int:
        collected = self._collected
        collected.new[job.id] = collected.unsaid[job.id] = entry = self._index.add(job)
        entry.change = change = self._journal.do()
        return change

    async def kept(self, change: int) -> None:
        await self._journal.wait(change)

    def if_lost(self, change: int, tell: Callable[[RunyardError], None]) -> None:
        self._journal.if_lost(change, tell)

    async def latest(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        entry = self._index.find(endpoint_id, job_id)
        return None if entry is None else entry.job

    async def get(self, endpoint_id: EndpointId, job_id: JobId) -> Job | None:
        found = await self.find(endpoint_id, job_id)
        return None if isinstance(found, Tombstone) else found

    async def find(self, endpoint_id: EndpointId, job_id: JobId) -> Job | Tombstone | None:
        while True:
            found = self._index.find(endpoint_id, job_id)
            if found is None:
                found = await self._away(endpoint_id, job_id)
                if self._index.find(endpoint_id, job_id) is None:
                    return found.job if isinstance(found, Entry) else found
            elif found.change <= self._journal.kept:
                return found.job
            else:
                await self._settled(found.change)

    async def take(
        self, endpoint_id: EndpointId, worker_id: WorkerId, limit: int, now: float, ready: Ready | None = None
    ) -> list[Job]:
        chosen = self._index.takeable(endpoint_id, worker_id, limit, now, ready)
        if not chosen:
            return []
        last = 0
        for entry in chosen:
            # Its lease is kept with the job itself, or neither is: there is nothing to wait for.
            new = entry.job.id in self._collected.new
            change = self._change(entry, entry.job.take(worker_id, now))
            last = last if new else change
        jobs = [entry.job for entry in chosen]
        try:
            await self._journal.wait(last)
        except TooBusy:
            return []  # They wait on, as all jobs do while nothing can be written.
        return jobs

    async def save(self, job: Job, was: Job) -> bool:
        entry = self._index.current(was)
        if entry is None and was.terminal:
            entry = await self._back(was)
        if entry is None:
            return False
        await self._journal.wait(self._change(entry, job))
        return True

    async def put_away(self, jobs: Sequence[Job], now: float) -> list[Job]:
        gone: list[Job] = []
        while entries := step_of([entry for job in jobs if (entry := self._index.current(job)) is not None]):
            try:
                await self._journal.wait(self._put_away(entries, now))
            except TooBusy:
                if gone:
                    break  # What did go is to be told of.
                raise
            gone += [entry.job for entry in entries]
        return gone

    async def purge(self, endpoint_id: EndpointId, now: float, limit: int) -> list[JobId]:
        doomed = self._index.waiting(endpoint_id, limit)
        last = 0
        for entry in doomed:
            last = self._change(entry, entry.job.cancel(now))
        await self._journal.wait(last)
        return [entry.job.id for entry in doomed]

    async def remove_endpoint(self, endpoint_id: EndpointId) -> None:
        await self._settled(
            self._journal.said
        )  # A change that cannot be written is undone on jobs that are still there.
        self._index.remove_endpoint(endpoint_id)
        await self._journal.wait(self._journal.say(records.gone(endpoint_id)))

    async def append_output(self, job: Job, chunks: Sequence[bytes]) -> bool:
        entry = self._index.leased_as(job)
        if entry is None:
            return False
        self._begin(entry)
        self._index.append_output(entry, chunks)
        await self._journal.wait(self._say(entry, lambda: records.said(job.id, chunks)))
        return True

    async def drain_output(self, job: Job, bytes_max: int | None) -> list[bytes]:
        entry = self._index.find(job.endpoint_id, job.id)
        if entry is not None:
            await self._settled(entry.change)
            entry = self._index.find(job.endpoint_id, job.id)
        if entry is None and (away := await self._away(job.endpoint_id, job.id)):
            if not isinstance(away, Entry) or not self._index.read_output(away, away.drained, 1):
                return []
            entry = await self._back(away.job)
        if entry is None:
            return []
        self._begin(entry)
        page = self._index.drain_output(entry, bytes_max)
        if page:
            self._say(entry, lambda: records.read(entry))
        return page

    async def read_output(self, job: Job, after: int, bytes_max: int) -> list[bytes]:
        while (entry := self._index.last_leased_as(job)) is not None:
            if entry.change <= self._journal.kept:
                return self._index.read_output(entry, after, bytes_max)
            await self._settled(entry.change)
        away = await self._away(job.endpoint_id, job.id)
        if not isinstance(away, Entry) or away.job.lease != job.lease:
            return []
        return self._index.read_output(away, after, bytes_max)

    async def list(self, endpoint_id: EndpointId, query: JobQuery) -> JobPage:
        await self._settled(self._journal.said)
        if query.states and query.states.isdisjoint(TERMINAL):
            return page(self._index.window(endpoint_id, query), (), query)
        tries = 0
        while True:
            # What leaves for the archive from here on is in these, and perhaps there as well.
            window, recalls = self._index.window(endpoint_id, query), self._recalls
            going = [entry for entry in self._going.values() if entry.job.endpoint_id == endpoint_id]
            archived = await self.archive.between(endpoint_id, query, window)
            tries += 1
            if recalls == self._recalls or tries == LIST_TRIES:
                break
        if len(archived) == query.limit:
            window = window.down_to(archived[-1][0])  # There may be more of them, and some of these do not count.
        settled = [found for found in archived if self._index.find(endpoint_id, found[1].id) is None]
        return page(window, beside(window, going, settled, query), query)

    # Changes

    def _change(self, entry: Entry, job: Job) -> int:
        owing: tuple[Also, ...] = ()
        if job.webhook is not None and self.outbox is not None and owes(job, entry.job):
            owing = self.outbox.owing(job)
        if job.state is IN_QUEUE:
            self._say_new(entry)  # It comes back, which is counted as one of its steps.
        self._begin(entry)
        self._index.change(entry, job)
        return self._say(entry, lambda: records.moved(entry), *owing)

    def _begin(self, entry: Entry) -> None:
        """What it is now is what a change that cannot be written comes back to."""
        before, job_id = self._collected.before, entry.job.id
        if job_id not in before and job_id not in self._collected.new:
            before[job_id] = Before.of(entry)

    def _say(self, entry: Entry, record: Callable[[], bytes], *also: Also) -> int:
        unsaid = entry.job.id in self._collected.unsaid
        entry.change = number = self._journal.do(*also) if unsaid else self._journal.say(record(), *also)
        return number

    # The archive

    async def _away(self, endpoint_id: EndpointId, job_id: JobId) -> Entry | Tombstone | None:
        """What is known of a job that the index does not have."""
        going = self._going.get(job_id)
        if going is not None and going.job.endpoint_id == endpoint_id:
            return going
        return await self.archive.find(endpoint_id, job_id)

    def _put_away(self, entries: Sequence[Entry], now: float) -> int:
        """What has expired goes without its stream, which nobody can ask for any more."""
        self._say_new(*entries)
        puts = [also for entry in entries for also in self.archive.putting(entry, now)]
        change = self._journal.say(records.away(entry.job.id for entry in entries), *puts)
        for entry in entries:
            entry.change = change
            self._index.remove(entry)
            self._going[entry.job.id] = self._collected.away[entry.job.id] = entry
        return change

    async def _back(self, was: Job) -> Entry | None:
        """The entry of a job that was put away as this, among the others again."""
        going = self._going.get(was.id)
        if going is not None:
            await self._settled(going.change)
        entry = await self.archive.find(was.endpoint_id, was.id)
        if not isinstance(entry, Entry) or entry.job != was or was.id in self._going:
            return None
        if self._index.entry(was.id) is not None:
            return self._index.current(was)
        self._index.readmit(entry)
        self._recalls += 1
        self._collected.back[was.id] = entry
        self._collected.rewritten.append(entry)
        self._journal.say(records.written(entry), self.archive.returning(was))
        totals = records.totals(was.endpoint_id, self._index.totals(was.endpoint_id))  # Its end is in them already.
        entry.change = self._journal.say(totals)
        return entry

    async def _settled(self, change: int) -> None:
        """Until the change is on disk or undone."""
        with suppress(TooBusy):
            await self._journal.wait(change)

    def _writing(self) -> list[bytes]:
        self._in_writing, self._collected = self._collected, Changes()
        unsaid = self._in_writing.unsaid.items()
        return [records.written(entry) for job_id, entry in unsaid if self._index.entry(job_id) is entry]

    def _say_new(self, *entries: Entry) -> None:
        """Write down now what else would be at the end of the batch."""
        for entry in entries:
            if self._collected.unsaid.pop(entry.job.id, None) is not None:
                self._journal.say(records.written(entry))

    def _written(self, row: int) -> None:
        for entry in (*self._in_writing.new.values(), *self._in_writing.rewritten):
            entry.home = row  # Not before it is there: a job whose copy is not kept must not be cleaned away.
        for job_id in self._in_writing.away:
            self._going.pop(job_id, None)
        self._in_writing = NONE
        self._tidy_if_due()

    def _undo(self) -> None:
        """Back to what is on disk. The last first: each that returns to the queue goes to its head."""
        for changes in (self._collected, self._in_writing):
            for job_id, entry in reversed(changes.away.items()):
                self._going.pop(job_id, None)
                self._index.put_back(entry)
            for job_id, before in reversed(changes.before.items()):
                entry = self._index.entry(job_id)
                if entry is not None:
                    self._index.undo(entry, before)
            for job_id in reversed(changes.new):
                entry = self._index.entry(job_id)
                if entry is not None:
                    self._index.undo(entry, None)
            for entry in changes.back.values():
                self._index.remove(entry)
        self._collected, self._in_writing = Changes(), NONE

    # Tidying

    def _tidy_if_due(self) -> None:
        if self._tidying is None and (self._bounds.are_crowded or self._bounds.are_unclean):
            self._tidying = asyncio.get_running_loop().create_task(self._tidy(), name="tidy the job store")
            self._tidying.add_done_callback(self._tidied)

    async def _tidy(self) -> None:
        while not self._closing:
            if self._bounds.are_unclean and (last := self._journal.oldest(CLEAN_STEP_BYTES)):
                await self._clean(last)
            elif self._bounds.are_crowded:
                entries = step_of(self._index.ended(STEP, STREAM_BYTES_MAX))
                if not entries:
                    break
                await self._journal.wait(self._put_away(entries, now=0.0))
                if not self._bounds.are_full:
                    await asyncio.sleep(self._pause_s)
            else:
                break

    def _tidied(self, task: asyncio.Task[None]) -> None:
        self._tidying = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the job store stays as large as it is for now: %s", error)

    async def _clean(self, last: int) -> None:
        """Take what lives out of the journal's rows up to this one, to its end, and then delete them.

        With another commit: of one whose sync fails nobody knows what is on disk, and it might be the deletion alone.
        """
        for job_id in await self._journal.jobs_up_to(last):
            entry = self._index.entry(job_id)
            if entry is not None and 0 < entry.home <= last:
                self._journal.say(records.written(entry))
                self._collected.rewritten.append(entry)
        self._say_new(*self._collected.unsaid.values())  # Their ends are in the totals.
        for endpoint_id in self._index.endpoints:
            self._journal.say(records.totals(endpoint_id, self._index.totals(endpoint_id)))
        await self._journal.wait(self._journal.said)
        await self._journal.wait(self._journal.clean(last))
