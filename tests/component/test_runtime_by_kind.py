"""Processes and containers under one roof: each release goes to its own, and one side's trouble is not the other's."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from runyard.adapters.runtimes.by_kind import NoContainers, RuntimeByKind
from runyard.adapters.runtimes.fake import ASKED_TO_END, KILLED, FakeRuntime
from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import NotFound, StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.ports.runtime import Launch, Say
from tests.runtime_kit import Listener

ENDPOINT = EndpointId("endpoint")
PROCESS = RunSpec(bundle="0" * 64, handler="handler.py", lock="")
CONTAINER = RunSpec(container=ContainerSpec(image="worker"), lock="worker@sha256:1")
W1, W2 = WorkerId("w1"), WorkerId("w2")
GRACE = timedelta(seconds=1)


class FakeContainers(FakeRuntime):
    """Containers without an Engine. `broken`: nothing can be asked of them."""

    broken = False

    def __init__(self, observer: Listener) -> None:
        super().__init__(observer)
        self.frozen: set[WorkerId] = set()

    def plane_url(self, endpoint_id: EndpointId, run: RunSpec) -> str | None:
        return "http://10.213.0.1:8001"

    async def list(self) -> list[WorkerId]:
        self._check()
        return await super().list()

    async def stop(self, worker_id: WorkerId, grace: timedelta) -> None:
        self._check()
        await super().stop(worker_id, grace)

    async def close(self) -> None:
        await super().close()
        self._check()

    async def freeze(self, worker_id: WorkerId) -> None:
        self._find(worker_id)
        self.frozen.add(worker_id)

    async def thaw(self, worker_id: WorkerId) -> None:
        self._find(worker_id)
        self.frozen.discard(worker_id)

    async def exec(self, worker_id: WorkerId, argv: Sequence[str], say: Say) -> int:
        self._find(worker_id)
        return 0

    def _find(self, worker_id: WorkerId) -> None:
        if worker_id not in self.running:
            raise NotFound(f"no {worker_id}")

    def _check(self) -> None:
        if self.broken:
            raise StartFailed("no Engine")


class House:
    def __init__(self) -> None:
        self.listener = Listener()
        self.processes = FakeRuntime(self.listener)
        self.containers = FakeContainers(self.listener)
        self.runtime = RuntimeByKind(self.processes, self.containers)

    async def start(self) -> None:
        """One of each."""
        for worker_id, run in ((W1, PROCESS), (W2, CONTAINER)):
            prepared = await self.runtime.prepare(ENDPOINT, run, lambda _: None)
            await self.runtime.start(Launch(worker_id=worker_id, endpoint_id=ENDPOINT, run=prepared, env={}))


async def test_each_release_goes_to_its_own() -> None:
    house = House()
    await house.start()

    assert ([W1], [W2]) == (list(house.processes.running), list(house.containers.running))
    assert [W1, W2] == await house.runtime.list()
    assert house.runtime.plane_url(ENDPOINT, PROCESS) is None
    assert "http://10.213.0.1:8001" == house.runtime.plane_url(ENDPOINT, CONTAINER)


async def test_workers_of_both_are_stopped_and_closed() -> None:
    house = House()
    await house.start()
    await house.runtime.stop(W2, GRACE)
    await house.runtime.stop(W2, GRACE)
    await house.runtime.close()

    assert [(W2, ASKED_TO_END), (W1, KILLED)] == house.listener.exits


async def test_both_are_left_and_adopted() -> None:
    house = House()
    await house.start()
    await house.runtime.leave()
    assert (True, True) == (house.processes.left, house.containers.left)

    await house.runtime.adopt(W2)
    assert W2 in house.containers.adopted


async def test_what_goes_wrong_with_containers_does_not_harm_processes() -> None:
    house = House()
    await house.start()
    house.containers.broken = True

    assert [W1] == await house.runtime.list()
    await house.runtime.stop(W1, GRACE)
    await house.runtime.close()
    assert (W1, ASKED_TO_END) == house.listener.exits[0]


async def test_only_containers_can_be_frozen_and_entered() -> None:
    house = House()
    await house.start()
    await house.runtime.freeze(W2)
    assert {W2} == house.containers.frozen
    await house.runtime.thaw(W2)
    await house.runtime.thaw(W1)

    with pytest.raises(StartFailed, match="cannot be frozen"):
        await house.runtime.freeze(W1)
    with pytest.raises(NotFound):
        await house.runtime.exec(W1, ["id"], lambda _: None)
    assert 0 == await house.runtime.exec(W2, ["id"], lambda _: None)


async def test_where_no_engine_can_be_asked_processes_run_and_containers_say_why() -> None:
    listener = Listener()
    runtime = RuntimeByKind(FakeRuntime(listener), NoContainers(StartFailed("the address 'ssh://x' cannot be used")))
    await runtime.start(Launch(worker_id=W1, endpoint_id=ENDPOINT, run=PROCESS, env={}))
    with pytest.raises(StartFailed, match="ssh://x"):
        await runtime.prepare(ENDPOINT, CONTAINER, lambda _: None)

    assert [W1] == await runtime.list()
    await runtime.close()
    assert [(W1, KILLED)] == listener.exits
