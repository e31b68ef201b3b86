"""`/v2/bundles` and `/v2/keys`: our own routes of the control plane."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from tests.component.control_plane import ControlPlane


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        yield plane


async def test_a_bundle_is_uploaded_once(plane: ControlPlane) -> None:
    data = b"x" * 4096
    digest = hashlib.sha256(data).hexdigest()
    path = f"/v2/bundles/{digest}"
    before = await plane.client.head(path)
    first = await plane.client.put(path, content=data)
    second = await plane.client.put(path, content=b"never read")

    assert (before.status_code, first.status_code, second.status_code) == (404, 201, 200)
    assert first.json() == second.json() == {"sha256": digest}
    assert (await plane.client.head(path)).status_code == 200
    assert plane.blobs.kept[digest] == data


async def test_a_bundle_that_is_too_large_or_another_is_refused(plane: ControlPlane) -> None:
    async def undeclared() -> AsyncIterator[bytes]:
        yield b"x" * 4097

    path = f"/v2/bundles/{'0' * 64}"
    declared = await plane.client.put(path, content=b"x" * 4097)
    streamed = await plane.client.put(path, content=undeclared())
    other = await plane.client.put(path, content=b"x")

    assert [reply.status_code for reply in (declared, streamed, other)] == [413, 413, 400]
    assert declared.json()["title"] == "Content Too Large"
    assert "0" * 64 not in plane.blobs.kept


@pytest.mark.parametrize("digest", ["x", "0" * 63, "A" * 64, "%00" * 64, "0" * 63 + "%0a"])
async def test_a_bundle_is_named_by_its_digest(plane: ControlPlane, digest: str) -> None:
    assert (await plane.client.put(f"/v2/bundles/{digest}", content=b"")).status_code == 400
    assert (await plane.client.head(f"/v2/bundles/{digest}")).status_code == 400


async def test_a_key_is_made_shown_once_and_revoked(plane: ControlPlane) -> None:
    made = await plane.client.post("/v2/keys", json={"name": "ci"})
    key = made.json()
    headers = {"Authorization": key["key"]}
    listed = (await plane.stranger.get("/v2/keys", headers=headers)).json()["keys"]

    assert made.status_code == 201
    assert listed[1] == {"id": key["id"], "name": "ci", "createdAt": "2027-01-15T08:00:00.000Z"}
    assert [entry["name"] for entry in listed] == ["test", "ci"]

    revoked = await plane.client.delete(f"/v2/keys/{key['id']}")
    assert (revoked.status_code, revoked.content) == (204, b"")
    assert (await plane.stranger.get("/v2/keys", headers=headers)).status_code == 401
    assert (await plane.client.delete(f"/v2/keys/{key['id']}")).status_code == 404
