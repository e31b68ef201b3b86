"""How a worker runs as a container."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from runyard.domain.errors import BadRequest

IMAGE_LENGTH_MAX = 512
WORDS_MAX = 1000
WORDS_BYTES_MAX = 128 * 1024
PORTS_MAX = 10
DOCKERFILE_DEFAULT = "Dockerfile"
GB = 1 << 30

# A registry's host has a dot, a port, or is localhost; else the first word is part of the name.
_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d)|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:(?P<host>{_HOST})/)?{_WORD}(?:/{_WORD})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z",
    re.ASCII,
)
_PORT = re.compile(r"(\d{1,5})(?:/(http|tcp|udp))?\Z", re.ASCII)
_BUILD_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one worker may use; None where the platform's settings hold."""

    cpus: float | None = None
    memory_bytes: int | None = None
    shm_bytes: int | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    """Of its own layer: what it writes outside of volumes (F092)."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("cpus", self.cpus, 0.01),
            ("memory", self.memory_bytes, 6 << 20),
            ("shared memory", self.shm_bytes, 1 << 20),
            ("pids", self.pids, 1),
            ("disk", self.disk_bytes, GB),
        ):
            if value is not None and not least <= value <= 2**53:
                raise BadRequest(f"the limit of {name} must be at least {least}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """The image, how it starts, and what it may use.

    `image` is a reference as its owner gave it; empty when the image is built from the release's bundle, by the
    `dockerfile` in it. Empty `entrypoint` and `args` leave the image's own.
    """

    image: str = ""
    dockerfile: str = DOCKERFILE_DEFAULT
    build_args: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    args_text: str = ""
    """`args` as their owner wrote them, in one line; empty where they came as words."""
    ports: tuple[str, ...] = ()
    """As in `8000/http`, `22/tcp`."""
    registry: str | None = None
    """The id of the credential that pulls the image."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.image:
            check_image(self.image)
        _check_words("entrypoint", self.entrypoint)
        _check_words("args", self.args)
        _check_words("build arguments", tuple(f"{name}={value}" for name, value in self.build_args))
        for name, _ in self.build_args:
            if not _BUILD_ARGUMENT.match(name):
                raise BadRequest(
                    f"build argument {name[:80]!r}: names have letters, digits and underscores, no digit first"
                )
        if len(self.ports) > PORTS_MAX:
            raise BadRequest(f"{len(self.ports)} ports are too many: at most {PORTS_MAX}")
        for port in self.ports:
            port_of(port)

    @property
    def built(self) -> bool:
        return not self.image

    @property
    def args_line(self) -> str:
        """`args` in one line, for people; split as a shell does they are the words again."""
        return self.args_text or shlex.join(self.args)


@dataclass(frozen=True, slots=True)
class ImageName:
    """A reference, taken apart: `host` None means Docker Hub."""

    name: str
    host: str | None
    tag: str | None
    digest: str | None


def check_image(reference: str) -> ImageName:
    """Raises `BadRequest` for what names no image."""
    match = _REFERENCE.match(reference) if len(reference) <= IMAGE_LENGTH_MAX else None
    if match is None:
        raise BadRequest(f"image {reference[:80]!r} is no image reference: write it as [HOST/]NAME[:TAG][@sha256:...]")
    return ImageName(match["name"], match["host"], match["tag"], match["digest"])


def split_words(what: str, text: str) -> tuple[str, ...]:
    """As a shell splits them, without any expansion. Raises `BadRequest` that begins with `what`."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        why = str(error).lower()
        raise BadRequest(f"{what}: cannot be split into words as a shell does ({why}): {text[:80]}") from error


def port_of(port: str) -> tuple[int, str]:
    """Number and protocol (`tcp` or `udp`). Raises `BadRequest`."""
    match = _PORT.match(port)
    if match is None or not 0 < int(match[1]) < 65536:
        raise BadRequest(f"port {port[:40]!r} is none: write it as 8000/http or 22/tcp")
    return int(match[1]), "udp" if match[2] == "udp" else "tcp"


def _check_words(what: str, words: tuple[str, ...]) -> None:
    if len(words) > WORDS_MAX or sum(map(len, words)) > WORDS_BYTES_MAX:
        raise BadRequest(f"{what}: at most {WORDS_MAX} words and {WORDS_BYTES_MAX} characters")
    if any("\0" in word for word in words):
        raise BadRequest(f"{what}: no word may contain a NUL character")
