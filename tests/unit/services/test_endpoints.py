from dataclasses import replace
from datetime import timedelta

import pytest

from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.domain.endpoint import RESERVED_IDS, Endpoint, RunSpec
from runyard.domain.errors import BadRequest, Conflict, NotFound
from runyard.domain.job import EndpointId
from runyard.domain.scaling import QueueDelay, RequestCount
from runyard.domain.terms import DEFAULT_TERMS, NO_OWN_TERMS, QUEUE, JobTerms, OwnTerms
from runyard.services.endpoints import EndpointChange, Endpoints, FieldDiff
from tests.control_doubles import CountingIds, MemoryBlobs, SetClock


class Yard:
    """The service over memory adapters, and what it has signalled."""

    def __init__(self, ids: CountingIds | None = None) -> None:
        self.control = MemoryControl()
        self.blobs = MemoryBlobs()
        self.clock = SetClock()
        self.ids = ids or CountingIds()
        self.signals = LocalSignals()
        self.fired: list[str] = []
        self.endpoints = self.restarted()
        self.first = self.blobs.keep(b"first")
        self.second = self.blobs.keep(b"second")

    def restarted(self, terms: JobTerms = DEFAULT_TERMS) -> Endpoints:
        return Endpoints(self.control, self.blobs, self.clock, self.ids, self.signals, terms=terms)

    async def create(self, name: str = "hello", **options: object) -> Endpoint:
        return await self.endpoints.create(name, self.run(), **options)

    def run(self, **changes: object) -> RunSpec:
        return RunSpec(**{"bundle": self.first, "handler": "handler.py", "env": (("A", "1"),)} | changes)

    def listen(self, *topics: str) -> None:
        for topic in topics:
            self.signals.subscribe(topic, lambda topic=topic: self.fired.append(topic))


@pytest.fixture
def yard() -> Yard:
    return Yard()


async def test_an_endpoint_is_found_by_id_and_by_name_also_after_a_restart(yard: Yard) -> None:
    endpoint = await yard.create()
    restarted = yard.restarted()
    await restarted.load()

    for endpoints in (yard.endpoints, restarted):
        assert endpoints.list() == [endpoint]
        assert endpoints.get(endpoint.id) == endpoints.find(endpoint.id) == endpoints.find("hello") == endpoint
        with pytest.raises(NotFound, match="nobody"):
            endpoints.find("nobody")
        with pytest.raises(NotFound):
            endpoints.get("hello")


async def test_a_name_is_given_once(yard: Yard) -> None:
    first = await yard.create("hello")
    other = await yard.create("other")

    for name in ("hello", first.id):
        with pytest.raises(Conflict, match=first.id):
            await yard.create(name)
        with pytest.raises(Conflict, match=first.id):
            await yard.endpoints.update(other.id, EndpointChange(name=name))
    assert await yard.endpoints.update(first.id, EndpointChange(name="hello")) == first


class GivenIds(CountingIds):
    """Endpoint ids from a list."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self._words = iter(words)

    def endpoint(self) -> EndpointId:
        return EndpointId(next(self._words))


async def test_ids_avoid_reserved_words_and_each_other() -> None:
    yard = Yard(GivenIds(*sorted(RESERVED_IDS)[:3], "free", "free", "fresh"))

    assert [(await yard.create(name)).id for name in ("one", "two")] == ["free", "fresh"]


@pytest.mark.parametrize("handler", ["", "/etc/x.py", "../x.py", "a/../../x.py", "x.sh", "x\0.py", "x" * 256 + ".py"])
async def test_the_handler_is_a_python_file_of_the_bundle(yard: Yard, handler: str) -> None:
    with pytest.raises(BadRequest, match=r"runyard\.handler"):
        await yard.endpoints.create("x", yard.run(handler=handler))


@pytest.mark.parametrize("bundle", ["", "b" * 63, "B" * 64, "b" * 64, "../" + "b" * 61])
async def test_the_bundle_must_be_here(yard: Yard, bundle: str) -> None:
    with pytest.raises(BadRequest, match="bundle"):
        await yard.endpoints.create("x", yard.run(bundle=bundle))
    assert yard.endpoints.list() == []


async def test_bounds_timeouts_and_names_change_without_a_release(yard: Yard) -> None:
    was = await yard.create()
    change = EndpointChange(
        name="renamed",
        workers_max=7,
        idle_timeout=timedelta(seconds=30),
        scaler=QueueDelay(timedelta(seconds=1)),
        execution_timeout=timedelta(seconds=5),
    )
    now = await yard.endpoints.update(was.id, change)

    assert (now.release, now.generation) == (was.release, 2)
    assert (now.name, now.execution_timeout) == ("renamed", timedelta(seconds=5))
    assert now.scaling == replace(
        was.scaling, workers_max=7, idle_timeout=timedelta(seconds=30), scaler=QueueDelay(timedelta(seconds=1))
    )
    assert await yard.control.endpoints() == [now]


async def test_a_change_of_how_workers_run_makes_a_release(yard: Yard) -> None:
    was = await yard.create()
    yard.clock.at += 1
    now = await yard.endpoints.update(was.id, EndpointChange(env=(("A", "2"),)))
    now = await yard.endpoints.update(was.id, EndpointChange(bundle=yard.second, handler="src/handler.py"))

    assert (now.generation, now.release.version) == (3, 3)
    assert [(view.release.version, view.diff) for view in await yard.endpoints.releases(was.id)] == [
        (
            3,
            (
                FieldDiff(field="bundle", old=yard.first, new=yard.second),
                FieldDiff(field="handler", old="handler.py", new="src/handler.py"),
            ),
        ),
        (2, (FieldDiff(field="env", old={"A": "1"}, new={"A": "2"}),)),
        (1, ()),
    ]


async def test_deploying_the_same_bundle_again_is_a_release_and_the_same_environment_is_not(yard: Yard) -> None:
    was = await yard.create()

    assert await yard.endpoints.update(was.id, EndpointChange()) == was
    assert await yard.endpoints.update(was.id, EndpointChange(env=was.release.run.env)) == was
    again = await yard.endpoints.update(was.id, EndpointChange(bundle=was.release.run.bundle))
    assert (again.generation, again.release.version) == (2, 2)


async def test_a_lock_stays_with_its_bundle(yard: Yard) -> None:
    was = await yard.create()
    await yard.endpoints.set_lock(was.id, was.release.id, "runpod==1.0")
    await yard.endpoints.set_lock(was.id, was.release.id, "runpod==2.0")
    locked = yard.endpoints.get(was.id)
    other_env = await yard.endpoints.update(was.id, EndpointChange(env=()))
    other_bundle = await yard.endpoints.update(was.id, EndpointChange(bundle=yard.second))
    await yard.endpoints.set_lock(was.id, was.release.id, "late")

    assert (locked.release.run.lock, locked.generation) == ("runpod==1.0", 1)
    assert other_env.release.run.lock == "runpod==1.0"
    assert other_bundle.release.run.lock is None
    assert yard.endpoints.get(was.id) == other_bundle


async def test_an_idle_timeout_belongs_to_queue_delay(yard: Yard) -> None:
    was = await yard.create()
    with pytest.raises(BadRequest, match="idleTimeout"):
        await yard.endpoints.update(was.id, EndpointChange(scaler=RequestCount(1), idle_timeout=timedelta(seconds=9)))
    now = await yard.endpoints.update(was.id, EndpointChange(scaler=RequestCount(1)))
    with pytest.raises(BadRequest, match="idleTimeout"):
        await yard.endpoints.update(was.id, EndpointChange(idle_timeout=timedelta(seconds=9)))
    back = EndpointChange(scaler=QueueDelay(), idle_timeout=timedelta(seconds=9))

    assert (await yard.endpoints.update(was.id, back)).scaling.idle_timeout == timedelta(seconds=9)
    assert now.scaling.idle_timeout == was.scaling.idle_timeout


@pytest.mark.parametrize(
    "change",
    [
        EndpointChange(workers_min=4),
        EndpointChange(workers_max=1001),
        EndpointChange(execution_timeout=timedelta(0)),
        EndpointChange(name=""),
        EndpointChange(env=(("1", "x"),)),
        EndpointChange(bundle="", handler="x.py"),
    ],
    ids=["bounds", "too many", "timeout", "name", "env", "bundle"],
)
async def test_a_change_that_cannot_be_changes_nothing(yard: Yard, change: EndpointChange) -> None:
    was = await yard.create()
    yard.listen(f"endpoint:{was.id}", "endpoints")

    with pytest.raises(BadRequest):
        await yard.endpoints.update(was.id, change)
    assert yard.endpoints.list() == await yard.control.endpoints() == [was]
    assert yard.fired == []


async def test_every_change_is_signalled(yard: Yard) -> None:
    yard.listen("endpoints", "endpoint:endpoint-1")
    endpoint = await yard.create()
    await yard.endpoints.update(endpoint.id, EndpointChange(workers_max=1))
    await yard.endpoints.delete(endpoint.id)

    assert yard.fired == ["endpoint:endpoint-1", "endpoints"] * 3


async def test_a_deleted_endpoint_is_gone(yard: Yard) -> None:
    endpoint = await yard.create()
    await yard.endpoints.delete(endpoint.id)

    assert yard.endpoints.list() == await yard.control.endpoints() == []
    for call in (yard.endpoints.delete, yard.endpoints.releases):
        with pytest.raises(NotFound):
            await call(endpoint.id)
    with pytest.raises(NotFound):
        await yard.endpoints.update(endpoint.id, EndpointChange(name="x"))
    await yard.create("hello")


async def test_a_change_from_outside_is_seen_after_one_conflict(yard: Yard) -> None:
    was = await yard.create()
    elsewhere = replace(was, generation=2, name="elsewhere")
    await yard.control.save_endpoint(elsewhere, generation=1)

    with pytest.raises(Conflict, match="in the meantime"):
        await yard.endpoints.update(was.id, EndpointChange(workers_max=1))
    assert (await yard.endpoints.update(was.id, EndpointChange(workers_max=1))).name == "elsewhere"


async def test_what_holds_for_jobs_are_the_endpoints_own_terms_over_the_platforms_also_after_a_restart(
    yard: Yard,
) -> None:
    own, plain = await yard.create("own", terms=OwnTerms(ttl_scope=QUEUE, keep_s=0)), await yard.create("plain")
    expected = replace(DEFAULT_TERMS, ttl_scope=QUEUE, keep_s=0)
    assert (expected, DEFAULT_TERMS) == (yard.endpoints.terms(own.id), yard.endpoints.terms(plain.id))

    platform = JobTerms(retention_s=5, keep_s=9)
    restarted = yard.restarted(platform)
    await restarted.load()
    assert (replace(platform, ttl_scope=QUEUE, keep_s=0), platform) == (
        restarted.terms(own.id),
        restarted.terms(plain.id),
    )


async def test_terms_change_one_by_one_without_a_release_and_none_is_the_platforms_again(yard: Yard) -> None:
    was = await yard.create(terms=OwnTerms(ttl_scope=QUEUE, keep_s=5))
    now = await yard.endpoints.update(was.id, EndpointChange(terms={"keep_s": 6, "attempts_max": 1}))

    assert OwnTerms(ttl_scope=QUEUE, keep_s=6, attempts_max=1) == now.terms
    assert (was.release, 2) == (now.release, now.generation)
    assert (6, 1) == (yard.endpoints.terms(was.id).keep_s, yard.endpoints.terms(was.id).attempts_max)
    reset = EndpointChange(terms={"keep_s": None, "attempts_max": None, "ttl_scope": None})
    assert NO_OWN_TERMS == (await yard.endpoints.update(was.id, reset)).terms
    assert DEFAULT_TERMS == yard.endpoints.terms(was.id)
    assert 3 == (await yard.endpoints.update(was.id, reset)).generation, "what changes nothing is no edit"
    with pytest.raises(BadRequest, match="keep_s must be"):
        await yard.endpoints.update(was.id, EndpointChange(terms={"keep_s": -1}))


async def test_jobs_of_an_endpoint_that_is_gone_have_the_platforms_terms(yard: Yard) -> None:
    endpoint = await yard.create(terms=OwnTerms(keep_s=5))
    await yard.endpoints.delete(endpoint.id)

    assert DEFAULT_TERMS == yard.endpoints.terms(endpoint.id)
