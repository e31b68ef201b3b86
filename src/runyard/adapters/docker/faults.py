"""What an Engine's words about a pull mean, and what to do about it.

Engines tell most of it in prose: the status is 500 for a registry that is down and for a wrong password alike.
"""

from __future__ import annotations

import re

from runyard.adapters.docker.credentials import Login
from runyard.adapters.docker.engine import EngineError
from runyard.adapters.docker.references import HUB, registry_of
from runyard.domain.errors import ImageFailed, ImageFault

_FAULTS = (
    # A registry that does not let us look says no more about an image that is there than about one that is not.
    (ImageFault.NOT_FOUND, r"may require 'docker login'|denied: requested access to the resource is denied"),
    (ImageFault.BUSY, r"toomanyrequests|too many requests|rate limit"),
    (
        ImageFault.WRONG_PLATFORM,
        r"no matching manifest|does not match the specified platform|cannot be used on this platform",
    ),
    (ImageFault.DISK_FULL, r"no space left on device|disk quota exceeded"),
    (ImageFault.DENIED, r"no basic auth credentials|unauthorized|authentication required|denied|forbidden"),
    (ImageFault.NOT_FOUND, r"manifest unknown|not found|no such image|name unknown|repository name not known"),
    (
        ImageFault.UNREACHABLE,
        (
            r"connection refused|no such host|no route to host|network is unreachable|i/o timeout|dial tcp|lookup |"
            r"TLS handshake|x509:|certificate|server gave HTTP response|Client\.Timeout|deadline exceeded|"
            r"unexpected HTTP status: 5|server misbehaving|EOF|connection reset"
        ),
    ),
)
LASTING = frozenset(
    {
        ImageFault.NOT_FOUND,
        ImageFault.DENIED,
        ImageFault.BUSY,
        ImageFault.WRONG_PLATFORM,
        ImageFault.DISK_FULL,
    }
)
"""To ask again in a moment would change nothing."""


def of_pull(error: EngineError, image: str, login: Login | None, *, begun: bool) -> ImageFailed:
    """`begun`: layers were on their way already."""
    said = str(error)
    fault = next((fault for fault, words in _FAULTS if re.search(words, said, re.IGNORECASE)), ImageFault.PULL_FAILED)
    if begun and fault is ImageFault.UNREACHABLE:
        fault = ImageFault.PULL_FAILED
    if fault is ImageFault.NOT_FOUND and login and "denied" in said:
        fault = ImageFault.DENIED
    return ImageFailed(fault, f"{_message(fault, image, login)} ({said})")


def _message(fault: ImageFault, image: str, login: Login | None) -> str:
    registry = registry_of(image)
    where = "Docker Hub" if registry == HUB else f"the registry {registry}"
    match fault:
        case ImageFault.NOT_FOUND:
            private = "" if login else ", and add a registry credential if it is private"
            return f"{where} has no image {image}: check its name and tag{private}"
        case ImageFault.DENIED if login:
            return (
                f"{where} refuses the registry credential {login.id} for {image}: check its user and password, and that it "
                "may read this image"
            )
        case ImageFault.DENIED:
            return (
                f"{where} does not give {image} to just anybody, or does not have it: check its name, or add a registry "
                "credential and name it in the endpoint's registry"
            )
        case ImageFault.UNREACHABLE:
            return f"{where} cannot be reached for {image}: check its name and this machine's network"
        case ImageFault.BUSY:
            credential = "" if login else ", or pull with a registry credential, which is counted by itself"
            return f"{where} answers no more requests for now, so {image} cannot be pulled: wait{credential}"
        case ImageFault.WRONG_PLATFORM:
            return f"{image} is not made for this machine's platform: build or name one that is"
        case ImageFault.DISK_FULL:
            return f"the Engine's disk has no room for {image}: free some, or lower image_bytes_max"
        case ImageFault.PULL_FAILED:
            return f"{image} did not arrive whole from {where}; it is tried again with the next start"
