"""Workers with secrets, by way of the whole platform: what they get, and what is heard of them."""

import asyncio
from typing import Any

import pytest

from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed, StartFailed
from runyard.domain.job import EndpointId
from runyard.domain.secret import VALUE_BYTES_MAX
from runyard.domain.worker import Exit
from runyard.platform import Platform
from runyard.ports.runtime import Launch, Say
from runyard.services.redaction import WITHHELD
from tests.builders import ENDPOINT, a_release, a_scaling, an_endpoint
from tests.component.test_adoption import House, a_running_job, the_worker, until

VALUE, OTHER = "hf_not-to-be-seen", "hf_another-value"
ENV = (("TOKEN", "Bearer {{ RUNPOD_SECRET_hf }}"),)
EXIT = Exit(1)


@pytest.fixture
async def house() -> House:
    """With one endpoint that has one worker, always, and names a secret."""
    house = House()
    scaling = a_scaling(workers_min=1, workers_max=1)
    await house.control.add_endpoint(an_endpoint(scaling=scaling, release=a_release(env=ENV)))
    return house


def lines(platform: Platform, worker_id: str) -> list[str]:
    return [line.line for line in platform.logs.tail(worker_id, 100)]


@pytest.mark.row("F115")
async def test_a_worker_is_launched_with_the_value_and_no_line_shows_it(house: House) -> None:
    async with house.process() as platform:
        await platform.secrets.set("hf", VALUE)
        live = await the_worker(platform)
        launch = house.runtime.running[live.id]
        house.runtime.say(live.id, f"TOKEN={VALUE}")
        house.runtime.say(live.id, f'{{"requestId": null, "message": "{VALUE}", "level": "INFO"}}')

        assert f"Bearer {VALUE}" == launch.env["TOKEN"]
        assert VALUE not in repr(launch)
        assert "TOKEN=[secret hf]" in lines(platform, live.id)
        assert VALUE not in str(lines(platform, live.id))
        assert VALUE not in str(await house.fleet.workers()), "nor does what is kept of the worker"
        assert VALUE not in b"".join(platform.logs.pack()).decode()


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ([("A", "{{ RUNPOD_SECRET_hf }}" * 2)], "env value of A is too long"),
        ([(name, "{{ RUNPOD_SECRET_hf }}") for name in "ABCDE"], None),
    ],
    ids=["one variable too long", "many that are long"],
)
async def test_values_may_be_as_long_as_a_process_can_have_them(env: list[tuple[str, str]], says: str | None) -> None:
    house = House()
    scaling = a_scaling(workers_min=1, workers_max=1)
    await house.control.add_endpoint(an_endpoint(scaling=scaling, release=a_release(env=tuple(env))))
    async with house.process() as platform:
        await platform.secrets.set("hf", "x" * VALUE_BYTES_MAX)
        failures = platform.lifecycle.failures_of
        await until(lambda: house.runtime.running or failures(platform.endpoints.get(ENDPOINT)).count)

        assert (says is None) == bool(house.runtime.running)
        assert says is None or says in failures(platform.endpoints.get(ENDPOINT)).message


async def test_what_an_attempt_leaves_as_evidence_does_not_show_it(house: House) -> None:
    async with house.process() as platform:
        await platform.secrets.set("hf", VALUE)
        live = await the_worker(platform)
        job = await a_running_job(platform, live)
        house.runtime.say(live.id, f"cannot log in with {VALUE}")
        platform.lifecycle.ailing(live, f"no login: {VALUE}")
        house.runtime.exit(live.id, EXIT)
        await until(lambda: platform.lifecycle.failures_of(platform.endpoints.get(ENDPOINT)).count > 0)
        await until(lambda: live.id not in [worker.id for worker in platform.roster.workers()])
        lost = await house.store.get(ENDPOINT, job.id)
        failures = platform.lifecycle.failures_of(platform.endpoints.get(ENDPOINT))

        assert lost is not None
        assert ("cannot log in with [secret hf]",) == lost.attempts[-1].evidence.last_lines[:1]
        assert "cannot log in with [secret hf]" in failures.message
        assert "no login: [secret hf]" == platform.roster.stopped_of(ENDPOINT)[0].unhealthy_reason
        assert VALUE not in str((lost, failures, platform.roster.stopped_of(ENDPOINT)))


@pytest.mark.row("F115")
async def test_a_start_without_its_secret_waits_for_it_and_says_so(house: House) -> None:
    async with house.process() as platform:
        endpoint = platform.endpoints.get(ENDPOINT)
        await until(lambda: platform.lifecycle.failures_of(endpoint).count >= 1)
        failures = platform.lifecycle.failures_of(endpoint)

        assert "secret_missing" == failures.code
        assert "there is no secret 'hf', and the variable TOKEN asks for it" in failures.message
        assert [] == house.runtime.launches
        await until(lambda: platform.lifecycle.failures_of(endpoint).count >= 2)
        await asyncio.sleep(0.2)  # It has been planned again, and waits for the end of its back-off.
        await platform.secrets.set("hf", VALUE)
        await asyncio.wait_for(the_worker(platform), 0.5)  # At once, not when the back-off is over.


async def test_an_adopted_worker_does_not_show_a_value_that_was_replaced_meanwhile(house: House) -> None:
    async with house.process() as first:
        await first.secrets.set("hf", VALUE)
        live = await the_worker(first)
        await first.secrets.set("hf", OTHER)
    async with house.process() as second:
        house.runtime.say(live.id, f"old {VALUE} new {OTHER}")

        assert "old [secret hf] new [secret hf]" in lines(second, live.id)
        house.runtime.exit(live.id, EXIT)
        await until(lambda: live.id not in [worker.id for worker in second.roster.workers()])
        await asyncio.sleep(0.1)
        assert [] == await house.secrets.former_secrets()


async def test_a_worker_whose_values_cannot_be_known_any_more_is_not_heard(house: House) -> None:
    async with house.process() as first:
        await first.secrets.set("hf", VALUE)
        live = await the_worker(first)
    house.vault = type(house.vault)()
    async with house.process() as second:
        house.runtime.say(live.id, VALUE)
        second.lifecycle.ailing(second.roster.get(live.id), VALUE)

        assert [WITHHELD, f"unhealthy: {WITHHELD}"] == lines(second, live.id)[-2:]


async def test_former_values_of_workers_that_ended_while_nobody_looked_are_forgotten(house: House) -> None:
    async with house.process() as first:
        await first.secrets.set("hf", VALUE)
        live = await the_worker(first)
        await first.secrets.set("hf", OTHER)
        assert 1 == len(await house.secrets.former_secrets())
    await house.fleet.forget(live.id)
    house.runtime.running.clear()
    async with house.process():
        await asyncio.sleep(0.1)
        assert [] == await house.secrets.former_secrets()


@pytest.mark.parametrize("at", ["prepare", "start"])
async def test_what_a_builder_or_an_engine_says_does_not_show_it(
    house: House, at: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def prepare(self: Any, endpoint_id: EndpointId, run: RunSpec, say: Say) -> RunSpec:
        say(f"step 1: export TOKEN={VALUE}")
        if at == "prepare":
            raise BuildFailed(f"cannot build with {VALUE}", (f"last line {VALUE}",))
        return run

    async def start(self: Any, launch: Launch) -> None:
        raise StartFailed(f"bad variable {launch.env['TOKEN']}")

    monkeypatch.setattr("runyard.adapters.runtimes.fake.FakeRuntime.prepare", prepare)
    monkeypatch.setattr("runyard.adapters.runtimes.fake.FakeRuntime.start", start)
    await house.secrets.set_secret("hf", await house.vault.seal(VALUE), 0.0, keep_former=False)
    async with house.process() as platform:
        await until(lambda: platform.lifecycle.failures_of(platform.endpoints.get(ENDPOINT)).count >= 2)
        failures = platform.lifecycle.failures_of(platform.endpoints.get(ENDPOINT))
        packed = b"".join(platform.logs.pack()).decode()

        assert "[secret hf]" in failures.message
        assert "step 1: export TOKEN=[secret hf]" in packed
        assert VALUE not in failures.message + packed + str(platform.roster.stopped_of(ENDPOINT)) + caplog.text
