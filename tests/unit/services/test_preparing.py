"""How far releases are; `tests/component/test_preparing.py` has them in a platform."""

import asyncio
from dataclasses import replace

import pytest

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.domain.endpoint import Release, ReleaseId, RunSpec
from runyard.domain.errors import BuildFailed, StartFailed
from runyard.domain.fleet import Preparation, PreparationState
from runyard.domain.job import EndpointId
from runyard.ports.runtime import Say
from runyard.services.preparing import Preparations
from tests.builders import ENDPOINT, a_release, an_endpoint

RELEASE = a_release(lock=None)


class Told(FakeRuntime):
    """Says a secret, and then fails as it is told to."""

    def __init__(self, failing: BuildFailed | StartFailed | None = None) -> None:
        super().__init__(None)  # pyright: ignore[reportArgumentType] # nobody starts a worker here
        self.failing = failing
        self.silent = False

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        if not self.silent:
            say("token s3cret")
        if self.failing is not None:
            raise self.failing
        return replace(run, lock="exactly")


class Kept:
    """Preparations over what is remembered of them."""

    def __init__(self) -> None:
        self.locks: list[tuple[EndpointId, ReleaseId, str]] = []
        self.seen: list[Preparation | None] = []
        self.preparations = Preparations(
            self.set_lock, self.changed, redact=lambda _, text: text.replace("s3cret", "[secret]")
        )

    async def set_lock(self, endpoint_id: EndpointId, release_id: ReleaseId, lock: str) -> None:
        self.locks.append((endpoint_id, release_id, lock))

    def changed(self, endpoint_id: EndpointId) -> None:
        self.seen.append(self.preparations.of(an_endpoint(endpoint_id, release=RELEASE)))

    async def prepare(self, runtime: Told, release: Release = RELEASE) -> list[str]:
        said: list[str] = []
        await self.preparations.prepare(runtime, ENDPOINT, release, said.append)
        return said


PREPARING = Preparation(PreparationState.PREPARING)
WORD = replace(PREPARING, message="token [secret]")
READY = Preparation(PreparationState.READY)


async def test_every_step_is_known_without_what_may_not_be_kept() -> None:
    kept = Kept()
    said = await kept.prepare(Told())

    assert [PREPARING, WORD, READY] == kept.seen
    assert ["token s3cret"] == said
    assert [(ENDPOINT, RELEASE.id, "exactly")] == kept.locks


@pytest.mark.parametrize(
    ("failing", "code", "message"),
    [
        (
            BuildFailed("no s3cret here", ("a", "b", "c", "d", "e", "f")),
            "build_failed",
            "no [secret] here | b | c | d | e | f",
        ),
        (StartFailed("nobody answers"), "start_failed", "nobody answers"),
    ],
    ids=["build", "start"],
)
async def test_a_failure_has_its_code_and_the_last_words(
    failing: BuildFailed | StartFailed, code: str, message: str
) -> None:
    kept = Kept()
    with pytest.raises(type(failing)):
        await kept.prepare(Told(failing))
    assert [PREPARING, WORD, Preparation(PreparationState.FAILED, code, message)] == kept.seen

    await kept.prepare(Told())
    assert [PREPARING, WORD, READY] == kept.seen[3:]


async def test_a_release_that_is_ready_stays_so_while_there_is_nothing_to_do() -> None:
    kept, runtime = Kept(), Told()
    await kept.prepare(runtime)
    runtime.silent = True
    await kept.prepare(runtime)
    assert [PREPARING, WORD, READY] == kept.seen

    runtime.silent = False
    await kept.prepare(runtime)
    assert [WORD, READY] == kept.seen[3:]


async def test_releases_that_are_gone_are_forgotten() -> None:
    kept = Kept()
    await kept.prepare(Told())
    kept.preparations.keep_only({RELEASE.id})
    assert READY == kept.preparations.of(an_endpoint(release=RELEASE))
    kept.preparations.keep_only(())

    assert None is kept.preparations.of(an_endpoint(release=RELEASE))
    assert "the environment of the release is being built" == kept.preparations.reason(an_endpoint()).message


class Slow(FakeRuntime):
    """Never done; tells when it was given up."""

    def __init__(self) -> None:
        super().__init__(None)  # pyright: ignore[reportArgumentType] # nobody starts a worker here
        self.begun = asyncio.Event()
        self.given_up = False

    async def prepare(self, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise
        return run


async def test_what_is_done_for_a_release_that_nobody_wants_any_more_is_given_up() -> None:
    kept, slow = Kept(), Slow()
    wanted = asyncio.create_task(kept.prepare(slow))  # type: ignore[arg-type]
    await slow.begun.wait()
    kept.preparations.keep_only([RELEASE.id])
    await asyncio.sleep(0)
    assert not slow.given_up

    kept.preparations.keep_only([])
    with pytest.raises(StartFailed, match="not wanted any more"):
        await wanted
    assert slow.given_up


async def test_who_stops_waiting_gives_it_up() -> None:
    kept, slow = Kept(), Slow()
    waiting = asyncio.create_task(kept.prepare(slow))  # type: ignore[arg-type]
    await slow.begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert slow.given_up
