"""Releases whose image takes a while, or cannot be had: what whoever waits is told, on the loop's clock."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from runyard.adapters.docker.engine import NoEngine
from runyard.domain.container import ContainerSpec, Limits
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed, RunyardError
from runyard.domain.fleet import Preparation, PreparationState
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.logs import LogQuery
from runyard.ports.runtime import Launch, RuntimeObserver, Say
from tests.builders import ENDPOINT, a_release, a_scaling, an_endpoint
from tests.component.crew import Crew
from tests.component.wire import GET, POST, Ports, open_ports

pytestmark = pytest.mark.looptime

LOCK = "org/app@sha256:" + "a" * 64
LIMITED = ContainerSpec(image="org/app:1", limits=Limits(memory_bytes=512 << 20))
SOON_S = 0.3


def image_not_found() -> BuildFailed:
    error = BuildFailed("it is not there", ("x", "404"))
    error.code = "image_not_found"
    return error


class Puller(Crew):
    """Says how far it is every two seconds, three times; then raises what it is told to."""

    def __init__(self, observer: RuntimeObserver) -> None:
        super().__init__(observer)
        self.failing: Exception | None = None
        self.failing_to_start: Exception | None = None
        self.ports: Ports | None = None

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        self.prepared.append((endpoint_id, run))
        if run.lock is not None:
            return run
        for number in (1, 2, 3):
            say(f"pulling org/app:1: {number} of 3 layers")
            await asyncio.sleep(2)
        if self.failing is not None:
            raise self.failing
        return replace(run, lock=LOCK)

    async def start(self, launch: Launch) -> None:
        if self.failing_to_start is not None:
            raise self.failing_to_start
        await super().start(launch)


class Film:
    def __init__(self, ports: Ports, puller: Puller) -> None:
        self.ports = ports
        self.puller = puller

    async def past(self, at: float) -> None:
        await asyncio.sleep(at + SOON_S - asyncio.get_running_loop().time())

    async def submit(self, **input: Any) -> str:
        body = json.dumps({"input": {"s": 0} | input})
        return (await (await self.ports.connect()).ask(self.ports.request(POST, "/run", body))).json()["id"]

    async def reason(self, job_id: str) -> tuple[str, str]:
        wire = await self.ports.connect()
        shown = (await wire.ask(self.ports.request(GET, f"/status/{job_id}"))).json()["queueReason"]
        return shown["code"], shown["message"]

    @property
    def preparation(self) -> Preparation | None:
        return self.ports.platform.fleet.preparation(ENDPOINT)

    @property
    def said(self) -> list[str]:
        """What the platform told of making the release ahead of its first start."""
        return [line.line for line in self.ports.platform.logs.tail(WorkerId(f"build-1-{ENDPOINT}"), 100)]


@asynccontextmanager
async def filming(
    container: ContainerSpec = LIMITED, failing: Callable[[], Exception] | None = None
) -> AsyncIterator[Film]:
    pullers: list[Puller] = []

    def puller(observer: RuntimeObserver) -> Puller:
        pullers.append(Puller(observer))
        pullers[0].failing = None if failing is None else failing()
        return pullers[0]

    release = a_release(bundle="", handler="", container=container, lock=None)
    endpoint = an_endpoint(scaling=a_scaling(workers_max=1), release=release)
    async with open_ports(endpoint=endpoint, runtime=puller) as ports:
        pullers[0].ports = ports
        yield Film(ports, pullers[0])


async def test_a_release_is_prepared_ahead_and_says_how_far_it_is() -> None:
    async with filming() as film:
        await film.past(2)
        assert Preparation(PreparationState.PREPARING, message="pulling org/app:1: 2 of 3 layers") == film.preparation
        await film.past(6)

        assert Preparation(PreparationState.READY) == film.preparation
        assert [f"pulling org/app:1: {number} of 3 layers" for number in (1, 2, 3)] == film.said
        assert LOCK == film.ports.platform.endpoints.get(ENDPOINT).release.run.lock


async def test_a_job_is_told_how_far_the_image_is_that_its_worker_waits_for() -> None:
    async with filming() as film:
        job = await film.submit()
        told = []
        for at in (0, 2, 4):
            await film.past(at)
            told.append(await film.reason(job))
        await film.past(6)
        told.append(await film.reason(job))

    assert [("pulling_image", f"pulling org/app:1: {number} of 3 layers") for number in (1, 2, 3)] == told[:3]
    assert ("starting_worker", "1 worker(s) starting") == told[3]


async def test_a_release_that_is_ready_stays_so_when_workers_start() -> None:
    async with filming() as film:
        await film.past(6)
        await film.submit()
        seen = set()
        for _ in range(30):
            await asyncio.sleep(0.1)
            seen.add(film.preparation)

    assert {Preparation(PreparationState.READY)} == seen


@pytest.mark.parametrize(
    ("failing", "code", "message"),
    [
        (image_not_found, "image_not_found", "it is not there | x | 404"),
        (lambda: NoEngine("no Engine answers at unix:///x"), "no_engine", "no Engine answers at unix:///x"),
    ],
    ids=["image", "engine"],
)
async def test_what_cannot_be_prepared_says_so_by_its_own_code(
    failing: Callable[[], RunyardError], code: str, message: str
) -> None:
    async with filming(failing=failing) as film:
        await film.past(6)
        assert Preparation(PreparationState.FAILED, code, message) == film.preparation
        assert f"failed: {message.partition(' | ')[0]}" == film.said[-1]
        job = await film.submit()

        assert (code, message) == ((reason := await film.reason(job))[0], reason[1].partition("; next start in")[0])
        await film.past(7.5)
        assert "pulling_image" == (await film.reason(job))[0]
        film.puller.failing = None
        await film.past(15)
        assert Preparation(PreparationState.READY) == film.preparation


INSIDE = "something went wrong inside Runyard: its log says what"


async def test_what_nobody_has_thought_of_is_a_failed_preparation() -> None:
    async with filming(failing=lambda: KeyError("Id")) as film:
        await film.past(6)
        assert Preparation(PreparationState.FAILED, "start_failed", INSIDE) == film.preparation
        await film.submit()
        film.puller.failing = None
        await film.past(15)

        assert Preparation(PreparationState.READY) == film.preparation
        assert 1 == len(film.puller.launches)


async def test_what_nobody_has_thought_of_is_a_failed_start_and_no_worker_stays_starting() -> None:
    async with filming() as film:
        await film.past(6)
        film.puller.failing_to_start = KeyError("Id")
        job = await film.submit()
        await film.past(6.5)
        assert ("start_failed", INSIDE) == (
            (reason := await film.reason(job))[0],
            reason[1].partition("; next start in")[0],
        )
        film.puller.failing_to_start = None
        await film.past(15)

        assert 1 == len(film.puller.launches)


async def test_a_worker_that_the_kernel_killed_for_its_memory_says_so_with_its_limit() -> None:
    async with filming() as film:
        await film.past(6)
        job = await film.submit(s=60)
        await film.past(9)
        [worker_id] = film.puller.running
        film.puller.say(worker_id, "loading the model")
        film.puller.exit(worker_id, Exit(None, 9, out_of_memory=True))
        await film.past(9.2)
        code, message = await film.reason(job)

        assert "out_of_memory" == code
        assert "(killed by the kernel: out of memory; its limit is 512 MB)" in message
        assert "loading the model" in message
        kept = await film.ports.platform.jobs.get(ENDPOINT, job)
        [attempt] = kept.attempts
        assert f"worker {worker_id} ended (killed by the kernel: out of memory; its limit is 512 MB)" in attempt.reason


async def test_two_endpoints_each_have_their_own_word_of_release_1() -> None:
    async with filming() as film:
        platform = film.ports.platform
        other = await platform.endpoints.create("other", RunSpec(container=LIMITED))
        await film.past(6)

        for endpoint_id in (ENDPOINT, other.id):
            with platform.logs.follow(LogQuery(endpoint_id=endpoint_id)) as follower:
                lines = await follower.read()
            assert {endpoint_id} == {line.endpoint_id for line in lines}
            assert [f"pulling org/app:1: {number} of 3 layers" for number in (1, 2, 3)] == [line.line for line in lines]
