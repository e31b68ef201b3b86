"""What every `SecretStore` promises."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.adapters.stores.secrets import MemorySecrets, SqliteSecrets
from runyard.domain.errors import Conflict, SecretUnreadable
from runyard.domain.secret import Registry, RegistryId, Secret
from runyard.ports.secrets import SecretStore
from tests.builders import START


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SecretStore]:
    store = MemorySecrets() if request.param == "memory" else SqliteSecrets(tmp_path / "data" / "runyard.db")
    yield store
    await store.close()


def a_registry(id: str = "one", **changes: object) -> Registry:
    values = {"name": f"named {id}", "server": "ghcr.io", "sealed": b"user of " + id.encode(), "created_at": START}
    return Registry(id=RegistryId(id), **values | changes)


async def test_a_secret_comes_back_as_it_was_kept(store: SecretStore) -> None:
    kept = await store.set_secret("hf", b"sealed \0\xff", START, keep_former=False)

    assert Secret(name="hf", sealed=b"sealed \0\xff", created_at=START, updated_at=START) == kept
    assert [kept] == await store.secrets()


async def test_secrets_come_by_name(store: SecretStore) -> None:
    for name in ("b", "C", "a", "A"):
        await store.set_secret(name, b"sealed", START, keep_former=False)

    assert ["A", "C", "a", "b"] == [secret.name for secret in await store.secrets()]


async def test_setting_one_again_replaces_its_value_alone(store: SecretStore) -> None:
    other = await store.set_secret("other", b"other", START, keep_former=False)
    await store.set_secret("hf", b"first", START, keep_former=False)
    again = await store.set_secret("hf", b"second", START + 5, keep_former=False)

    assert Secret(name="hf", sealed=b"second", created_at=START, updated_at=START + 5) == again
    assert [again, other] == await store.secrets()
    assert [] == await store.former_secrets()


async def test_values_that_are_to_be_kept_are_until_they_are_forgotten(store: SecretStore) -> None:
    for number in range(3):
        await store.set_secret("hf", b"value %d" % number, START + number, keep_former=True)
    assert await store.delete_secret("hf", START + 9, keep_former=True)
    former = await store.former_secrets()

    assert [(b"value 0", START + 1), (b"value 1", START + 2), (b"value 2", START + 9)] == [
        (secret.sealed, secret.replaced_at) for secret in former
    ]
    assert {"hf"} == {secret.name for secret in former}
    await store.forget_former([former[0].id, former[2].id, 12345])
    assert [former[1]] == await store.former_secrets()
    await store.forget_former([])
    assert [former[1]] == await store.former_secrets()


async def test_a_deleted_secret_is_gone_and_was_there_once(store: SecretStore) -> None:
    await store.set_secret("hf", b"sealed", START, keep_former=False)
    await store.set_secret("other", b"sealed", START, keep_former=False)

    assert await store.delete_secret("hf", START, keep_former=False)
    assert not await store.delete_secret("hf", START, keep_former=True)
    assert (["other"], []) == ([secret.name for secret in await store.secrets()], await store.former_secrets())


async def test_registries_come_back_oldest_first(store: SecretStore) -> None:
    registries = [a_registry("b"), a_registry("c", server=None), a_registry("a", created_at=START + 1)]
    for registry in reversed(registries):
        await store.add_registry(registry)

    assert registries == await store.registries()


@pytest.mark.parametrize("changes", [{"id": "one"}, {"name": "named one"}], ids=["id", "name"])
async def test_an_id_and_a_name_are_given_once(store: SecretStore, changes: dict[str, str]) -> None:
    await store.add_registry(a_registry("one"))

    with pytest.raises(Conflict, match="exists already"):
        await store.add_registry(a_registry(**{"id": "two", "name": "another"} | changes))
    assert [a_registry("one")] == await store.registries()


async def test_a_deleted_registry_is_gone_and_its_name_is_free(store: SecretStore) -> None:
    await store.add_registry(a_registry("one"))

    assert await store.delete_registry(RegistryId("one"))
    assert not await store.delete_registry(RegistryId("one"))
    await store.add_registry(a_registry("two", name="named one"))
    assert ["two"] == [registry.id for registry in await store.registries()]


async def a_full_store(store: SecretStore) -> list[object]:
    await store.set_secret("hf", b"former", START, keep_former=False)
    await store.set_secret("hf", b"now", START, keep_former=True)
    await store.set_secret("pw", b"pw", START, keep_former=False)
    await store.add_registry(a_registry())
    return await everything(store)


async def everything(store: SecretStore) -> list[object]:
    return [*await store.secrets(), *await store.former_secrets(), *await store.registries()]


async def test_all_is_sealed_anew(store: SecretStore) -> None:
    before = await a_full_store(store)
    await store.reseal(bytes.upper)

    assert [replace(one, sealed=one.sealed.upper()) for one in before] == await everything(store)


@pytest.mark.parametrize("fails_at", [b"now", b"pw", b"former", b"user of one"])
async def test_all_is_sealed_anew_or_nothing(store: SecretStore, fails_at: bytes) -> None:
    before = await a_full_store(store)

    def again(sealed: bytes) -> bytes:
        if sealed == fails_at:
            raise SecretUnreadable("no key opens it")
        return sealed.upper()

    with pytest.raises(SecretUnreadable):
        await store.reseal(again)
    assert before == await everything(store)


async def test_sqlite_keeps_them_over_its_own_end(tmp_path: Path) -> None:
    first = SqliteSecrets(tmp_path / "runyard.db")
    before = await a_full_store(first)
    await first.close()
    second = SqliteSecrets(tmp_path / "runyard.db")

    assert before == await everything(second)
    await second.close()
