"""Names of images, as their owners and Engines write them."""

from __future__ import annotations

from collections.abc import Iterable

from runyard.domain.container import check_image
from runyard.domain.errors import BadRequest

HUB = "docker.io"
_HUB_HOSTS = frozenset({HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"})
_NONE = "<none>"


def is_reference(image: str) -> bool:
    """Whether it can name an image at all."""
    return _repository_or_none(image) is not None


def registry_of(image: str) -> str:
    """The host that has the image, as in `ghcr.io` or `127.0.0.1:5000`."""
    return server_of(check_image(image).host or HUB)


def server_of(address: str) -> str:
    """The host of a registry however it is written: with a scheme, with a path, as one of Docker Hub's names."""
    host = address.lower().rpartition("://")[2].partition("/")[0]
    return HUB if host in _HUB_HOSTS else host


def repository_of(image: str) -> str:
    """Without tag and digest, and in full: `docker.io/library/python`."""
    name = check_image(image)
    path = name.name if name.host is None else name.name[len(name.host) + 1 :]
    registry = registry_of(image)
    return f"{registry}/{path if '/' in path or registry != HUB else f'library/{path}'}"


def parts_to_pull(image: str) -> tuple[str, str]:
    """What the Engine calls `fromImage` and `tag`: a digest where there is one. Without a tag it would pull them all."""
    name = check_image(image)
    return name.name, name.digest or name.tag or "latest"


def pinned(image: str, known_as: Iterable[str], digest: str | None = None) -> str | None:
    """Which of an image's `RepoDigests` is the one of this reference: the one with `digest`, else the first of its
    repository. None: no registry is known to have it under this name.
    """
    wanted = repository_of(image)
    digest = check_image(image).digest or digest
    same = [known for known in real(known_as) if _repository_or_none(known) == wanted]
    return next((known for known in same if known.endswith(f"@{digest}")), same[0] if same else None)


def given(tags: Iterable[str], image: str) -> list[str]:
    """Which of an image's `RepoTags` a pull of this reference has given it: Engines shorten what is written in full."""
    wanted = repository_of(image), parts_to_pull(image)[1]
    return [tag for tag in real(tags) if (_repository_or_none(tag), tag.rpartition(":")[2]) == wanted]


def real(names: Iterable[str] | None) -> list[str]:
    """Without what Engines list for an image that has no name."""
    return [name for name in names or () if not name.startswith(_NONE)]


def _repository_or_none(reference: str) -> str | None:
    """Others bring images, too, under names that we would refuse."""
    try:
        return repository_of(reference)
    except BadRequest:
        return None
