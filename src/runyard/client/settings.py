"""Where the platform is and which key opens it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from runyard.client.errors import ClientError

URL_DEFAULT = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Address:
    """`url` has no slash at its end."""

    url: str
    api_key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}

    @property
    def local(self) -> bool:
        """On this machine, where no proxy belongs in between."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")


def address(url: str | None = None, api_key: str | None = None) -> Address:
    """From the arguments, else RUNYARD_URL and RUNYARD_API_KEY. Raises `ClientError` for what is no URL."""
    url = (url or os.environ.get("RUNYARD_URL") or URL_DEFAULT).rstrip("/")
    key = (api_key or os.environ.get("RUNYARD_API_KEY") or "").strip()
    if not _is_url(url):
        raise ClientError(f"RUNYARD_URL must be like {URL_DEFAULT}, not {url!r}")
    if not key.isascii() or not key.isprintable():
        raise ClientError("RUNYARD_API_KEY is not an API key: it has characters that no key has")
    return Address(url, key or None)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
