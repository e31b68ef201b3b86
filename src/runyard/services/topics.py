"""Names of the wake-ups. A job's own id is the topic of its end, its progress and its stream chunks."""

from __future__ import annotations

from functools import lru_cache

from runyard.domain.job import EndpointId

ENDPOINTS = "endpoints"
"""Some endpoint was added, changed or removed."""


def endpoint(endpoint_id: EndpointId) -> str:
    """This endpoint was added, changed or removed."""
    return f"endpoint:{endpoint_id}"


@lru_cache(1000)
def demand(endpoint_id: EndpointId) -> str:
    """Jobs were queued, or have ended, or a worker's state changed: time to plan the fleet again."""
    return f"demand:{endpoint_id}"
