"""Images to test with, where none can be pulled: made here, once, and kept in a cache between runs.

    base      this machine's Python in a small root file system (`rootfs`)
    SDK       on the base, the official SDK and what it needs, as `pip install` puts it there
    worker    on the SDK, a handler, by a Dockerfile of the usual shape

An archive in the cache is named by all that went into it. Bases and SDKs are loaded as archives written by hand rather than
built: that takes half the time of a build, and the second session needs no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tests.docker_kit import rootfs
from tests.docker_kit.client import LABEL, EngineClient

NEWEST_SDK = f"runpod=={version('runpod')}"
OLD_SDK = "runpod~=1.7.9"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runyard-tests"
KEPT_UNUSED_S = 30 * 86400
INSTALL_S_MAX = 300
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""As images call them."""

Write = Callable[[Path], None]
"""Writes a layer to a file."""

DOCKERFILE = """\
FROM {sdk}
COPY handler.py /handler.py
CMD ["python", "-u", "/handler.py"]
"""


class Images:
    """Each method returns a reference to an image that is in the engine when it returns, even if it was removed since."""

    def __init__(self, client: EngineClient, cache: Path = CACHE) -> None:
        self._client = client
        self._cache = cache

    def base(self) -> str:
        return self._loaded("base", _base_key(), _write_base, below=[])

    def sdk(self, requirement: str = NEWEST_SDK) -> str:
        """The base with this SDK installed."""

        def write(target: Path) -> None:
            _write_sdk(requirement, target)

        below = self._client.call("GET", f"/images/{self.base()}/json")["RootFS"]["Layers"]
        return self._loaded("sdk", _key(requirement, *below), write, below=below)

    def worker(self, handler: str, requirement: str = NEWEST_SDK) -> str:
        """The SDK with this text as its handler.py."""
        return self.built({"Dockerfile": DOCKERFILE.format(sdk=self.sdk(requirement)), "handler.py": handler})

    def built(self, files: dict[str, str]) -> str:
        """What the Engine builds of these files."""
        reference = f"runyard-test/built:{_key(json.dumps(files, sort_keys=True))}"
        if not self._client.has_image(reference):
            self._client.build(reference, files)
        return reference

    def _loaded(self, kind: str, key: str, write: Write, *, below: list[str]) -> str:
        reference = f"runyard-test/{kind}:{key}"
        if not self._client.has_image(reference):
            self._client.load(self._archive(f"{kind}-{key}.tar", reference, write, below))
        return reference

    def _archive(self, name: str, reference: str, write: Write, below: list[str]) -> Path:
        archive = self._cache / name
        if not archive.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            _forget_unused(self._cache)
            with tempfile.TemporaryDirectory(dir=self._cache, prefix="making-") as folder:
                write(Path(folder, "layer.tar"))
                _write_archive(Path(folder), reference, below)
                Path(folder, "archive.tar").rename(archive)
        os.utime(archive)
        return archive


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _base_key() -> str:
    """Another Python, C library, set of certificates or recipe makes another base."""
    stats = [path.stat() for path in (rootfs.interpreter(), rootfs.libc(), rootfs.CERTIFICATES)]
    stamps = [f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats]
    return _key(sys.version, Path(rootfs.__file__).read_text(), *stamps)


def _write_base(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as tree:
        rootfs.fill(Path(tree))
        rootfs.layer(Path(tree), Path(), target)


def _write_sdk(requirement: str, target: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    assert uv, "uv is not installed"
    with tempfile.TemporaryDirectory(dir=target.parent) as tree:
        install = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", tree, "--compile-bytecode"]
        # The layer's files all have one time, so bytecode must not go by the times of its sources.
        env = {**os.environ, "PYC_INVALIDATION_MODE": "UNCHECKED_HASH"}
        done = subprocess.run(
            [*install, requirement], env=env, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False
        )
        assert 0 == done.returncode, f"{requirement} was not installed: {done.stderr}"
        rootfs.layer(Path(tree), rootfs.SITE_PACKAGES, target)


def _write_archive(folder: Path, reference: str, below: list[str]) -> None:
    """As `docker save` does it, but with the top layer alone: the Engine asks for no layer that it has."""
    with (folder / "layer.tar").open("rb") as content:
        digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    image = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Env": list(rootfs.ENVIRONMENT), "Cmd": ["python"], "Labels": LABEL},
        "rootfs": {"type": "layers", "diff_ids": [*below, digest]},
        "history": [{} for _ in (*below, digest)],
    }
    layers = [*(f"{layer}.tar" for layer in below), "layer.tar"]
    (folder / "image.json").write_text(json.dumps(image))
    (folder / "manifest.json").write_text(
        json.dumps([{"Config": "image.json", "RepoTags": [reference], "Layers": layers}])
    )
    with tarfile.open(folder / "archive.tar", "w") as tar:
        for name in ("manifest.json", "image.json", "layer.tar"):
            tar.add(folder / name, name)


def _forget_unused(cache: Path) -> None:
    for path in cache.iterdir():
        if path.stat().st_mtime < time.time() - KEPT_UNUSED_S:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
