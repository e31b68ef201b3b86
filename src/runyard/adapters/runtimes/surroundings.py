"""The environment variables that a process of ours starts with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runyard.adapters.runtimes.isolation import TOOLS_PATH
from runyard.adapters.runtimes.rooms import Room

CERTIFICATES = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "GIT_SSL_CAINFO",
)  # fmt: skip
"""Whom the host trusts, its processes must trust."""
PROXIES = tuple(
    spelling for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for spelling in (name, name.lower())
)


def of_worker(
    room: Room, environment: Path, env: Mapping[str, str], host: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """For a worker: the base, and over it what the launch says. Nothing else of the platform's own gets in."""
    base = _base(room, host)
    return {**base, "PATH": f"{environment / 'bin'}:{base['PATH']}", **env}


def of_build(room: Room, host: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For a builder: the base, and the way to the network."""
    return {**_base(room, host), **{name: host[name] for name in PROXIES if name in host}}


def _base(room: Room, host: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": host.get("PATH", TOOLS_PATH),
        "LANG": host.get("LANG", "C.UTF-8"),
        "HOME": str(room.home),
        # In isolation it is the same folder; the short name leaves room for the sockets that go there.
        "TMPDIR": str(room.tmp) if room.uid is None else "/tmp",
        # The user has no entry in passwd, and some libraries (torch) insist on a name.
        "USER": "worker",
        "LOGNAME": "worker",
        **{name: host[name] for name in CERTIFICATES if name in host},
    }
