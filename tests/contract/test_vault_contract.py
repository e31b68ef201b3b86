"""What every `Vault` promises."""

import asyncio
import stat
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.fernet import Fernet

from runyard.adapters.vault import FileVault, MemoryVault
from runyard.domain.errors import SecretUnreadable, TooBusy
from runyard.ports.secrets import Vault

T = TypeVar("T")
VALUE = "hf_äbc\ndef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data/secrets.key"


@pytest.fixture(params=["memory", "file"])
def vault(request: pytest.FixtureRequest, path: Path) -> Vault:
    return MemoryVault() if request.param == "memory" else FileVault(path)


async def test_what_is_sealed_opens_and_shows_nothing(vault: Vault) -> None:
    sealed = await vault.seal(VALUE)

    assert VALUE == await vault.open(sealed)
    assert b"hf_" not in sealed
    assert sealed != await vault.seal(VALUE), "nobody sees that two secrets are the same"


async def test_it_has_no_key_until_it_seals(vault: Vault) -> None:
    assert 0 == await vault.key_count()
    with pytest.raises(SecretUnreadable, match="missing"):
        await vault.open(b"anything")
    with pytest.raises(SecretUnreadable, match="missing"):
        (await vault.resealer())(b"anything")
    assert 0 == await vault.key_count()

    await vault.seal(VALUE)
    assert 1 == await vault.key_count()


async def test_those_who_seal_first_at_once_share_the_key(vault: Vault) -> None:
    sealed = await asyncio.gather(*(vault.seal(str(number)) for number in range(20)))

    assert list(map(str, range(20))) == [await vault.open(one) for one in sealed]
    assert 1 == await vault.key_count()


@pytest.mark.parametrize("spoilt", [b"", b"no token", b"gAAAAA==", "ä".encode()])
async def test_what_it_has_not_sealed_does_not_open(vault: Vault, spoilt: bytes) -> None:
    sealed = await vault.seal(VALUE)
    # One letter in sixty-four is an A already.
    other = b"A" if sealed[20:21] != b"A" else b"B"
    for bytes_ in (spoilt, sealed[:-1], sealed[:20] + other + sealed[21:]):
        with pytest.raises(SecretUnreadable, match=r"no key in .* opens it") as refused:
            await vault.open(bytes_)
        assert "hf_" not in str(refused.value)


async def test_a_rotation_keeps_the_old_key_until_it_is_dropped(vault: Vault) -> None:
    old = await vault.seal(VALUE)
    reseal = await vault.add_key()
    new = await vault.seal("new")
    again = reseal(old)

    assert 2 == await vault.key_count()
    assert [VALUE, VALUE, "new"] == [await vault.open(one) for one in (old, again, new)]
    assert VALUE == await vault.open((await vault.resealer())(old))
    await vault.drop_old_keys()
    assert 1 == await vault.key_count()
    assert [VALUE, "new"] == [await vault.open(one) for one in (again, new)]
    with pytest.raises(SecretUnreadable):
        await vault.open(old)
    with pytest.raises(SecretUnreadable):
        (await vault.resealer())(old)
    await vault.drop_old_keys()
    assert 1 == await vault.key_count()


# --- The file


def test_the_file_is_its_owners_alone(path: Path) -> None:
    vault = FileVault(path)
    run(vault.seal(VALUE))
    run(vault.add_key())

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(path.parent.iterdir())


def test_another_process_opens_what_was_sealed(path: Path) -> None:
    sealed = run(FileVault(path).seal(VALUE))

    assert VALUE == run(FileVault(path).open(sealed))


def test_keys_that_are_brought_along_count_at_once(path: Path, tmp_path: Path) -> None:
    sealed = run(FileVault(tmp_path / "old.key").seal(VALUE))
    vault = FileVault(path)
    new = run(vault.seal("new"))
    with path.open("a") as file:
        file.write(f"# of the old machine\n\n  {(tmp_path / 'old.key').read_text()}")

    assert [VALUE, "new"] == [run(vault.open(sealed)), run(vault.open(new))]
    path.unlink()
    with pytest.raises(SecretUnreadable, match=r"secrets\.key is missing"):
        run(vault.open(sealed))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("hunter22\n", r"line 1 of .* is no key"),
        (f"{Fernet.generate_key().decode()}\nhunter22", r"line 2 of .* is no key"),
    ],
    ids=["first", "second"],
)
def test_a_file_that_holds_something_else_is_named_and_not_shown(path: Path, content: str, says: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    for work in (FileVault(path).seal(VALUE), FileVault(path).open(b""), FileVault(path).key_count()):
        with pytest.raises(SecretUnreadable, match=says) as refused:
            run(work)
        assert "hunter22" not in str(refused.value)
    assert content == path.read_text(), "and it is left as it is"


@pytest.mark.parametrize("spoil", ["folder", "bytes"])
def test_a_file_that_cannot_be_read_is_named(path: Path, spoil: str) -> None:
    path.parent.mkdir()
    path.mkdir() if spoil == "folder" else path.write_bytes(b"\xff\xfe")

    with pytest.raises(SecretUnreadable, match=r"secrets\.key cannot be read"):
        run(FileVault(path).seal(VALUE))


def test_a_key_that_cannot_be_written_seals_nothing(path: Path) -> None:
    path.parent.mkdir()
    (path.parent / f".{path.name}.new").mkdir()

    with pytest.raises(TooBusy, match=r"secrets\.key cannot be written"):
        run(FileVault(path).seal(VALUE))
    assert not path.exists()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
