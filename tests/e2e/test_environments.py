"""Environments, really built: by uv, from packages that the tests make, without a network."""

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from runyard.adapters import pip_settings
from runyard.adapters.environments import Environments
from runyard.adapters.runtimes import rooms
from runyard.adapters.runtimes.bundles import Sources
from runyard.adapters.runtimes.rooms import Room
from runyard.adapters.runtimes.spawner import FETCHER_UID, UID_BASE, Spawner
from runyard.domain.errors import BuildFailed
from tests.runtime_kit import a_wheel

MACHINE = pip_settings.for_uv(pip_settings.read())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate")


class Site:
    """Where environments are built, from the packages in `shelf` and nowhere else."""

    def __init__(self, folder: Path, spawner: Spawner, **settings: str) -> None:
        self.folder = folder
        self.shelf = folder / "shelf"
        self.shelf.mkdir(exist_ok=True)
        self.spawner = spawner
        self.root = folder / "data/environments"
        self.said: list[str] = []
        for version in ("1.12.0", "1.13.0"):
            a_wheel(self.shelf, "runpod", version, {"runpod.py": f"VERSION = '{version}'\n"})
        self.environments = self.with_settings(**{"no-index": "1", "find-links": str(self.shelf)})

    def with_settings(self, *, timeout_s: float = 60.0, **settings: str) -> Environments:
        for_uv = pip_settings.for_uv(settings)
        quick = replace(for_uv, env={**for_uv.env, "UV_HTTP_RETRIES": "0"})
        return Environments(self.root, self.spawner, quick, timeout_s=timeout_s)

    def bundle(self, files: dict[str, str], handler: str = "handler.py") -> Sources:
        """Sources as if unpacked."""
        digest = f"{len(list(self.folder.glob('bundle*'))):064x}"
        path = self.folder / f"bundle{digest}"
        for name, content in {handler: "", **files}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(content)
        return Sources(digest=digest, path=path, handler=handler)

    async def resolve(self, files: dict[str, str], number: int = 0) -> tuple[Sources, str]:
        sources = self.bundle(files)
        return sources, await self.environments.resolve(sources, self.uid(number), self.said.append)

    async def build(self, requirements: str, number: int = 0, **files: str) -> Path:
        sources, lock = await self.resolve({"requirements.txt": requirements, **files}, number)
        return await self.environments.build(sources, lock, self.uid(number), self.said.append)

    async def ask(self, environment: Path, expression: str, number: int = 0) -> str:
        """What an expression is for a worker with the environment."""
        said: list[str] = []
        room = Room(self.folder / "data/workers/asked", self.uid(number))
        rooms.furnish(room)
        command = [str(environment / "bin/python"), "-c", f"print({expression})"]
        child = await self.spawner.spawn(room, command, env={}, say=said.append, reads=[environment])
        await child.wait()
        return "\n".join(said)

    def uid(self, number: int) -> int | None:
        return UID_BASE + number if self.spawner.isolated else None


@pytest.fixture(params=["plain", pytest.param("isolated", marks=needs_root)])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "data").mkdir(mode=0o700)
    spawner = Spawner(tmp_path / "data")
    if request.param == "isolated":
        assert await spawner.probe() is None
    yield Site(tmp_path, spawner)
    await spawner.close()


isolated_only = pytest.mark.parametrize("site", [pytest.param("isolated", marks=needs_root)], indirect=True)


def a_project(name: str, code: str) -> dict[str, str]:
    """The sources of a package of one module, whose build runs `code`, which makes the module's `text`."""
    backend = f"""
import zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    {code}
    info = "{name}-1.dist-info"
    with zipfile.ZipFile(wheel_directory + "/{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("{name}.py", text)
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return "{name}-1-py3-none-any.whl"
"""
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return {"backend.py": backend, "pyproject.toml": f'{system}[project]\nname = "{name}"\nversion = "1"\n'}


def an_sdist(folder: Path, name: str, code: str) -> None:
    """Such a package for the shelf."""
    files = {**a_project(name, code), "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"}
    with tarfile.open(folder / f"{name}-1.tar.gz", "w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{name}-1/{path}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content.encode()))


# --- Resolving --------------------------------------------------------------------------------------------------------


async def test_a_bundle_without_requirements_gets_the_sdk_of_the_promise(site: Site) -> None:
    assert (await site.resolve({}))[1] == "runpod==1.12.0\n"


@pytest.mark.parametrize(
    ("requirements", "lock"),
    [
        ("tiny\n", "runpod==1.12.0\ntiny==2.0\n"),
        ("tiny<2\nrunpod\n", "runpod==1.13.0\ntiny==1.0\n"),
        ("runpod>=1.12.1\n", "runpod==1.13.0\n"),
        ("-r more.txt\n", "runpod==1.13.0\n"),
        ("wants-new-runpod\n", "runpod==1.13.0\nwants-new-runpod==1\n"),
    ],
)
async def test_what_the_bundle_asks_for_wins(site: Site, requirements: str, lock: str) -> None:
    for version in ("1.0", "2.0"):
        a_wheel(site.shelf, "tiny", version, {"tiny.py": ""})
    a_wheel(site.shelf, "wants_new_runpod", "1", {"x.py": ""}, requires=("runpod>1.12",))

    assert (await site.resolve({"requirements.txt": requirements, "more.txt": "runpod==1.13.0\n"}))[1] == lock


async def test_the_same_bundle_has_the_same_lock_for_ever(site: Site) -> None:
    a_wheel(site.shelf, "tiny", "1.0", {"tiny.py": ""})
    sources, lock = await site.resolve({"requirements.txt": "tiny\n"})
    a_wheel(site.shelf, "tiny", "2.0", {"tiny.py": ""})

    assert lock == await site.environments.resolve(sources, site.uid(0), site.said.append)
    assert "tiny==1.0" in lock


async def test_constraints_of_the_operator_hold(site: Site) -> None:
    for version in ("1.0", "2.0"):
        a_wheel(site.shelf, "tiny", version, {"tiny.py": ""})
    (site.folder / "constraints.txt").write_text("tiny<2\n")
    environments = site.with_settings(
        **{
            "no-index": "1",
            "find-links": str(site.shelf),
            "constraint": str(site.folder / "constraints.txt"),
        }
    )

    lock = await environments.resolve(site.bundle({"requirements.txt": "tiny\n"}), site.uid(0), site.said.append)
    assert lock == "runpod==1.12.0\ntiny==1.0\n"


async def test_without_a_network_what_lies_here_is_enough(site: Site) -> None:
    nowhere = {"index-url": "http://127.0.0.1:9/simple", "find-links": str(site.shelf)}
    site.environments = site.with_settings(**nowhere)
    a_wheel(site.shelf, "tiny", "1.0", {"tiny.py": "VALUE = 7\n"})

    environment = await site.build("tiny\n")
    assert await site.ask(environment, "__import__('tiny').VALUE") == "7"


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ("no-such-package\n", "no-such-package was not found"),
        ("runpod==99\n", r"there is no version of runpod==99"),
        ("tiny ==== 1\n", "Couldn't parse"),
        ("-r missing.txt\n", "missing.txt"),
    ],
)
async def test_what_cannot_be_resolved_says_why(site: Site, requirements: str, message: str) -> None:
    with pytest.raises(BuildFailed, match=rf"cannot resolve requirements\.txt: .*{message}") as failure:
        await site.resolve({"requirements.txt": requirements})

    assert "\n".join(failure.value.log_tail) in "\n".join(site.said)
    assert "error:" in failure.value.log_tail[0]


# --- Building ---------------------------------------------------------------------------------------------------------


async def test_an_environment_has_what_the_lock_says_with_bytecode(site: Site) -> None:
    a_wheel(site.shelf, "tiny", "1.0", {"tiny.py": "VALUE = 7\n", "tiny_more/__init__.py": ""})
    environment = await site.build("tiny\n")

    assert await site.ask(environment, "__import__('tiny').VALUE, __import__('runpod').VERSION") == "7 1.12.0"
    compiled = {path.name.partition(".")[0] for path in environment.rglob("*.pyc")}
    assert {"tiny", "__init__", "runpod"} <= compiled


async def test_a_given_lock_is_taken_as_it_is(site: Site) -> None:
    sources = site.bundle({"requirements.txt": "runpod==99\n"})
    environment = await site.environments.build(sources, "runpod==1.13.0\n", site.uid(0), site.said.append)

    assert await site.ask(environment, "__import__('runpod').VERSION") == "1.13.0"


async def test_the_same_lock_is_built_once_however_many_ask(site: Site) -> None:
    sources, lock = await site.resolve({})
    others = [site.bundle({}), site.bundle({}), sources]
    places = await asyncio.gather(
        *(site.environments.build(other, lock, site.uid(0), site.said.append) for other in others)
    )

    assert len(set(places)) == 1
    assert site.said.count("the environment is ready") == 1
    assert site.environments.find(others[0], lock) == places[0]


async def test_packages_in_the_bundle_are_part_of_what_the_environment_is_known_by(site: Site) -> None:
    places = []
    for value in ("1", "2"):
        files = {f"pkg/{name}": text for name, text in a_project("local", f"text = 'VALUE = {value}'").items()}
        places.append(await site.build("-e ./pkg\n", **files))

    assert [await site.ask(place, "__import__('local').VALUE") for place in places] == ["1", "2"]


async def test_a_package_without_a_wheel_is_built(site: Site) -> None:
    an_sdist(site.shelf, "sourcy", "text = 'VALUE = 8'")
    environment = await site.build("sourcy\n")

    assert await site.ask(environment, "__import__('sourcy').VALUE") == "8"


async def test_a_build_that_fails_says_how(site: Site) -> None:
    an_sdist(site.shelf, "sourcy", "raise SystemExit('boom: no compiler for CUDA')")

    with pytest.raises(BuildFailed, match="boom: no compiler for CUDA") as failure:
        await site.build("sourcy\n")
    assert "sourcy" in failure.value.message
    assert not [path for path in site.root.iterdir() if not path.name.startswith(".")]


async def test_a_build_that_failed_can_be_tried_again(site: Site) -> None:
    sources, lock = await site.resolve({})
    wheel = next(site.shelf.glob("runpod-1.12*"))
    content = wheel.read_bytes()
    wheel.write_bytes(b"broken")
    with pytest.raises(BuildFailed):
        await site.environments.build(sources, lock, site.uid(0), site.said.append)
    wheel.write_bytes(content)

    assert await site.environments.build(sources, lock, site.uid(0), site.said.append)


async def test_a_build_that_takes_too_long_is_ended(site: Site) -> None:
    an_sdist(site.shelf, "sourcy", "__import__('time').sleep(98766)")
    sources, lock = await site.resolve({"requirements.txt": "sourcy\n"})
    hasty = site.with_settings(timeout_s=1.0, **{"no-index": "1", "find-links": str(site.shelf)})

    with pytest.raises(BuildFailed, match="took longer than 1 seconds"):
        await hasty.build(sources, lock, site.uid(0), site.said.append)
    assert list((site.folder / "data/builds").iterdir()) == []


async def test_a_half_built_environment_is_built_anew(site: Site) -> None:
    sources, lock = await site.resolve({})
    place = await site.environments.build(sources, lock, site.uid(0), site.said.append)
    (place / ".ready").unlink()
    (place / "rest").touch()

    assert site.environments.find(sources, lock) is None
    assert place == await site.environments.build(sources, lock, site.uid(0), site.said.append)
    assert not (place / "rest").exists()


# --- Who builds -------------------------------------------------------------------------------------------------------


@isolated_only
async def test_wheels_are_fetched_into_a_cache_for_all_and_their_bytecode_is_shared(site: Site) -> None:
    a_wheel(site.shelf, "tiny", "1.0", {"tiny.py": ""})
    one, other = await site.build("", number=1), await site.build("tiny\n", number=2)

    for path in ("runpod.py", "__pycache__/runpod.*.pyc"):
        first, second = (next(place.glob(f"lib/python3*/site-packages/{path}")) for place in (one, other))
        assert first.samefile(second)
        assert first.stat().st_uid == FETCHER_UID


@isolated_only
async def test_builds_run_as_the_endpoints_user_and_reach_no_shared_place(site: Site) -> None:
    root = site.root
    attempts = [f"{root}/.cache/shared/x", f"{root}/x", f"{root.parent}/x", f"{root}/.locks/x", "/runpod-volume/x"]
    an_sdist(
        site.shelf,
        "sourcy",
        "\n    ".join(
            [
                "import os",
                "reached = []",
                f"for path in {attempts}:",
                "    try: open(path, 'w'); reached.append(path)",
                "    except OSError: pass",
                "text = f'UID = {os.getuid()}; REACHED = {reached}'",
            ]
        ),
    )
    await site.build("", number=1)
    environment = await site.build("sourcy\n", number=2)

    assert await site.ask(environment, "__import__('sourcy').UID, __import__('sourcy').REACHED") == f"{UID_BASE + 2} []"


@isolated_only
async def test_what_strangers_built_is_theirs_no_more(site: Site) -> None:
    an_sdist(site.shelf, "sourcy", "text = ''")
    environment = await site.build("sourcy\n", number=2)

    owners = {path.lstat().st_uid for path in environment.rglob("*")}
    assert owners == {0}
    assert not [path for path in environment.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


@isolated_only
async def test_code_that_packages_run_at_start_is_not_run_by_the_fetcher(site: Site) -> None:
    pth = "import os, sys; open(f'{sys.prefix}/ran-as-{os.getuid()}', 'w')\n"
    a_wheel(site.shelf, "sneaky", "1", {"sneaky.pth": pth})
    environment = await site.build("sneaky\n")

    assert [path.name for path in site.root.rglob("ran-as-*")] == []
    assert "Read-only" in await site.ask(environment, "1"), "the .pth file does run in a worker"


def test_a_tenants_file_is_no_way_to_read_the_platforms(tmp_path: Path) -> None:
    room = Room(tmp_path / "room", None)
    rooms.furnish(room)
    (tmp_path / "admin.key").write_text("secret")
    (room.work / "link").symlink_to(tmp_path / "admin.key")

    with pytest.raises(OSError, match="symbolic links"):
        rooms.read_from(room, "link")


# --- This machine -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(Path("/opt/wheels") not in MACHINE.folders, reason="pip knows of no CPU build of torch here")
async def test_torch_is_the_build_that_pip_would_take(site: Site) -> None:
    environments = Environments(site.root, site.spawner, MACHINE, timeout_s=120)
    lock = await environments.resolve(
        site.bundle({"requirements.txt": "torch==2.13.0\n"}), site.uid(0), site.said.append
    )

    assert "torch==2.13.0+cpu\n" in lock
    assert "nvidia" not in lock
    assert "runpod==1.12.0\n" in lock
