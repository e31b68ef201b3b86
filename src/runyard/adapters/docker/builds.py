"""Images built from a bundle's Dockerfile, by the Engine's classic builder: the one that every Engine has, and that ends
with the connection that asked for it.

An image is found again by its tag, which all that went into it makes; so the same is built once, by whichever platform.
What a build starts from and copies from is pulled before it begins, as any image is. What can name no image is left to the
Engine, which says at which step it stands.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from runyard.adapters.docker.build_log import BuildLog, failure
from runyard.adapters.docker.collector import BUILD_LABEL
from runyard.adapters.docker.contexts import add, dockerfile_in, path_in_bundle, write_context
from runyard.adapters.docker.dockerfiles import Altered, images_of, with_lines
from runyard.adapters.docker.engine import Engine, EngineError
from runyard.adapters.docker.references import is_reference
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed
from runyard.ports.runtime import Say
from runyard.ports.stores import Blobs

RECIPE = 1
"""Another number builds all anew."""
REPOSITORY = "runyard/built"
CA_REPOSITORY = "runyard/certificates"
CA_FILE = "/etc/runyard/certificates.pem"
CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
CPU_PERIOD_US = 100_000
CHUNK_BYTES = 1 << 20
KEY_LENGTH = 32
MB = 1_000_000

Ensure = Callable[[str, str | None, Say], Awaitable[None]]
"""Has an image on this machine, pulled with this credential if need be. Raises `ImageFailed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What an operator can set of builds."""

    timeout_s: float = 1800.0
    ca_bundle: Path | None = None
    """A file of certificates, PEM: all that builds and images are to trust."""
    args: Mapping[str, str] = field(default_factory=dict[str, str])
    """Build arguments that every stage of every build gets; an endpoint's own win. Whoever has the image can read them."""
    memory_bytes: int = 0
    """Of each step; 0: as much as there is."""
    cpus: float = 0.0


class Builds:
    """By one Engine, of bundles in `blobs`. `ensure` brings the images that they begin with; contexts lie in `folder`
    while they are sent. `now` is in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: Blobs,
        folder: Path,
        ensure: Ensure,
        *,
        options: BuildOptions,
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._folder = folder
        self._ensure = ensure
        self._options = options
        self._now = now

    async def tag_of(self, run: RunSpec) -> str:
        """The name of its image, whether there is one or not. Raises `BuildFailed`."""
        spec = run.container
        assert spec is not None
        ca = await self._certificates()
        parts = [RECIPE, run.bundle, spec.dockerfile, sorted(self._args(run).items()), sorted(self._options.args)]
        return f"{REPOSITORY}:{_key(json.dumps(parts).encode(), ca)}"

    async def build(self, run: RunSpec, tag: str, say: Say) -> dict[str, Any]:
        """What the Engine knows of the image then. Cancelled, it ends in the Engine, too. Raises `BuildFailed`."""
        spec = run.container
        assert spec is not None
        name, archive = path_in_bundle(spec.dockerfile), await self._blobs.path(run.bundle)
        text = await asyncio.to_thread(dockerfile_in, archive, run.bundle, name)
        say(f"building the image from {name}")
        began_at = self._now()
        for image in filter(is_reference, images_of(text, self._args(run))):
            await self._ensure(image, spec.registry, say)
        altered = with_lines(
            text,
            self._args(run),
            first=[f"LABEL {BUILD_LABEL}=yes"],
            trust=await self._trusting(),
            declared=sorted(self._options.args),
        )
        with self._context() as context:
            await asyncio.to_thread(write_context, archive, run.bundle, name, altered.text, context)
            await self._send(context, tag, altered, say, dockerfile=name, buildargs=self._args(run))
        built = await self._engine.call("GET", f"/images/{tag}/json")
        size = int(built.get("Size") or 0)
        say(f"built the image: {size / MB:.0f} MB in {self._now() - began_at:.1f} s")
        return built

    async def _send(self, context: IO[bytes], tag: str, altered: Altered, say: Say, **query: Any) -> None:
        log = BuildLog(altered.added)
        query = {"t": tag, "rm": "1", "forcerm": "1", **self._limits(), **query}
        tar = {"content": _chunks(context), "headers": {"content-type": "application/x-tar"}}
        try:
            async with (
                asyncio.timeout(self._options.timeout_s),
                self._engine.messages("POST", "/build", **tar, **query) as messages,
            ):
                async for message in messages:
                    for line in log.take(message):
                        say(line)
        except EngineError as error:
            for line in log.end():
                say(line)
            raise BuildFailed(failure(str(error), log.where, altered.line_before), tuple(log.tail)) from error
        except TimeoutError as error:
            seconds = f"{self._options.timeout_s:g} seconds (build_timeout_s)"
            raise BuildFailed(f"the build took longer than {seconds}{log.where}", tuple(log.tail)) from error

    async def _trusting(self) -> list[str]:
        """The lines that make a stage trust the certificates; they come out of an image of their own, so that a bundle's
        files stay as they are.
        """
        ca = await self._certificates()
        if not ca:
            return []
        tag = f"{CA_REPOSITORY}:{_key(ca)}"
        try:
            await self._engine.call("GET", f"/images/{tag}/json")
        except EngineError:
            await self._build_certificates(ca, tag)
        return [
            f"COPY --from={tag} /certificates.pem {CA_FILE}",
            "ENV " + " ".join(f"{name}={CA_FILE}" for name in CA_VARIABLES),
        ]

    async def _build_certificates(self, ca: bytes, tag: str) -> None:
        dockerfile = f"FROM scratch\nCOPY certificates.pem /certificates.pem\nLABEL {BUILD_LABEL}=yes\n"
        altered = Altered(text=dockerfile, added=(True,) * 3, origins=())
        with self._context() as context:
            with tarfile.open(fileobj=context, mode="w") as tar:
                add(tar, "Dockerfile", dockerfile.encode())
                add(tar, "certificates.pem", ca)
            await self._send(context, tag, altered, lambda line: None)

    @contextmanager
    def _context(self) -> Generator[IO[bytes]]:
        """A file to gather in what is sent."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                yield file
        except OSError as error:  # A full disk, as a rule.
            raise BuildFailed(f"cannot gather the files to build from in {self._folder}: {error}") from error

    async def _certificates(self) -> bytes:
        """Empty without."""
        if self._options.ca_bundle is None:
            return b""
        try:
            return await asyncio.to_thread(self._options.ca_bundle.read_bytes)
        except OSError as error:
            raise BuildFailed(f"cannot read the certificates that builds need (build_ca_bundle): {error}") from error

    def _args(self, run: RunSpec) -> dict[str, str]:
        assert run.container is not None
        return {**self._options.args, **dict(run.container.build_args)}

    def _limits(self) -> dict[str, str]:
        limits: dict[str, str] = {}
        if memory := self._options.memory_bytes:
            limits |= {"memory": str(memory), "memswap": str(memory)}
        if cpus := self._options.cpus:
            limits |= {"cpuperiod": str(CPU_PERIOD_US), "cpuquota": str(max(1000, round(cpus * CPU_PERIOD_US)))}
        return limits


async def _chunks(context: IO[bytes]) -> AsyncIterator[bytes]:
    context.seek(0)
    while chunk := await asyncio.to_thread(context.read, CHUNK_BYTES):
        yield chunk


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:KEY_LENGTH]
