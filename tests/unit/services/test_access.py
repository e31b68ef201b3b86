import os
import stat
from functools import partial
from pathlib import Path

import pytest

from runyard.adapters.files import write_secret
from runyard.adapters.stores.control_memory import MemoryControl
from runyard.adapters.system import RandomIds
from runyard.domain.errors import BadRequest, NotFound, Unauthorized
from runyard.services.access import Access
from tests.control_doubles import CountingIds, SetClock


@pytest.fixture
def control() -> MemoryControl:
    return MemoryControl()


@pytest.fixture
def access(control: MemoryControl) -> Access:
    return Access(control, SetClock(), CountingIds())


async def test_a_key_opens_bare_or_as_a_bearer_token(access: Access) -> None:
    key, secret = await access.create("ci")

    for header in (secret, f"Bearer {secret}", f"bearer {secret}", f"BEARER  {secret} ", secret.encode()):
        assert access.authenticate(header) == key


NOT_KEYS = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "rpa_unknown",
    "Bearer rpa_unknown",
    "Basic cnBhXw==",
    "é",
    b"\xff\xfe",
    "\ud800",
]


@pytest.mark.parametrize("header", NOT_KEYS, ids=ascii)
async def test_anything_else_is_refused_without_repeating_it(access: Access, header: str | bytes | None) -> None:
    await access.create("ci")

    with pytest.raises(Unauthorized) as refusal:
        access.authenticate(header)
    assert "rpa_unknown" not in str(refusal.value)


async def test_a_revoked_key_opens_nothing_also_after_a_restart(control: MemoryControl, access: Access) -> None:
    kept, kept_secret = await access.create("kept")
    revoked, revoked_secret = await access.create("revoked")
    await access.revoke(revoked.id)

    restarted = Access(control, SetClock(), CountingIds())
    await restarted.load()

    for state in (access, restarted):
        assert state.list() == [kept]
        assert state.authenticate(kept_secret) == kept
        with pytest.raises(Unauthorized):
            state.authenticate(revoked_secret)
    with pytest.raises(NotFound):
        await access.revoke(revoked.id)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 192, "\0"])
async def test_a_key_has_a_printable_name(access: Access, name: str) -> None:
    with pytest.raises(BadRequest, match="name"):
        await access.create(name)


async def test_the_secret_is_not_kept(control: MemoryControl, access: Access) -> None:
    _, secret = await access.create("ci")

    assert secret not in repr(await control.keys())


async def test_the_first_start_leaves_an_admin_key_for_its_owner_only(access: Access, tmp_path: Path) -> None:
    path = tmp_path / "data" / "admin.key"
    was = os.umask(0)
    try:
        made = await access.ensure_admin_key(partial(write_secret, path))
    finally:
        os.umask(was)

    text, mode = content_and_mode(path)
    assert made
    assert access.authenticate(text.strip()).name == "admin"
    assert mode == 0o600
    assert names_in(path.parent) == ["admin.key"]


async def test_an_admin_key_is_made_only_when_no_key_lives(
    control: MemoryControl, access: Access, tmp_path: Path
) -> None:
    path = tmp_path / "admin.key"
    await access.ensure_admin_key(partial(write_secret, path))
    first, _ = content_and_mode(path)
    again = Access(control, SetClock(), RandomIds())
    await again.load()

    assert not await again.ensure_admin_key(partial(write_secret, path))
    assert content_and_mode(path)[0] == first

    [key] = again.list()
    await again.revoke(key.id)

    assert await again.ensure_admin_key(partial(write_secret, path))
    assert content_and_mode(path)[0] != first


def content_and_mode(path: Path) -> tuple[str, int]:
    return path.read_text(), stat.S_IMODE(path.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]
