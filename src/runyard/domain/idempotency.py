"""Submitting once, however often it is sent.

A client that repeats a request after a lost answer names it: by a key (the `Idempotency-Key` header), from which the job's
id is derived, or by an id that it has chosen itself. So the same request finds its job by the job's id, and nothing else
has to be kept or looked up. A *fingerprint* of what was asked tells a repetition from another request under the same name.
"""

from __future__ import annotations

import re
from hashlib import sha256

from runyard.domain.errors import BadRequest, Conflict
from runyard.domain.job import EndpointId, ExecutionPolicy, JobId
from runyard.domain.terms import TTL_S

KEY_BYTES_MAX = 255
JOB_ID_CHARACTERS_MAX = 128

_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
# A job's id stands in URLs, where workers put it unescaped, and on command lines: it must not look like a relative path
# or an option.
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


def check_key(value: bytes) -> bytes:
    """The key, if it is one. Raises `BadRequest`."""
    if _KEY.fullmatch(value) is None:
        raise BadRequest(
            f"Idempotency-Key must be sent once, with 1 to {KEY_BYTES_MAX} visible ASCII characters and no spaces"
        )
    return value


def check_job_id(value: str) -> JobId:
    """The id, if a client may choose it. Raises `BadRequest`."""
    if _JOB_ID.fullmatch(value) is None:
        raise BadRequest(
            f"runyard.id must be 1 to {JOB_ID_CHARACTERS_MAX} of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit, "
            f"not {value[:40]!r}"
        )
    return JobId(value)


def job_id_of(endpoint_id: EndpointId, key: bytes) -> JobId:
    """The id of the job that this key names at this endpoint.

    A UUID of version 8, which is for such derivations: never one of the random ids, which have version 4.
    """
    # Neither can contain a line break, so no two pairs give the same text.
    raw = sha256(b"%b\n%b" % (endpoint_id.encode(), key)).hexdigest()
    return JobId(f"{raw[:8]}-{raw[8:12]}-8{raw[13:16]}-a{raw[17:20]}-{raw[20:32]}-u1")


def fingerprint(input: bytes, webhook: str | None, policy: ExecutionPolicy, s3_config: bytes | None) -> bytes:
    """32 bytes that are the same for the same request, byte for byte of its input."""
    timeout = policy.execution_timeout
    # One who sends no ttl is taken to have sent that of the contract, whatever holds at the endpoint: fingerprints that
    # are stored were made so.
    ttl_s = TTL_S if policy.ttl is None else policy.ttl.total_seconds()
    limits = f"{None if timeout is None else timeout.total_seconds()} {ttl_s} {policy.low_priority}"
    told = sha256()
    for part in (input, None if webhook is None else webhook.encode(), limits.encode(), s3_config):
        # The length stands before each, so that no part can pass for the beginning of the next.
        told.update(b"-" if part is None else b"%d:%b" % (len(part), part))
    return told.digest()


def check_same(job_id: JobId, known: bytes | None, asked: bytes) -> None:
    """Raises `Conflict` when the job of this name was asked for with another body; `known` is its fingerprint, None for a
    job that was never named by its client.
    """
    if known != asked:
        raise Conflict(
            f"job {job_id} was submitted under this idempotency key, or id, with another body; send that body again "
            "byte for byte to get the job, or choose a new key for a new job"
        )
