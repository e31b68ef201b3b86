import base64
import json

import pytest

from runyard.adapters.docker.credentials import login_to
from runyard.domain.errors import ImageFailed, NotFound
from runyard.domain.secret import Credential


async def credentials(id: str) -> Credential:
    if id == "gone":
        raise NotFound("no such credential")
    server = {"any": None, "hub": "https://index.docker.io/v1/"}.get(id, "registry.example.com")
    return Credential(username="tester", password="hush", server=server)


async def test_a_login_tells_its_password_to_the_registry_alone() -> None:
    login = await login_to("registry.example.com/app:1", "ours", credentials)

    assert login is not None
    said = json.loads(base64.urlsafe_b64decode(login.headers["X-Registry-Auth"]))
    assert {"username": "tester", "password": "hush", "serveraddress": "registry.example.com"} == said
    assert "Login(id='ours')" == repr(login)


@pytest.mark.parametrize(("image", "id"), [("python", "hub"), ("ghcr.io/a/b", "any")])
async def test_a_credential_suits_its_registry_or_any(image: str, id: str) -> None:
    assert None is not await login_to(image, id, credentials)


async def test_without_a_credential_nobody_in_particular_pulls() -> None:
    assert None is await login_to("python", None, credentials)


@pytest.mark.parametrize(
    ("image", "id", "words"),
    [
        ("ghcr.io/a/b", "ours", "ours is for registry.example.com, and ghcr.io/a/b comes from ghcr.io"),
        ("ghcr.io/a/b", "gone", "gone that is to pull ghcr.io/a/b does not exist"),
    ],
)
async def test_a_credential_that_does_not_suit_is_named(image: str, id: str, words: str) -> None:
    with pytest.raises(ImageFailed, match=words) as raised:
        await login_to(image, id, credentials)

    assert "registry_denied" == raised.value.code
    assert "hush" not in raised.value.message
