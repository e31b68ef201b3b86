"""What every `WorkerRuntime` promises."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.adapters.runtimes.process import ProcessRuntime
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch, WorkerRuntime
from tests.runtime_kit import Listener, a_run

ENDPOINT = EndpointId("endpoint")
W1, W2 = WorkerId("w1"), WorkerId("w2")
LONG, SHORT = timedelta(seconds=30), timedelta(milliseconds=50)

HANDLERS = {
    # Says "up", and ends with 0 when asked to.
    "polite": "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('up')\nwhile True: signal.pause()\n",
    "stubborn": "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('up')\nwhile True: signal.pause()\n",
    "talker": "import sys\nfor n in range(1000): print('line', n)\nprint('last words', file=sys.stderr)\nsys.exit(3)\n",
    "suicide": "import os\nos.kill(os.getpid(), 6)\n",
}


@dataclass
class Fleet:
    """A runtime under test, and workers that behave in known ways."""

    runtime: WorkerRuntime
    listener: Listener
    runs: dict[str, RunSpec]

    async def start(self, worker_id: WorkerId, behaviour: str) -> None:
        run = await self.runtime.prepare(ENDPOINT, self.runs[behaviour], lambda _: None)
        await self.runtime.start(Launch(worker_id=worker_id, endpoint_id=ENDPOINT, run=run, env={}))
        if isinstance(self.runtime, FakeRuntime):
            self._act(self.runtime, worker_id, behaviour)
        if behaviour in ("polite", "stubborn"):
            await self.listener.said(worker_id, "up")

    def _act(self, runtime: FakeRuntime, worker_id: WorkerId, behaviour: str) -> None:
        """A worker without a process needs a hand."""
        match behaviour:
            case "talker":
                for line in (*(f"line {number}" for number in range(1000)), "last words"):
                    runtime.say(worker_id, line)
                runtime.exit(worker_id, Exit(3))
            case "suicide":
                runtime.exit(worker_id, Exit(None, 6))
            case _:
                runtime.stubborn |= {worker_id} if behaviour == "stubborn" else set()
                runtime.say(worker_id, "up")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, so that environments are built once."""
    return tmp_path_factory.mktemp("data")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate")


@pytest.fixture(params=["fake", "process", pytest.param("isolated", marks=needs_root)])
async def fleet(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Fleet]:
    listener = Listener()
    if request.param == "fake":
        runs = {name: RunSpec(bundle=name, handler="handler.py") for name in HANDLERS}
        runtime: WorkerRuntime = FakeRuntime(listener)
    else:
        blobs = FolderBlobs(root / "blobs")
        runs = {name: await a_run(blobs, {"handler.py": source}) for name, source in HANDLERS.items()}
        isolated = request.param == "isolated"
        runtime = ProcessRuntime(root / request.param, blobs, listener, number_of=_number_of, isolated=isolated)
    yield Fleet(runtime, listener, runs)
    await runtime.close()


async def _number_of(endpoint_id: EndpointId) -> int:
    return 0


async def test_a_started_worker_is_listed_until_it_is_stopped(fleet: Fleet) -> None:
    await fleet.start(W1, "polite")
    await fleet.start(W2, "polite")
    assert sorted(await fleet.runtime.list()) == [W1, W2]

    await fleet.runtime.stop(W1, LONG)
    assert await fleet.runtime.list() == [W2]
    assert fleet.listener.exits == [(W1, Exit(0))]


async def test_starting_again_starts_nothing(fleet: Fleet) -> None:
    await fleet.start(W1, "polite")
    await fleet.start(W1, "polite")
    await fleet.runtime.stop(W1, LONG)

    assert fleet.listener.exits == [(W1, Exit(0))]


async def test_a_worker_that_ends_is_reported_with_its_code_after_all_it_said(fleet: Fleet) -> None:
    await fleet.start(W1, "talker")

    assert await fleet.listener.exited(W1) == Exit(3)
    said = fleet.listener.said_by(W1)
    said.remove("last words")  # On standard error: each stream is in order, but where two are kept apart, not both.
    assert said == [f"line {number}" for number in range(1000)]
    assert fleet.listener.story[-1] == "w1 ended: exit code 3"
    assert await fleet.runtime.list() == []


async def test_a_worker_that_a_signal_ends_is_reported_with_the_signal(fleet: Fleet) -> None:
    await fleet.start(W1, "suicide")

    assert await fleet.listener.exited(W1) == Exit(None, 6)


async def test_a_worker_that_does_not_end_in_its_grace_is_killed(fleet: Fleet) -> None:
    await fleet.start(W1, "stubborn")
    await fleet.runtime.stop(W1, SHORT)

    assert fleet.listener.exits == [(W1, Exit(None, 9))]


async def test_a_second_stop_can_cut_the_grace_of_the_first_short(fleet: Fleet) -> None:
    await fleet.start(W1, "stubborn")
    first = asyncio.create_task(fleet.runtime.stop(W1, LONG))
    await asyncio.sleep(0)
    await fleet.runtime.stop(W1, SHORT)
    await first

    assert fleet.listener.exits == [(W1, Exit(None, 9))]


async def test_stopping_what_does_not_run_returns(fleet: Fleet) -> None:
    await fleet.runtime.stop(W1, LONG)
    await fleet.start(W1, "talker")
    await fleet.listener.exited(W1)
    await fleet.runtime.stop(W1, LONG)

    assert len(fleet.listener.exits) == 1


async def test_preparing_names_the_lock_and_can_be_repeated(fleet: Fleet) -> None:
    first = await fleet.runtime.prepare(ENDPOINT, fleet.runs["polite"], lambda _: None)
    again = await fleet.runtime.prepare(ENDPOINT, first, lambda _: None)

    assert first.lock is not None
    assert again == first


async def test_closing_ends_all_workers_and_nothing_starts_any_more(fleet: Fleet) -> None:
    await fleet.start(W1, "stubborn")
    await fleet.start(W2, "polite")
    run = await fleet.runtime.prepare(ENDPOINT, fleet.runs["polite"], lambda _: None)
    await fleet.runtime.close()

    assert dict(fleet.listener.exits) == {W1: Exit(None, 9), W2: Exit(None, 9)}
    with pytest.raises(StartFailed):
        await fleet.runtime.start(Launch(worker_id=W1, endpoint_id=ENDPOINT, run=run, env={}))
