"""Python environments of releases: resolved once, built once for each lock, shared by all workers that need the same.

Theory of operation. Building runs code of strangers (`setup.py`, `.pth` files), so as root it runs isolated, and what is
shared must be out of its reach:

1. *Resolving* may have to build packages to learn what they need. It runs as the endpoint's user, with that user's own
   cache, on a copy of the bundle.
2. *Installing* is first tried by the fetcher, a user that runs nobody's code: wheels only, from a cache shared by all.
   Bytecode is compiled without importing anything. So the second endpoint that needs torch does not wait for it.
3. What has no wheel is then built as the endpoint's user, and the finished environment is taken from it (`seal`).

An environment is used under a key that its lock, the Python and the platform make; with a path in the lock the bundle is
part of the key. It is built at its final place, since scripts hold absolute paths, and a stamp says that it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import platform
import shutil
import sys
import sysconfig
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runyard.adapters import bytecode, requirements
from runyard.adapters.locks import KeyedLocks
from runyard.adapters.pip_settings import UvSettings
from runyard.adapters.runtimes import rooms
from runyard.adapters.runtimes.bundles import Sources
from runyard.adapters.runtimes.rooms import Room
from runyard.adapters.runtimes.spawner import BASE_PYTHON, FETCHER_UID, Spawner
from runyard.adapters.uv import CommandFailed, Uv, Workshop
from runyard.domain.errors import BuildFailed
from runyard.ports.runtime import Say

PYTHON = f"{sys.implementation.name}-{platform.python_version()}-{sysconfig.get_platform()}"
STAMP = ".ready"
BYTECODE_DONORS_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One way to run uv: as whom, with which cache, and what it is told besides."""

    uid: int | None
    cache: Path
    writes: tuple[Path, ...]
    flags: tuple[str, ...] = ()
    quiet: bool = False
    """An attempt that may well fail without harm is not worth people's attention."""


class Environments:
    """Environments under `root`. One platform at a time may use it."""

    def __init__(self, root: Path, spawner: Spawner, settings: UvSettings, *, timeout_s: float) -> None:
        self._root = root
        self._spawner = spawner
        self._settings = settings
        self._timeout_s = timeout_s
        self._uv = Uv(spawner, settings.env)
        self._locks = KeyedLocks()

    async def resolve(self, sources: Sources, uid: int | None, say: Say) -> str:
        """The lock for a bundle; the same one whenever it is asked again. Raises `BuildFailed`."""
        file = requirements.requirements_file(sources.path, sources.handler)
        kept = self._root / ".locks" / _digest(sources.digest, str(file), PYTHON)
        async with self._locks.held(kept.name):
            if not kept.exists():
                async with self._bounded("resolving the requirements"):
                    lock = await self._resolve(sources, str(file) if file else None, uid, say)
                kept.parent.mkdir(parents=True, exist_ok=True)
                rooms.write_whole(kept, lock)
            return kept.read_text()

    async def build(self, sources: Sources, lock: str, uid: int | None, say: Say) -> Path:
        """The environment of a lock, built if need be. Raises `BuildFailed`."""
        place = self._place(sources, lock)
        async with self._locks.held(place.name):
            if not _is_ready(place):
                async with self._bounded("building the environment"):
                    await self._build(place, sources, lock, uid, say)
        return place

    def find(self, sources: Sources, lock: str) -> Path | None:
        """The environment of a lock, if it is ready."""
        place = self._place(sources, lock)
        return place if _is_ready(place) else None

    def _place(self, sources: Sources, lock: str) -> Path:
        local = sources.digest if requirements.has_local(lock) else ""
        return self._root / _digest(lock, PYTHON, local)

    @asynccontextmanager
    async def _bounded(self, doing: str) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as error:
            raise BuildFailed(f"{doing} took longer than {self._timeout_s:g} seconds") from error

    # --- Resolving

    async def _resolve(self, sources: Sources, file: str | None, uid: int | None, say: Say) -> str:
        say(f"resolving {file or requirements.DEFAULT_SDK}")
        own = self._own(uid)
        failure: CommandFailed | None = None
        # A machine without a network may have all that is needed: in folders of wheels, or from earlier builds.
        for flags, heard in (((), say), (("--offline",), _nobody)):
            try:
                return await self._compile(own, sources, file, flags, heard)
            except CommandFailed as error:
                failure = failure or error
        assert failure is not None
        raise _failed(f"cannot resolve {file or requirements.DEFAULT_SDK}", failure)

    async def _compile(self, way: _Way, sources: Sources, file: str | None, flags: Sequence[str], say: Say) -> str:
        async with self._workshop(way, "resolve", sources) as shop:
            asked = (shop.room.work / file).read_text(errors="replace") if file else ""
            rooms.write_to(shop.room, ".runyard.in", b"runpod\n")
            # uv keeps to the versions of an earlier lock where it can; so this is a default that anything overrides.
            default = "" if requirements.names_sdk(asked) else requirements.DEFAULT_SDK
            rooms.write_to(shop.room, ".runyard.lock", default.encode())
            await self._uv(
                shop,
                *("pip", "compile", "--no-header", "--no-annotate", "--quiet", "--python", BASE_PYTHON),
                *(*self._settings.flags, *self._settings.resolve_flags, *flags, *self._constraints(shop.room)),
                *([file] if file else []),
                *(".runyard.in", "--output-file", ".runyard.lock"),
                say=say,
            )
            try:
                return requirements.lock_text(rooms.read_from(shop.room, ".runyard.lock"), asked)
            except OSError as error:
                raise BuildFailed("resolving left no lock behind; a package's build meddles with it") from error

    def _constraints(self, room: Room) -> list[str]:
        """The operator's constraints, copied to where the builder can read them."""
        flags: list[str] = []
        for number, constraint in enumerate(self._settings.constraints):
            path, name = Path(constraint), f".runyard.{number}.constraints"
            if path.is_file():
                rooms.write_to(room, name, path.read_bytes())
            flags += ["--constraint", name if path.is_file() else constraint]
        return flags

    # --- Installing

    async def _build(self, place: Path, sources: Sources, lock: str, uid: int | None, say: Say) -> None:
        say("building the environment")
        failure: CommandFailed | None = None
        for way in self._ways(place, uid):
            try:
                await self._install(place, way, sources, lock, _nobody if way.quiet else say)
            except CommandFailed as error:
                failure = error
            else:
                (place / ".lock").unlink(missing_ok=True)  # uv's own, and writable for all.
                (place / STAMP).touch()
                say("the environment is ready")
                return
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        assert failure is not None
        raise _failed("cannot build the environment", failure)

    def _ways(self, place: Path, uid: int | None) -> list[_Way]:
        """What is tried in turn. With exact versions at hand the network has nothing to add, so it comes last."""
        # Copies, so that taking the environment from its builder leaves the builder's cache alone.
        ways = [replace(self._own(uid, place), flags=() if uid is None else ("--link-mode=copy",))]
        if uid is not None:
            # Links between cache and environment need one mount for both; the fetcher may see all of it.
            cache = self._root / ".cache/shared"
            flags = ("--no-build", "--link-mode=hardlink")
            ways.insert(0, _Way(uid=FETCHER_UID, cache=cache, writes=(self._root,), flags=flags))
        return [*(replace(way, flags=(*way.flags, "--offline"), quiet=True) for way in ways), *ways]

    def _own(self, uid: int | None, *writes: Path) -> _Way:
        cache = self._root / ".cache" / ("own" if uid is None else str(uid))
        return _Way(uid=uid, cache=cache, writes=(cache, *writes))

    async def _install(self, place: Path, way: _Way, sources: Sources, lock: str, say: Say) -> None:
        await asyncio.to_thread(_clear, place, way.uid)
        bundle = sources if requirements.has_local(lock) else None
        python = place / "bin/python"
        async with self._workshop(way, "install", bundle) as shop:
            rooms.write_to(shop.room, ".runyard.lock", lock.encode())
            await self._uv(shop, "venv", "--quiet", "--allow-existing", "--python", BASE_PYTHON, place, say=say)
            sync = ("pip", "sync", "--allow-empty-requirements", "--python", python)
            await self._uv(shop, *sync, *self._settings.flags, *way.flags, ".runyard.lock", say=say)
            donors = self._donors() if way.uid == FETCHER_UID else []
            if missing := await asyncio.to_thread(bytecode.to_compile, place, donors, way.uid):
                # Without `site`, since that would run what packages put into .pth files. Files for other Pythons fail.
                with contextlib.suppress(CommandFailed):
                    compile = (BASE_PYTHON, "-I", "-S", "-m", "compileall", "-qq", "-j", "0")
                    await self._uv.run(shop, *compile, *missing, say=_nobody)
        if way.uid not in (None, FETCHER_UID):
            await asyncio.to_thread(rooms.seal, place)

    def _donors(self) -> list[Path]:
        """The latest environments: most have the SDK in common."""
        stamps = sorted(self._root.glob(f"*/{STAMP}"), key=lambda stamp: stamp.stat().st_mtime, reverse=True)
        return [stamp.parent for stamp in stamps[:BYTECODE_DONORS_MAX]]

    @asynccontextmanager
    async def _workshop(self, way: _Way, name: str, sources: Sources | None) -> AsyncGenerator[Workshop]:
        await asyncio.to_thread(_make_cache, way)
        async with self._spawner.room(name, way.uid, sources.path if sources else None) as room:
            yield Workshop(room=room, cache=way.cache, reads=self._settings.folders, writes=way.writes)


def _clear(place: Path, uid: int | None) -> None:
    """An empty folder for the environment, its builder's own for now."""
    shutil.rmtree(place, ignore_errors=True)
    rooms.make_open(place.parent)
    rooms.make_open(place)
    rooms.hand_over(place, uid)


def _make_cache(way: _Way) -> None:
    if not way.cache.exists():
        rooms.make_open(way.cache.parent)
        way.cache.mkdir()
        rooms.hand_over(way.cache, way.uid)


def _is_ready(place: Path) -> bool:
    """Whole, and its interpreter is still there."""
    return (place / STAMP).exists() and (place / "bin/python").exists()


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _failed(doing: str, failure: CommandFailed) -> BuildFailed:
    return BuildFailed(f"{doing}: {requirements.reason(failure.output)}", failure.output)


def _nobody(line: str) -> None:
    """Hears a line that people need not see."""
