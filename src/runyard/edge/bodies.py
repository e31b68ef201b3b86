"""Between the wire's JSON and the domain's values.

A client's body must be strict JSON. A worker's body is taken as it comes: the official SDK drops a result that is answered
4xx, so what strict JSON rejects (NaN, Infinity, lone surrogates) is mended instead: to null, to U+FFFD.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw

from runyard.domain.attempt import Attempt
from runyard.domain.errors import BadRequest, Expired, RunyardError
from runyard.domain.fleet import QueueReason
from runyard.domain.idempotency import check_job_id
from runyard.domain.job import DEFAULT_POLICY, ExecutionPolicy, Job, JobState, Lease
from runyard.domain.payload import Spilled
from runyard.services.jobs import Request
from runyard.wire.jobs import (
    AttemptBody,
    ExpiredBody,
    GoneJob,
    JobBody,
    JobForWorker,
    JobListBody,
    ListedJob,
    PolicyBody,
    ReasonBody,
    StreamBody,
    StreamItem,
    SubmitBody,
    WorkerBody,
)
from runyard.wire.times import rfc3339

INPUT_ECHO_BYTES_MAX = 64 * 1024
"""Larger inputs are not echoed by `/status` while a job waits or runs (K31): a client that polls would fetch them again
each second."""
CHUNK_BYTES_MAX = 1 << 20
"""Largest stream chunk (A.5); longer strings are split, anything else over it is refused (K44)."""
_MILLISECONDS_MAX = 10**15
DIGITS_MAX = 4300
"""Digits of a number: Python reads no longer ones, and a stock worker drops, without a word, a job that it cannot read."""
_DIGITS_ONLY = bytes(0x30 if byte in b"0123456789" else 0x20 for byte in range(256))

T = TypeVar("T")

_submit = msgspec.json.Decoder(SubmitBody)
_worker = msgspec.json.Decoder(WorkerBody)
_text = msgspec.json.Decoder(str)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def parse_request(body: bytes, sync_wait_s: float | None) -> Request:
    """Check a `/run` or `/runsync` body. Raises `BadRequest` saying which field to change."""
    parsed = checked(_submit, body)
    if parsed.input is UNSET:
        raise BadRequest('the body has no "input"; send {"input": ...}')
    return Request(
        input=bytes(parsed.input),
        webhook=_webhook(parsed.webhook),
        policy=DEFAULT_POLICY if parsed.policy is None else _policy(parsed.policy),
        s3_config=None if parsed.s3Config is None else encode(parsed.s3Config),
        sync_wait_s=sync_wait_s,
        chosen_id=None if parsed.runyard is None or parsed.runyard.id is None else check_job_id(parsed.runyard.id),
    )


def checked(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a client's body. Raises `BadRequest` saying what to change."""
    try:
        parsed = decoder.decode(body)
        check_utf8(body)
        check_numbers(body)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the body has a field of the wrong type: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except ValueError as error:
        raise BadRequest(f"the body has a number of more than {DIGITS_MAX} digits") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    return parsed


def check_utf8(body: bytes) -> None:
    """JSON text is UTF-8; the decoder does not look inside strings that it passes through raw."""
    if not body.isascii():
        body.decode()


def check_numbers(body: bytes) -> None:
    """Raises `ValueError` for an integer that a Python worker could not read. Only what looks like one is parsed."""
    if len(body) > DIGITS_MAX and b"0" * (DIGITS_MAX + 1) in body.translate(_DIGITS_ONLY):
        json.loads(body)


def milliseconds(value: str, name: str) -> float:
    """Seconds from a query parameter in whole milliseconds. Raises `BadRequest`."""
    if not value.isascii() or not value.isdigit() or len(value) > 15:
        raise BadRequest(f"{name} must be a whole number of milliseconds, not {value[:40]!r}")
    return int(value) / 1000


def parse_worker_body(body: bytes) -> WorkerBody:
    """What a worker sent, mended where strict JSON rejects it. Never raises: an unreadable body becomes an `error`."""
    try:
        parsed = _worker.decode(body)
        check_utf8(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _mend(body)
    return parsed


def error_of(sent: WorkerBody) -> str | None:
    """The error a worker reports, of whatever JSON type, as a string: the official Go client accepts nothing else (protocol
    B.3). None for a success, that is when there is no `error`, or none worth the name.
    """
    data = b"" if sent.error is UNSET else bytes(sent.error)
    if data in (b"", b"null", b'""'):
        return None
    return _text.decode(data) if data.startswith(b'"') else data.decode()


def split_chunk(chunk: bytes) -> list[bytes] | None:
    """The chunk in pieces of at most 1 MB (JSON strings), or None when it is too large and not a string (K44)."""
    if len(chunk) <= CHUNK_BYTES_MAX:
        return [chunk]
    if not chunk.startswith(b'"'):
        return None
    text = _text.decode(chunk)
    step = CHUNK_BYTES_MAX // 6  # A character takes at most 6 bytes as JSON.
    return [encode(text[at : at + step]) for at in range(0, len(text), step)]


def jobs_for_worker(jobs: Sequence[Job], *, as_list: bool) -> bytes:
    """The take answer: one object for a plain take, a list for a batch take (protocol A.2). No input is spilled any more."""
    shown = [_for_worker(job) for job in jobs]
    return encode(shown if as_list else shown[0])


def job_body(job: Job, reason: QueueReason | None = None, *, echo_input: bool = False) -> bytes:
    """A job as `/status`, `/runsync` and webhooks show it, but for an output that is spilled (see `outflow`)."""
    if job.state is JobState.COMPLETED and isinstance(job.output, bytes) and job.lease is not None:
        return _completed_body(job, job.output, job.lease)
    body = _job(job, reason)
    input = job.input
    if echo_input and not job.terminal and isinstance(input, bytes) and len(input) <= INPUT_ECHO_BYTES_MAX:
        body.input = Raw(input)
    return encode(body)


def webhook_body(job: Job, carried: Callable[[Spilled], bytes | None]) -> bytes:
    """As `job_body`, with the output if it is `carried`, else with where to read it."""
    if not isinstance(job.output, Spilled):
        return job_body(job)
    if (output := carried(job.output)) is not None:
        return job_body(job._replace(output=output))
    return encode(msgspec.structs.replace(_job(job, None), outputPath=f"/v2/{job.endpoint_id}/requests/{job.id}"))


def _completed_body(job: Job, output: bytes, lease: Lease) -> bytes:
    """The usual answer, put together by hand in half the time. Ids and numbers need no escapes."""
    taken_at = lease.taken_at
    return b'{"id":"%b","status":"COMPLETED","delayTime":%d,"executionTime":%d,"workerId":"%b","output":%b}' % (
        job.id.encode(),
        max(0.5, (taken_at - job.queued_at) * 1000 + 0.5),
        max(0.5, ((job.finished_at or 0.0) - taken_at) * 1000 + 0.5),
        lease.worker_id.encode(),
        output,
    )


def _job(job: Job, reason: QueueReason | None) -> JobBody:
    return JobBody(
        id=job.id,
        status=job.state.value,
        delayTime=_ms(job.delay_s),
        executionTime=_ms(job.execution_s),
        workerId=None if job.lease is None else job.lease.worker_id,
        output=Raw(job.output) if isinstance(job.output, bytes) else UNSET,
        error=job.error,
        queueReason=_reason(reason),
    )


def end_body(job: Job) -> bytes:
    """A job without its output, for whoever has had it in pieces."""
    return encode(msgspec.structs.replace(_job(job, None), output=UNSET))


def detail_body(job: Job, reason: QueueReason | None) -> bytes:
    """A job with its input, whatever its state and size, unless it is spilled; and the attempts that gave no result."""
    body = _job(job, reason)
    body.input = Raw(job.input) if isinstance(job.input, bytes) else UNSET
    body.quarantined, body.attempts = job.quarantined, list(map(_attempt, job.attempts))
    body.expiresAt = rfc3339(job.expires_at)
    return encode(body)


def accepted_body(job: Job) -> bytes:
    """The `/run` reply: just id and status, IN_QUEUE even when a worker has it already (A.4)."""
    return b'{"id":"%b","status":"IN_QUEUE"}' % job.id.encode()


def state_body(job: Job) -> bytes:
    """The `/cancel` and `/retry` reply: id and status."""
    return b'{"id":"%b","status":"%b"}' % (job.id.encode(), job.state.value.encode())


def stream_body(job: Job, chunks: Sequence[bytes], reason: QueueReason | None) -> bytes:
    items = [StreamItem(Raw(chunk)) for chunk in chunks]
    return encode(
        StreamBody(id=job.id, status=job.state.value, stream=items, error=job.error, queueReason=_reason(reason))
    )


def list_body(jobs: Sequence[Job], next: str | None) -> bytes:
    return encode(JobListBody(requests=[_listed(job) for job in jobs], next=next))


def stop_body(job_ids: Sequence[str]) -> bytes:
    """The stop poll's answer (protocol A.2)."""
    return encode({"jobsToStop": list(job_ids)})


def error_body(message: str) -> bytes:
    return encode({"error": message})


def plain_error(error: RunyardError) -> bytes:
    return encode(ExpiredBody(error.message, _gone(error))) if isinstance(error, Expired) else error_body(error.message)


def _webhook(value: str | None) -> str | None:
    if not value:
        return None
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and value.isprintable()
    except ValueError:
        valid = False
    if not valid:
        raise BadRequest("webhook must be an http:// or https:// URL with a host")
    return value


def _policy(body: PolicyBody) -> ExecutionPolicy:
    return ExecutionPolicy(
        execution_timeout=_duration(body.executionTimeout, "policy.executionTimeout"),
        ttl=_duration(body.ttl, "policy.ttl"),
        low_priority=bool(body.lowPriority),
    )


def _duration(value: int | None, name: str) -> timedelta | None:
    if value is None:
        return None
    if not 0 < value < _MILLISECONDS_MAX:
        raise BadRequest(f"{name} must be 5000 to 604800000 milliseconds, not {value}")
    return timedelta(milliseconds=value)


def mended(text: bytes) -> bytes:
    """What Python takes for JSON as strict JSON, without white space. Raises `ValueError` and what else decoders raise."""
    value: Any = json.loads(text.decode("utf-8", "replace"), parse_constant=lambda _: None)
    return encode(_without_surrogates(value))


def unreadable(why: object) -> WorkerBody:
    """What a result amounts to that cannot be mended."""
    message = f"the worker sent a result that cannot be read as JSON ({why}); return plain JSON values"
    return WorkerBody(error=Raw(encode(message)))


def _mend(body: bytes) -> WorkerBody:
    try:
        return msgspec.json.decode(mended(body), type=WorkerBody)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        return unreadable(error)


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_without_surrogates(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}  # pyright: ignore
        case _:
            return value


def _for_worker(job: Job) -> JobForWorker:
    assert isinstance(job.input, bytes)
    return JobForWorker(
        id=job.id,
        input=Raw(job.input),
        webhook=job.webhook,
        s3Config=None if job.s3_config is None else Raw(job.s3_config),
    )


def _gone(error: Expired) -> GoneJob:
    ended_at = None if error.ended_at is None else rfc3339(error.ended_at)
    return GoneJob(error.job_id, error.state, rfc3339(error.created_at), ended_at, error.path)


def _listed(job: Job) -> ListedJob:
    return ListedJob(
        id=job.id,
        status=job.state.value,
        createdAt=rfc3339(job.created_at),
        run=job.run,
        attemptsLost=job.attempts_lost,
        delayTime=_ms(job.delay_s),
        executionTime=_ms(job.execution_s),
        workerId=None if job.lease is None else job.lease.worker_id,
        error=job.error,
        expiresAt=rfc3339(job.expires_at),
    )


def _attempt(attempt: Attempt) -> AttemptBody:
    evidence = attempt.evidence
    return AttemptBody(
        run=attempt.run,
        workerId=attempt.worker_id,
        takenAt=rfc3339(attempt.taken_at),
        endedAt=rfc3339(attempt.ended_at),
        cause=evidence.cause.value,
        counted=attempt.counted,
        reason=attempt.reason,
        exitCode=evidence.exit_code,
        signal=evidence.signal,
        lastLines=list(evidence.last_lines),
    )


def _reason(reason: QueueReason | None) -> ReasonBody | None:
    return None if reason is None else ReasonBody(code=reason.code, message=reason.message)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
