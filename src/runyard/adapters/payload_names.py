"""What payloads are called: after their job and, since a job may have had several, with a random number."""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote, unquote

from runyard.domain.job import EndpointId, JobId

_NAME = re.compile(r"([^,/]+),([^,/]+),[0-9a-f]{16}")


def name_for(endpoint_id: EndpointId, job_id: JobId) -> str:
    """A new one."""
    return ",".join((quote(endpoint_id, safe=""), quote(job_id, safe=""), secrets.token_hex(8)))


def job_in(name: str) -> tuple[EndpointId, JobId] | None:
    """The job that it is for; None when it is no such name."""
    parts = _NAME.fullmatch(name)
    return None if parts is None else (EndpointId(unquote(parts[1])), JobId(unquote(parts[2])))
