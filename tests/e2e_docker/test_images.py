"""Images are pulled, pinned and removed, with a real engine and registries."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.docker.collector import FRESH_S
from runyard.adapters.docker.engine import Engine as Client
from runyard.adapters.docker.images import Images
from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import ImageFailed, NotFound, StartFailed
from runyard.domain.job import EndpointId
from runyard.domain.secret import Credential
from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.registry import LOGIN, Cut, Registry

ENDPOINT = EndpointId("endpoint")
MB = 1 << 20
PAUSE_S = 0.01


class Ticks:
    """A clock that is a second further whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 1
        return self.now


Make = Callable[..., Images]


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
async def make(engine: Engine, tmp_path: Path, ticks: Ticks) -> AsyncIterator[Make]:
    client, made = Client(engine.url), list[Images]()

    async def credentials(id: str) -> Credential:
        if id == "gone":
            raise NotFound("there is no such credential")
        password = "wrong" if id == "wrong" else LOGIN[1]
        return Credential(username=LOGIN[0], password=password, server="ghcr.io" if id == "another" else None)

    def images(**options: object) -> Images:
        blobs = FolderBlobs(tmp_path / "blobs")
        folder = tmp_path / "images"
        made.append(Images(client, blobs, folder, credentials, now=ticks, pauses_s=(PAUSE_S,), **options))  # type: ignore[arg-type]
        return made[-1]

    yield images
    for each in made:
        await each.close()
    await client.close()


@pytest.fixture
def pushed(docker: EngineClient, registry: Registry) -> Callable[..., str]:
    """Builds an image of layers that are its own, and moves it into a registry: the engine has it no more."""
    return lambda name, seed, **options: push(docker, options.pop("to", registry), name, seed, **options)


def push(docker: EngineClient, registry: Registry, name: str, seed: int, *, layers: int = 1, size: int = MB) -> str:
    dice, parts = random.Random(seed), [f"part{n}" for n in range(layers)]
    dockerfile = "\n".join(["FROM scratch", *(f"COPY {part} /{part}" for part in parts)])
    docker.build("runyard-test/pushed:1", {"Dockerfile": dockerfile, **{part: dice.randbytes(size) for part in parts}})
    reference = registry.push(docker, "runyard-test/pushed:1", name)
    docker.untag("runyard-test/pushed:1")
    return reference


def of(image: str, registry: str | None = None) -> RunSpec:
    return RunSpec(container=ContainerSpec(image=image, registry=registry))


async def failing(prepared: Awaitable[RunSpec]) -> ImageFailed:
    with pytest.raises(ImageFailed) as raised:
        await prepared
    return raised.value


async def test_a_pull_tells_how_far_it_is(make: Make, pushed: Callable[..., str]) -> None:
    image, said = pushed("app:progress", 1, layers=3), list[str]()
    run = await make().prepare(ENDPOINT, of(image), said.append)

    assert f"pulling {image}" == said[0]
    # How many bytes have come is told only of layers that take the Engine a while: see the unit tests.
    assert any(" of 3 layers" in line for line in said[1:-1]), said
    assert said[-1].startswith(f"pulled {image}: 3.1 MB in ")
    assert all(line.startswith(f"pulling {image}") for line in said[:-1])
    assert run.lock is not None
    assert run.lock.startswith(f"{image.rpartition(':')[0]}@sha256:")


async def test_those_who_want_the_same_share_a_pull(
    make: Make, docker: EngineClient, pushed: Callable[..., str]
) -> None:
    image, heard = pushed("app:shared", 2, layers=2), [list[str]() for _ in range(3)]
    images, began_at = make(), time.time()
    runs = await asyncio.gather(*(images.prepare(ENDPOINT, of(image), lines.append) for lines in heard))
    pulls = docker.events(began_at, time.time(), type=["image"], event=["pull"])

    assert [image] == [event["Actor"]["ID"] for event in pulls]
    assert 1 == len({run.lock for run in runs})
    assert heard[0] == heard[1] == heard[2]


async def test_a_pull_goes_on_when_nobody_waits_any_more(
    make: Make, docker: EngineClient, pushed: Callable[..., str]
) -> None:
    image, images = pushed("app:alone", 3), make()
    begun = asyncio.Event()
    alone = asyncio.create_task(images.prepare(ENDPOINT, of(image), lambda line: begun.set()))
    await begun.wait()
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)

    for _ in range(500):
        if docker.has_image(image):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not go on")


async def test_a_release_keeps_its_image_though_the_tag_moves(
    make: Make, docker: EngineClient, pushed: Callable[..., str], registry: Registry
) -> None:
    image, images = pushed("app:moving", 4), make()
    old = await images.prepare(ENDPOINT, of(image), print)
    pushed("app:moving", 5)
    new = await images.prepare(ENDPOINT, of(image), print)
    with registry.down():
        said = list[str]()
        again = await images.prepare(ENDPOINT, old, said.append)

    assert old.lock != new.lock
    assert (old, []) == (again, said)
    assert old.lock == (await images.present(old)).name
    assert image in docker.call("GET", f"/images/{new.lock}/json")["RepoTags"]
    assert [] == docker.call("GET", f"/images/{old.lock}/json")["RepoTags"]


async def test_a_pinned_image_that_was_removed_is_pulled_by_its_digest(
    make: Make, docker: EngineClient, pushed: Callable[..., str]
) -> None:
    image, images = pushed("app:removed", 6), make()
    run = await images.prepare(ENDPOINT, of(image), print)
    assert run.lock is not None
    docker.untag(run.lock)
    pushed("app:removed", 7)
    with pytest.raises(StartFailed, match="not on this machine"):
        await images.present(run)
    said = list[str]()

    assert run == await images.prepare(ENDPOINT, run, said.append)
    assert run.lock == (await images.present(run)).name
    assert f"the image of this release was removed from this machine: {run.lock}" == said[0]


async def test_a_digest_in_the_name_asks_nobody_when_it_is_here(
    make: Make, pushed: Callable[..., str], registry: Registry
) -> None:
    images = make()
    run = await images.prepare(ENDPOINT, of(pushed("app:digest", 8)), print)
    assert run.lock is not None
    with registry.down():
        assert run.lock == (await images.prepare(ENDPOINT, of(run.lock), print)).lock


@pytest.mark.row("F095")
async def test_a_private_registry_wants_the_right_password(
    make: Make, private_registry: Registry, pushed: Callable[..., str]
) -> None:
    image, images, said = pushed("secret/app:1", 9, to=private_registry), make(), list[str]()
    without = await failing(images.prepare(ENDPOINT, of(image), said.append))
    wrong = await failing(images.prepare(ENDPOINT, of(image, "wrong"), said.append))
    another = await failing(images.prepare(ENDPOINT, of(image, "another"), said.append))
    gone = await failing(images.prepare(ENDPOINT, of(image, "gone"), said.append))
    await images.prepare(ENDPOINT, of(image, "right"), said.append)

    errors = without, wrong, another, gone
    assert ["registry_denied"] * 4 == [error.code for error in errors]
    assert "add a registry credential" in without.message
    assert f"refuses the registry credential wrong for {image}" in wrong.message
    assert "another is for ghcr.io" in another.message
    assert "gone that is to pull" in gone.message
    assert not [line for line in (*said, *map(str, errors)) if LOGIN[1] in line]


async def test_an_image_that_does_not_exist_is_said_to(make: Make, registry: Registry) -> None:
    said = list[str]()
    error = await failing(make().prepare(ENDPOINT, of(f"{registry.host}/nope:1"), said.append))

    assert "image_not_found" == error.code
    assert f"the registry {registry.host} has no image {registry.host}/nope:1: check its name and tag" in error.message
    assert [f"pulling {registry.host}/nope:1"] == said


async def test_a_registry_that_dies_amid_a_pull_is_tried_again(
    make: Make, cut: Cut, docker: EngineClient, pushed: Callable[..., str]
) -> None:
    pushed("app:cut", 10, layers=2)
    image, said = f"{cut.host}/app:cut", list[str]()
    cut.cut_after = MB

    def say(line: str) -> None:
        said.append(line)
        if "next try in" in line:
            assert "did not arrive whole" in line
            cut.heal()

    run = await make().prepare(ENDPOINT, of(image), say)

    assert [] != [line for line in said if "next try in" in line]
    assert [] != [line for line in said if "the Engine tries again" in line]
    assert docker.has_image(str(run.lock))


async def test_a_registry_that_is_away_stops_no_image_that_is_here(
    make: Make, registry: Registry, pushed: Callable[..., str]
) -> None:
    image, images, said = pushed("app:here", 11), make(), list[str]()
    run = await images.prepare(ENDPOINT, of(image), print)
    with registry.down():
        again = await images.prepare(ENDPOINT, of(image), said.append)
        error = await failing(images.prepare(ENDPOINT, of(f"{registry.host}/app:elsewhere"), said.append))

    assert run == again
    assert "cannot be reached" in said[1]
    assert said[1].endswith("the image of that name that is here already is used")
    assert "registry_unreachable" == error.code


async def test_an_image_of_this_machine_is_used_and_no_registry_asked(
    make: Make, docker: EngineClient, registry: Registry
) -> None:
    image, said = f"{registry.host}/mine:1", list[str]()
    docker.build(image, {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "mine"})
    images = make()
    with registry.down():
        run = await images.prepare(ENDPOINT, of(image), said.append)

    assert docker.call("GET", f"/images/{image}/json")["Id"] == run.lock == (await images.present(run)).name
    assert [f"{image} is an image that this machine's owner has put here, so no registry is asked for it"] == said
    docker.untag(image)
    assert "image_not_found" == (await failing(images.prepare(ENDPOINT, run, print))).code


async def test_unused_images_go_when_all_take_too_much(
    make: Make, docker: EngineClient, pushed: Callable[..., str], ticks: Ticks, registry: Registry
) -> None:
    names = [pushed(f"app:kept{n}", 20 + n, size=2 * MB) for n in range(3)]
    owners, free = pushed("app:owners", 23), 0
    docker.pull(owners)
    images = make(bytes_max=5 * MB, lacking=lambda folder: free)
    locks = [str((await images.prepare(ENDPOINT, of(name), print)).lock) for name in (*names, owners)]

    assert [] == await images.collect([])
    ticks.now += FRESH_S
    await images.prepare(ENDPOINT, replace(of(names[0]), lock=locks[0]), print)
    used = docker.create(locks[1], "/a")
    assert 1 == len(await images.collect([]))  # Of the two that are older a container has one.
    assert [True, True, False, True] == [docker.has_image(lock) for lock in locks]
    assert not docker.has_image(names[2])
    ticks.now += FRESH_S
    free = 10**12
    assert [] == await make(lacking=lambda folder: free).collect([locks[0]])
    docker.remove(used)
    assert 1 == len(await make(lacking=lambda folder: free).collect([locks[0]]))
    assert [True, False, False, True] == [docker.has_image(lock) for lock in locks]
