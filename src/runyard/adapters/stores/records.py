"""What the journal says, and the state that it amounts to.

    Written   a job in full, when it comes and again when the journal is cleaned
    Moved     what every step of a job changes
    Said      chunks of its stream output
    Read      how many of them have been drained
    Totals    what an endpoint has seen so far
    Gone      an endpoint is deleted with all it had
    Away      jobs are no longer among those that this is about: they were put away

A batch is a MessagePack array of records, each an array that begins with its tag. Later records win. A record about a job
that is not known (any more) says nothing: the journal is cleaned from its beginning.

Fields are only ever added at the end of a record, each with a default: so a journal of an older Runyard can be read.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

import msgspec

from runyard.adapters.stores import entries
from runyard.adapters.stores.entries import Entry
from runyard.adapters.stores.index import JobIndex
from runyard.domain.attempt import Attempt, Cause, Evidence
from runyard.domain.job import (
    DEFAULT_POLICY,
    IN_QUEUE,
    NOT_FENCED,
    EndpointId,
    ExecutionPolicy,
    Job,
    JobId,
    JobState,
    Lease,
    WorkerId,
)
from runyard.domain.payload import Spilled
from runyard.domain.terms import ALL, QUEUE, TTL_S

FORMAT = 1


class Record(msgspec.Struct, array_like=True, gc=False):
    pass


class Tried(Record):
    """An attempt that gave no result."""

    run: int
    worker_id: str
    taken_at: float
    ended_at: float
    reason: str
    counted: bool
    cause: str
    exit_code: int | None
    signal: int | None
    last_lines: list[str]


class Life(Record):
    """What steps change; times are Unix seconds."""

    state: str
    queued_at: float
    expires_at: float
    run: int
    attempts_lost: int
    fenced_from: list[str]
    worker_id: str | None
    taken_at: float
    finished_at: float | None
    output: bytes | None
    error: str | None
    attempts_excused: int = 0
    quarantined: bool = False
    attempts: list[Tried] = []
    spilled: tuple[str, int] | None = None
    """Where the output is, in place of itself."""
    queue_scope: bool = False
    """Its ttl counts only while it waits."""


class Written(Record, tag=1):
    id: str
    endpoint_id: str
    number: int
    rank: int
    input: bytes
    created_at: float
    execution_timeout_s: float
    retention_s: float
    policy: tuple[float | None, float | None, bool] | None
    webhook: str | None
    s3_config: bytes | None
    life: Life
    chunks: list[bytes]
    drained: int
    fingerprint: bytes | None = None
    ttl_s: float | None = None
    """None in what an older Runyard has written: it is that of the policy."""
    spilled_input: tuple[str, int] | None = None
    """Where the input is, in place of itself."""


class Moved(Record, tag=2):
    id: str
    rank: int
    life: Life


class Said(Record, tag=3):
    id: str
    chunks: Sequence[bytes]


class Read(Record, tag=4):
    id: str
    drained: int


class Totals(Record, tag=5):
    endpoint_id: str
    ended: dict[str, int]
    retried: int
    next_number: int


class Gone(Record, tag=6):
    endpoint_id: str


class Away(Record, tag=7):
    ids: list[str]


_NONE_TRIED: list[Tried] = []
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Written | Moved | Said | Read | Totals | Gone | Away]).decode
_decode_written = msgspec.msgpack.Decoder(Written).decode


def batch(records: Sequence[bytes]) -> bytes:
    """One row of the journal."""
    return b"".join((b"\xdd", struct.pack(">I", len(records)), *records))


def jobs_in(row: bytes) -> list[JobId]:
    """The jobs that this row holds in full."""
    return [JobId(record.id) for record in _decode(row) if isinstance(record, Written)]


def written(entry: Entry, *, stream: bool = True) -> bytes:
    job = entry.job
    return _encode(
        Written(
            # Two by their place: a call with more than 15 names takes three times as long.
            job.id,
            job.endpoint_id,
            number=entry.number,
            rank=entry.rank,
            input=job.input if isinstance(job.input, bytes) else b"",
            created_at=job.created_at,
            execution_timeout_s=job.execution_timeout_s,
            retention_s=job.retention_s,
            policy=None if job.policy is DEFAULT_POLICY else _policy(job.policy),
            webhook=job.webhook,
            s3_config=job.s3_config,
            life=_life(job),
            chunks=(stream and entry.chunks) or [],
            drained=entry.drained,
            fingerprint=job.fingerprint,
            ttl_s=job.ttl_s,
            spilled_input=job.input if isinstance(job.input, Spilled) else None,
        )
    )


def moved(entry: Entry) -> bytes:
    return _encode(Moved(entry.job.id, entry.rank, _life(entry.job)))


def said(job_id: JobId, chunks: Sequence[bytes]) -> bytes:
    return _encode(Said(job_id, chunks))


def read(entry: Entry) -> bytes:
    return _encode(Read(entry.job.id, entry.drained))


def totals(endpoint_id: EndpointId, of: entries.Totals) -> bytes:
    return _encode(Totals(endpoint_id, {state.value: n for state, n in of.ended.items()}, of.retried, of.next_number))


def gone(endpoint_id: EndpointId) -> bytes:
    return _encode(Gone(endpoint_id))


def away(job_ids: Iterable[JobId]) -> bytes:
    return _encode(Away(list(job_ids)))


def entry_of(record: bytes) -> Entry:
    """What `written` was made of."""
    return _entry(_decode_written(record))


def replay(rows: Iterable[tuple[int, bytes]], into: JobIndex) -> None:
    """Bring an empty index to the state that the rows (number, batch) tell."""
    state = _Replay()
    for number, row in rows:
        for record in _decode(row):
            state.apply(record, number)
    state.restore(into)


class _Replay:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.totals: dict[str, entries.Totals] = {}

    def apply(self, record: Record, number: int) -> None:
        match record:
            case Written():
                entry = _entry(record)
                entry.home = number
                self._seen(record.endpoint_id, record.number)
                if entry.job.terminal and record.id not in self.entries:
                    self._ended(
                        entry.job
                    )  # It came and ended in one batch; or totals follow, as the journal is cleaned.
                self.entries[record.id] = entry
            case Totals():
                ended = {JobState(state): n for state, n in record.ended.items()}
                self.totals[record.endpoint_id] = entries.Totals(ended, record.retried, record.next_number)
            case Gone():
                self.totals.pop(record.endpoint_id, None)
                self.entries = {i: e for i, e in self.entries.items() if e.job.endpoint_id != record.endpoint_id}
            case Away():
                for job_id in record.ids:
                    self.entries.pop(job_id, None)
            case Moved() | Said() | Read() if (known := self.entries.get(record.id)) is not None:
                self._change(known, record)
            case _:
                pass

    def _change(self, entry: Entry, record: Moved | Said | Read) -> None:
        match record:
            case Moved():
                was, entry.rank = entry.job, record.rank
                entry.job = _lived(was, record.life)
                self._count(was, entry.job)
                if entry.job.state is IN_QUEUE:
                    entry.chunks, entry.drained = None, 0
            case Said():
                entry.chunks = [*(entry.chunks or ()), *record.chunks]
            case Read():
                entry.drained = record.drained

    def _count(self, was: Job, job: Job) -> None:
        totals = self.totals[job.endpoint_id]
        if job.terminal and not was.terminal:
            self._ended(job)
        if job.state is IN_QUEUE and job.attempts_lost > was.attempts_lost:
            self.totals[job.endpoint_id] = totals._replace(retried=totals.retried + 1)

    def _ended(self, job: Job) -> None:
        ended = self.totals[job.endpoint_id].ended
        ended[job.state] = ended.get(job.state, 0) + 1

    def _seen(self, endpoint_id: str, number: int) -> None:
        totals = self.totals.get(endpoint_id) or entries.Totals({}, 0, 1)
        self.totals[endpoint_id] = totals._replace(next_number=max(totals.next_number, number + 1))

    def restore(self, into: JobIndex) -> None:
        for entry in sorted(self.entries.values(), key=lambda entry: entry.rank):
            into.restore(entry)
        for endpoint_id, totals in self.totals.items():
            into.set_totals(EndpointId(endpoint_id), totals)


@lru_cache(maxsize=256)
def _shared(seconds: float) -> float:
    """The same object for the same number. What a million jobs have in common is not to be in memory a million times."""
    return seconds


def _entry(record: Written) -> Entry:
    policy = DEFAULT_POLICY if record.policy is None else _policy_of(*record.policy)
    ttl_s = record.ttl_s
    if ttl_s is None:
        ttl_s = TTL_S if policy.ttl is None else policy.ttl.total_seconds()
    job = Job(
        id=JobId(record.id),
        endpoint_id=EndpointId(sys.intern(record.endpoint_id)),
        input=record.input if record.spilled_input is None else Spilled(*record.spilled_input),
        created_at=record.created_at,
        queued_at=record.created_at,
        execution_timeout_s=_shared(record.execution_timeout_s),
        expires_at=record.life.expires_at,
        policy=policy,
        webhook=record.webhook,
        s3_config=record.s3_config,
        retention_s=_shared(record.retention_s),
        fingerprint=record.fingerprint,
        ttl_s=_shared(ttl_s),
    )
    entry = Entry(_lived(job, record.life), record.number)
    entry.rank, entry.chunks, entry.drained = record.rank, record.chunks or None, record.drained
    return entry


def _lived(job: Job, life: Life) -> Job:
    return job._replace(
        state=JobState(life.state),
        queued_at=job.queued_at if life.queued_at == job.queued_at else life.queued_at,
        expires_at=life.expires_at,
        ttl_scope=QUEUE if life.queue_scope else ALL,
        run=life.run,
        attempts_lost=life.attempts_lost,
        attempts_excused=life.attempts_excused,
        attempts=tuple(map(_attempt, life.attempts)),
        quarantined=life.quarantined,
        fenced_from=frozenset(map(WorkerId, life.fenced_from)) if life.fenced_from else NOT_FENCED,
        lease=None if life.worker_id is None else Lease(WorkerId(life.worker_id), life.taken_at),
        finished_at=life.finished_at,
        output=life.output if life.spilled is None else Spilled(*life.spilled),
        error=life.error,
    )


def _life(job: Job) -> Life:
    lease: Any = job.lease or (None, 0.0)
    return Life(
        job.state,
        job.queued_at,
        job.expires_at,
        job.run,
        job.attempts_lost,
        list(job.fenced_from),
        lease[0],
        lease[1],
        job.finished_at,
        None if isinstance(job.output, Spilled) else job.output,
        job.error,
        job.attempts_excused,
        job.quarantined,
        [_tried(attempt) for attempt in job.attempts] if job.attempts else _NONE_TRIED,
        job.output if isinstance(job.output, Spilled) else None,
        job.ttl_scope is QUEUE,
    )


def _tried(attempt: Attempt) -> Tried:
    run, worker_id, taken_at, ended_at, reason, counted, (cause, exit_code, signal, last_lines) = attempt
    return Tried(run, worker_id, taken_at, ended_at, reason, counted, cause.value, exit_code, signal, list(last_lines))


def _attempt(tried: Tried) -> Attempt:
    evidence = Evidence(Cause(tried.cause), tried.exit_code, tried.signal, tuple(tried.last_lines))
    return Attempt(
        tried.run, WorkerId(tried.worker_id), tried.taken_at, tried.ended_at, tried.reason, tried.counted, evidence
    )


def _policy(policy: ExecutionPolicy) -> tuple[float | None, float | None, bool]:
    timeout, ttl = policy.execution_timeout, policy.ttl
    return (
        None if timeout is None else timeout.total_seconds(),
        None if ttl is None else ttl.total_seconds(),
        policy.low_priority,
    )


def _policy_of(timeout_s: float | None, ttl_s: float | None, low_priority: bool) -> ExecutionPolicy:
    return ExecutionPolicy(
        execution_timeout=None if timeout_s is None else timedelta(seconds=timeout_s),
        ttl=None if ttl_s is None else timedelta(seconds=ttl_s),
        low_priority=low_priority,
    )
