"""Secrets over memory adapters: who gets which value, and what is kept of those that were."""

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runyard.adapters.stores.secrets import MemorySecrets
from runyard.adapters.vault import MemoryVault
from runyard.domain.endpoint import Endpoint
from runyard.domain.errors import BadRequest, Conflict, NotFound, SecretMissing, SecretUnreadable, TooBusy
from runyard.domain.job import EndpointId
from runyard.domain.secret import FORMER_MAX, REGISTRIES_MAX, SECRETS_MAX, Credential, RegistryId
from runyard.domain.worker import Worker
from runyard.services.redaction import WITHHELD, Redaction
from runyard.services.registries import Registries
from runyard.services.secrets import Secrets
from tests.builders import ENDPOINT, START, a_release, a_worker, an_endpoint
from tests.control_doubles import CountingIds, SetClock

ENV = (("PLAIN", "text"), ("TOKEN", "Bearer {{ RUNPOD_SECRET_hf }}"))
RELEASE = a_release(env=ENV)


class FullVault(MemoryVault):
    """Its keys cannot be written while `full`."""

    full = False

    async def drop_old_keys(self) -> None:
        if self.full:
            raise TooBusy("no space left")
        await super().drop_old_keys()


class SlowVault(FullVault):
    """What it has sealed is given when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.has_sealed, self.go_on = asyncio.Event(), asyncio.Event()

    async def seal(self, value: str) -> bytes:
        sealed = await super().seal(value)
        self.has_sealed.set()
        await self.go_on.wait()
        return sealed


@dataclass
class Safe:
    """What outlives a process, and the services of the present one."""

    store: MemorySecrets = field(default_factory=MemorySecrets)
    vault: FullVault = field(default_factory=FullVault)
    clock: SetClock = field(default_factory=SetClock)
    endpoints: list[Endpoint] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.secrets = Secrets(self.store, self.vault, self, lambda: self.workers, self.clock)
        self.secrets.changed = self._note
        self.redaction = Redaction(self.secrets)
        self.registries = Registries(
            self.store, self.vault, self.clock, CountingIds(), used_by=lambda registry_id: self.users
        )

    def _note(self) -> None:
        self.changes += 1

    def list(self) -> list[Endpoint]:
        return self.endpoints

    def lose_keys(self) -> None:
        self.vault = FullVault()
        self.restart()

    def worker(self, id: str = "worker-1", **changes: object) -> Worker:
        """One that is alive, started now."""
        worker = a_worker(id, **{"release": RELEASE, "created_at": self.clock.at} | changes)
        self.workers.append(worker)
        return worker

    async def end(self, worker: Worker) -> None:
        self.workers.remove(worker)
        await self.redaction.ended(worker)

    async def former_values(self) -> Any:
        return [await self.vault.open(former.sealed) for former in await self.store.former_secrets()]


@pytest.fixture
def safe() -> Safe:
    return Safe()


# --- Setting, listing and deleting


async def test_a_secret_is_kept_sealed_and_listed_by_name_and_times(safe: Safe) -> None:
    first, new = await safe.secrets.set("hf", "hf_abcdef")
    safe.clock.at += 60
    second, newer = await safe.secrets.set("hf", "hf_ghijkl")
    await safe.secrets.set("a", "b")

    assert (True, False) == (new, newer)
    assert (START, START, START, START + 60) == (
        first.created_at, first.updated_at, second.created_at, second.updated_at,
    )  # fmt: skip
    assert ["a", "hf"] == [secret.name for secret in await safe.secrets.list()]
    assert not [secret for secret in await safe.secrets.list() if b"hf_" in secret.sealed]
    assert 3 == safe.changes


@pytest.mark.parametrize(("name", "value"), [("a b", "value"), ("", "value"), ("hf", ""), ("hf", "x\0")])
async def test_what_cannot_be_a_secret_is_refused(safe: Safe, name: str, value: str) -> None:
    with pytest.raises(BadRequest):
        await safe.secrets.set(name, value)
    assert ([], 0, 0) == (await safe.secrets.list(), safe.changes, await safe.vault.key_count())


async def test_there_are_so_many_secrets_and_no_more(safe: Safe) -> None:
    for number in range(SECRETS_MAX):
        await safe.store.set_secret(f"s{number}", b"sealed", START, keep_former=False)

    with pytest.raises(Conflict, match=f"{SECRETS_MAX} secrets"):
        await safe.secrets.set("one-more", "value")
    await safe.secrets.set("s1", "value")


async def test_a_secret_that_an_endpoint_names_is_not_deleted(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    safe.endpoints = [an_endpoint("e1", name="speech", release=RELEASE), an_endpoint("e2", name="other")]

    with pytest.raises(Conflict, match="'hf' is in the environment of endpoint speech: "):
        await safe.secrets.delete("hf")
    safe.endpoints = []
    await safe.secrets.delete("hf")
    with pytest.raises(NotFound, match="'hf'"):
        await safe.secrets.delete("hf")


async def test_a_secret_that_is_named_and_not_there_cannot_be_deleted(safe: Safe) -> None:
    safe.endpoints = [an_endpoint("e1", name="speech", release=RELEASE)]

    with pytest.raises(NotFound, match="there is no secret 'hf'"):
        await safe.secrets.delete("hf")


# --- What workers get


@pytest.mark.row("F115")
async def test_a_worker_gets_the_values_that_its_environment_names(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    await safe.secrets.set("unused", "nobody asks")

    assert {"PLAIN": "text", "TOKEN": "Bearer hf_abcdef"} == await safe.redaction.environment(safe.worker())
    await safe.secrets.set("hf", "hf_ghijkl")
    assert {"PLAIN": "text", "TOKEN": "Bearer hf_ghijkl"} == await safe.redaction.environment(safe.worker("worker-2"))


@pytest.mark.row("F115")
async def test_a_secret_that_is_missing_is_named_with_its_variable(safe: Safe) -> None:
    with pytest.raises(SecretMissing, match=r"no secret 'hf', .* TOKEN .*runyard secrets set hf") as missing:
        await safe.redaction.environment(safe.worker())

    assert ("hf", "TOKEN", "secret_missing") == (missing.value.secret, missing.value.variable, missing.value.code)


async def test_who_names_no_secret_needs_no_key(safe: Safe) -> None:
    worker = safe.worker(release=a_release(env=(("A", "{{ secret }}"),)))

    assert {"A": "{{ secret }}"} == await safe.redaction.environment(worker)
    await safe.redaction.adopt(worker)
    await safe.redaction.ended(worker)
    assert 0 == await safe.vault.key_count()


async def test_a_lost_key_stops_only_who_needs_it(safe: Safe, caplog: pytest.LogCaptureFixture) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    await safe.registries.create("hub", "me", "hunter22")
    safe.lose_keys()
    with caplog.at_level(logging.WARNING):
        await safe.secrets.load()

    [said] = caplog.messages
    assert said.startswith(
        "secret 'hf', registry credential 'hub' cannot be read: memory is missing; bring back the key"
    )
    with pytest.raises(
        SecretUnreadable, match="secret 'hf' cannot be read: memory is missing; bring back the key file"
    ):
        await safe.redaction.environment(safe.worker())
    with pytest.raises(SecretUnreadable, match="registry credential 'hub' cannot be read"):
        await safe.registries.credential("registry-1")
    with pytest.raises(SecretUnreadable, match="'hf', registry credential 'hub'"):
        await safe.secrets.rotate()
    assert 0 == await safe.vault.key_count(), "and no key was made"
    await safe.secrets.set("hf", "anew")
    assert {"PLAIN": "text", "TOKEN": "Bearer anew"} == await safe.redaction.environment(safe.worker())


# --- Redaction


def said(safe: Safe, line: str) -> str:
    return safe.redaction.redact(ENDPOINT, line)


@pytest.mark.row("F115")
async def test_lines_of_the_endpoint_are_redacted_from_the_start_of_a_worker_to_its_end(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    worker, other = safe.worker(), safe.worker("worker-2")
    assert "hf_abcdef" == said(safe, "hf_abcdef")
    await safe.redaction.environment(worker)
    await safe.redaction.environment(other)

    assert "=[secret hf]" == said(safe, "=hf_abcdef")
    assert "hf_abcdef" == safe.redaction.redact(EndpointId("other"), "hf_abcdef")
    await safe.end(worker)
    assert "=[secret hf]" == said(safe, "=hf_abcdef")
    await safe.end(other)
    assert "hf_abcdef" == said(safe, "hf_abcdef"), "and nothing is kept of it"


async def test_builders_do_not_show_it_either(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    builder = safe.worker("build-1")
    await safe.redaction.begin(builder.id, RELEASE)

    assert "[secret hf]" == said(safe, "hf_abcdef")
    safe.redaction.end(builder.id, RELEASE)
    assert "hf_abcdef" == said(safe, "hf_abcdef")


async def test_old_and_new_value_are_redacted_while_a_worker_has_the_old_one(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    old = safe.worker()
    await safe.redaction.environment(old)
    safe.clock.at += 1
    await safe.secrets.set("hf", "hf_ghijkl")
    safe.clock.at += 1
    new = safe.worker("worker-2")
    await safe.redaction.environment(new)

    assert "[secret hf] [secret hf]" == said(safe, "hf_abcdef hf_ghijkl")
    assert ["hf_abcdef"] == await safe.former_values()
    safe.restart()
    await safe.redaction.adopt(old)
    assert "[secret hf] [secret hf]" == said(safe, "hf_abcdef hf_ghijkl"), "nor when another process has adopted it"
    await safe.redaction.adopt(new)
    await safe.end(old)
    assert [] == await safe.former_values(), "no worker has it any more"


async def test_a_deleted_value_is_redacted_while_a_worker_has_it(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    worker = safe.worker()
    await safe.redaction.environment(worker)
    await safe.secrets.delete("hf")
    safe.restart()
    await safe.redaction.adopt(worker)

    assert "[secret hf]" == said(safe, "hf_abcdef")
    await safe.end(worker)
    assert [] == await safe.former_values()


async def test_a_value_that_no_worker_has_is_not_kept(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    safe.worker(release=a_release(env=(("A", "{{ RUNPOD_SECRET_other }}"),)))
    await safe.secrets.set("hf", "hf_ghijkl")
    await safe.secrets.delete("hf")

    assert [] == await safe.former_values()


async def test_setting_the_value_that_is_there_keeps_nothing(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    safe.worker()
    await safe.secrets.set("hf", "hf_abcdef")

    assert [] == await safe.former_values()


async def test_former_values_are_bounded(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    worker = safe.worker()
    for number in range(FORMER_MAX):
        await safe.secrets.set("hf", f"value {number}")

    with pytest.raises(Conflict, match=f"'hf' was changed {FORMER_MAX} times"):
        await safe.secrets.set("hf", "one more")
    with pytest.raises(Conflict, match=f"'hf' was changed {FORMER_MAX} times"):
        await safe.secrets.delete("hf")
    await safe.end(worker)
    await safe.secrets.set("hf", "one more")


async def test_what_an_adopted_worker_says_is_withheld_when_its_values_cannot_be_known(safe: Safe) -> None:
    await safe.secrets.set("hf", "hf_abcdef")
    worker = safe.worker()
    safe.lose_keys()
    await safe.redaction.adopt(worker)

    assert WITHHELD == safe.redaction.said(worker.id, "hf_abcdef")
    assert "hello" == safe.redaction.said(safe.worker("worker-2").id, "hello")
    await safe.end(worker)
    assert "hello" == safe.redaction.said(worker.id, "hello")


# --- Rotation


async def filled(safe: Safe) -> Worker:
    await safe.secrets.set("hf", "hf_abcdef")
    worker = safe.worker()
    await safe.secrets.set("hf", "hf_ghijkl")
    await safe.registries.create("hub", "me", "hunter22", "ghcr.io")
    return worker


async def whole(safe: Safe) -> bool:
    """Whether all is there, with one key."""
    values = await safe.secrets.ever(ENV)
    credential = await safe.registries.credential((await safe.registries.list())[0].id)
    expected = Credential(username="me", password="hunter22", server="ghcr.io")
    return ([("hf", "hf_ghijkl"), ("hf", "hf_abcdef")], expected, 1) == (
        values,
        credential,
        await safe.vault.key_count(),
    )


async def test_after_a_rotation_the_old_key_opens_nothing(safe: Safe) -> None:
    await filled(safe)
    before = [one.sealed for one in (*await safe.store.secrets(), *await safe.store.former_secrets())]

    assert (1, 1) == await safe.secrets.rotate()
    assert await whole(safe)
    for sealed in before:
        with pytest.raises(SecretUnreadable):
            await safe.vault.open(sealed)


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_rotation_that_was_cut_is_finished_by_the_next_start(safe: Safe, steps: int) -> None:
    await filled(safe)
    reseal = await safe.vault.add_key()
    if steps == 2:
        await safe.store.reseal(reseal)
    safe.restart()
    await safe.secrets.load()

    assert await whole(safe)


async def test_a_start_that_cannot_finish_it_goes_on_with_both_keys(
    safe: Safe, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(safe)
    await safe.vault.add_key()
    safe.vault.full = True
    await safe.secrets.load()

    assert ["a rotation of the key of secrets is not finished: no space left"] == caplog.messages
    assert 2 == await safe.vault.key_count()
    assert {"hf": "hf_ghijkl"} == await safe.secrets.values(ENV)
    safe.vault.full = False
    assert (1, 1) == await safe.secrets.rotate()
    assert await whole(safe)


async def test_a_start_drops_no_key_while_something_cannot_be_read(safe: Safe) -> None:
    await filled(safe)
    await safe.vault.add_key()
    await safe.store.set_secret("spoilt", b"no token", START, keep_former=False)
    await safe.secrets.load()

    assert 2 == await safe.vault.key_count()


@pytest.mark.parametrize("what", ["secret", "registry"])
async def test_a_rotation_waits_for_what_is_being_kept(safe: Safe, what: str) -> None:
    vault = safe.vault = SlowVault()
    safe.restart()
    keep = {
        "secret": lambda: safe.secrets.set("hf", "hf_abcdef"),
        "registry": lambda: safe.registries.create("hub", "me", "hunter22"),
    }
    keeping = asyncio.create_task(keep[what]())
    await vault.has_sealed.wait()
    rotating = asyncio.create_task(safe.secrets.rotate())
    await asyncio.wait([rotating], timeout=0.1)
    vault.go_on.set()
    await asyncio.gather(keeping, rotating)

    assert 1 == await vault.key_count()
    for one in (*await safe.store.secrets(), *await safe.store.registries()):
        await vault.open(one.sealed)


# --- Registries


@pytest.mark.parametrize(("server", "kept"), [(None, None), ("GHCR.io", "ghcr.io")])
async def test_a_credential_comes_back_to_who_pulls(safe: Safe, server: str | None, kept: str | None) -> None:
    made = await safe.registries.create("hub", "me", 'hun"ter:22', server)
    credential = await safe.registries.credential(made.id)

    assert Credential(username="me", password='hun"ter:22', server=kept) == credential
    assert [made] == await safe.registries.list() == [await safe.registries.get(made.id)]
    assert not [word for word in ("me'", "hun") if word in repr(made) + repr(credential)]
    await safe.registries.check(made.id)


async def test_a_credential_that_is_not_there_is_missed(safe: Safe) -> None:
    for work in (safe.registries.get("gone"), safe.registries.credential("gone"), safe.registries.delete("gone")):
        with pytest.raises(NotFound, match="'gone'"):
            await work
    with pytest.raises(BadRequest, match="registry: there is no registry credential 'gone'"):
        await safe.registries.check("gone")


async def test_a_credential_in_use_is_not_deleted(safe: Safe) -> None:
    made = await safe.registries.create("hub", "me", "hunter22")
    safe.users = ["speech"]
    with pytest.raises(BadRequest, match=f"{made.id} pulls the images of endpoint speech"):
        await safe.registries.delete(made.id)
    safe.users = []
    await safe.registries.delete(made.id)

    assert [] == await safe.registries.list()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"username": ""},
        {"username": "a:b"},
        {"password": ""},
        {"password": "\0"},
        {"server": "https://x"},
    ],
    ids=lambda wrong: "-".join(f"{name}={value!r}" for name, value in wrong.items()),
)
async def test_what_cannot_be_a_credential_is_refused(safe: Safe, wrong: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        await safe.registries.create(**{"name": "hub", "username": "me", "password": "hunter22"} | wrong)
    assert [] == await safe.registries.list()


async def test_there_are_so_many_credentials_and_names_are_given_once(safe: Safe) -> None:
    made = await safe.registries.create("hub", "me", "hunter22")
    with pytest.raises(Conflict, match="named 'hub'"):
        await safe.registries.create("hub", "you", "other")
    for number in range(REGISTRIES_MAX - 1):
        await safe.store.add_registry(replace(made, id=RegistryId(f"r{number}"), name=f"name {number}"))

    with pytest.raises(Conflict, match=f"{REGISTRIES_MAX} registry"):
        await safe.registries.create("one more", "me", "hunter22")
