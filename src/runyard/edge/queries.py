"""Query parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl

from runyard.domain.errors import BadRequest

QUERY_FIELDS_MAX = 100


@lru_cache(256)  # A worker asks with the same parameters each time.
def parameters(query_string: bytes) -> Mapping[str, str]:
    text = query_string.decode("latin-1")
    try:
        return MappingProxyType(dict(parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)))
    except ValueError as error:
        raise BadRequest(f"the URL has more than {QUERY_FIELDS_MAX} query parameters") from error
