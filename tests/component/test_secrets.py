"""Secrets and registries as clients of the control plane see them (contract E.1, G.2)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.builders import a_release, a_worker
from tests.component.control_plane import ControlPlane

VALUE = "hf_not-to-be-seen"
AT = "2027-01-15T08:00:00.000Z"


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        yield plane


async def a_registry(plane: ControlPlane, **changes: Any) -> Any:
    body = {"name": "hub", "username": "bearer", "password": VALUE} | changes
    return await plane.client.post("/v2/registries", json=body)


# --- Secrets


@pytest.mark.row("F115")
async def test_a_secret_is_set_listed_and_deleted_and_never_shown(plane: ControlPlane) -> None:
    first = await plane.client.put("/v2/secrets/hf", json={"value": VALUE})
    plane.clock.at += 60
    second = await plane.client.put("/v2/secrets/hf", json={"value": VALUE + "2"})
    listed = await plane.client.get("/v2/secrets")
    shown = {"name": "hf", "createdAt": AT, "updatedAt": "2027-01-15T08:01:00.000Z"}

    assert (201, {"name": "hf", "createdAt": AT, "updatedAt": AT}) == (first.status_code, first.json())
    assert (200, shown) == (second.status_code, second.json())
    assert {"secrets": [shown]} == listed.json()
    assert 405 == (await plane.client.get("/v2/secrets/hf")).status_code, "there is no way to see it"
    deleted = await plane.client.delete("/v2/secrets/hf")
    assert (204, b"") == (deleted.status_code, deleted.content)
    assert 404 == (await plane.client.delete("/v2/secrets/hf")).status_code


@pytest.mark.parametrize("name", ["run", "status", "health", "requests", "rotate", "openai", "a.b-c"])
async def test_a_secret_may_have_any_name_that_fits(plane: ControlPlane, name: str) -> None:
    assert 201 == (await plane.client.put(f"/v2/secrets/{name}", json={"value": VALUE})).status_code
    assert [name] == [secret["name"] for secret in (await plane.client.get("/v2/secrets")).json()["secrets"]]
    assert 204 == (await plane.client.delete(f"/v2/secrets/{name}")).status_code


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("a%20b", {"value": VALUE}, 400),
        ("a%00", {"value": VALUE}, 400),
        ("x" * 129, {"value": VALUE}, 400),
        ("hf", {"value": VALUE + "\0"}, 400),
        ("hf", {"value": VALUE * 10_000}, 400),
        ("hf", {"value": ""}, 422),
        ("hf", {"value": [VALUE]}, 422),
        ("hf", {}, 422),
        ("hf", {"value": VALUE, "more": VALUE}, 422),
        ("hf", VALUE, 422),
    ],
    ids=["blank", "nul", "long", "nul-in-value", "large", "empty", "list", "nothing", "more", "text"],
)
async def test_what_is_refused_is_not_told_back(plane: ControlPlane, name: str, body: Any, status: int) -> None:
    reply = await plane.client.put(f"/v2/secrets/{name}", json=body)

    assert status == reply.status_code, reply.text
    assert "application/problem+json" == reply.headers["content-type"]
    assert VALUE not in reply.text
    assert {"secrets": []} == (await plane.client.get("/v2/secrets")).json()


@pytest.mark.parametrize("body", [b'{"value": "' + VALUE.encode(), b'{"value": "\xff' + VALUE.encode() + b'"}', b""])
async def test_a_broken_body_is_not_told_back(plane: ControlPlane, body: bytes) -> None:
    reply = await plane.client.put("/v2/secrets/hf", content=body)

    assert 400 == reply.status_code
    assert VALUE not in reply.text


async def test_a_secret_in_use_is_not_deleted(plane: ControlPlane) -> None:
    await plane.client.put("/v2/secrets/hf", json={"value": VALUE})
    endpoint = await plane.create(env={"TOKEN": "{{ RUNPOD_SECRET_hf }}"})
    refused = await plane.client.delete("/v2/secrets/hf")

    assert (409, True) == (refused.status_code, "endpoint hello" in refused.json()["detail"])
    await plane.update(endpoint["id"], env={})
    assert 204 == (await plane.client.delete("/v2/secrets/hf")).status_code


@pytest.mark.row("F115")
async def test_an_endpoint_shows_the_name_and_not_the_value(plane: ControlPlane) -> None:
    await plane.client.put("/v2/secrets/hf", json={"value": VALUE})
    endpoint = await plane.create(env={"TOKEN": "{{ RUNPOD_SECRET_hf }}"})
    updated = await plane.update(endpoint["id"], env={"TOKEN": "{{RUNPOD_SECRET_hf}}"})
    releases = await plane.client.get(f"/v2/serverless/{endpoint['id']}/releases")

    assert {"TOKEN": "{{RUNPOD_SECRET_hf}}"} == updated["env"]
    assert not [text for text in (str(endpoint), str(updated), releases.text) if VALUE in text]


async def test_the_key_is_rotated(plane: ControlPlane) -> None:
    await plane.client.put("/v2/secrets/hf", json={"value": VALUE})
    await a_registry(plane)
    before = await plane.secret_store.secrets()
    rotated = await plane.client.post("/v2/secrets/rotate")

    assert (200, {"secrets": 1, "registries": 1}) == (rotated.status_code, rotated.json())
    assert before != await plane.secret_store.secrets()


async def test_a_key_that_opens_not_all_is_not_rotated(plane: ControlPlane) -> None:
    await plane.secret_store.set_secret("hf", b"of another platform", plane.clock.at, keep_former=False)
    await plane.client.put("/v2/secrets/other", json={"value": VALUE})
    refused = await plane.client.post("/v2/secrets/rotate")

    assert (409, True) == (refused.status_code, "secret 'hf' cannot be read" in refused.json()["detail"])


async def test_a_former_value_that_a_worker_has_bounds_what_can_be_set(plane: ControlPlane) -> None:
    plane.workers_alive.append(a_worker(release=a_release(env=(("A", "{{ RUNPOD_SECRET_hf }}"),))))
    statuses = [
        (await plane.client.put("/v2/secrets/hf", json={"value": f"{VALUE}{n}"})).status_code for n in range(102)
    ]

    assert [201, *[200] * 100, 409] == statuses


async def test_secrets_are_no_endpoint_and_need_a_key(plane: ControlPlane) -> None:
    for method, path in (("GET", "/v2/secrets"), ("PUT", "/v2/secrets/hf"), ("POST", "/v2/secrets/rotate")):
        assert 401 == (await plane.stranger.request(method, path, json={"value": VALUE})).status_code
    assert 404 == (await plane.client.get("/v2/secrets/hf/run")).status_code


# --- Registries


async def test_a_registry_has_the_documented_shape(plane: ControlPlane) -> None:
    made = await a_registry(plane)
    id = made.json()["id"]
    shown = {"id": id, "name": "hub", "runyard": {"server": None, "createdAt": AT}}

    assert (201, shown) == (made.status_code, made.json())
    assert {"registries": [shown]} == (await plane.client.get("/v2/registries")).json()
    assert shown == (await plane.client.get(f"/v2/registries/{id}")).json()
    deleted = await plane.client.delete(f"/v2/registries/{id}")
    assert (204, b"") == (deleted.status_code, deleted.content)
    for gone in (await plane.client.get(f"/v2/registries/{id}"), await plane.client.delete(f"/v2/registries/{id}")):
        assert (404, "Not Found") == (gone.status_code, gone.json()["title"])


async def test_a_registry_may_be_bound_to_a_server(plane: ControlPlane) -> None:
    made = (await a_registry(plane, runyard={"server": "localhost:5000"})).json()

    assert "localhost:5000" == made["runyard"]["server"]
    assert "localhost:5000" == (await plane.registries.credential(made["id"])).server
    assert 201 == (await a_registry(plane, name="any", runyard={"server": None})).status_code


async def test_a_registry_in_use_is_not_deleted(plane: ControlPlane) -> None:
    id = (await a_registry(plane)).json()["id"]
    plane.registry_users.append("hello")
    refused = await plane.client.delete(f"/v2/registries/{id}")

    assert (400, True) == (refused.status_code, "hello" in refused.json()["detail"])


async def test_two_registries_have_two_names(plane: ControlPlane) -> None:
    await a_registry(plane)

    assert 409 == (await a_registry(plane)).status_code


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": ""}, 422),
        ({"username": ""}, 422),
        ({"password": ""}, 422),
        ({"password": None}, 422),
        ({"email": VALUE}, 422),
        ({"runyard": {"server": "https://ghcr.io/v2"}}, 400),
        ({"runyard": {"host": "ghcr.io"}}, 422),
        ({"username": "a:b"}, 400),
        ({"name": "a\nb"}, 400),
        ({"password": "\0"}, 400),
    ],
    ids=lambda changes: str(changes).replace(VALUE, "value"),
)
async def test_a_wrong_registry_is_refused(plane: ControlPlane, changes: dict[str, Any], status: int) -> None:
    reply = await a_registry(plane, **changes)

    assert status == reply.status_code, reply.text
    assert VALUE not in reply.text
    assert {"registries": []} == (await plane.client.get("/v2/registries")).json()


async def test_delegations_are_answered_in_the_documented_shapes(plane: ControlPlane) -> None:
    base = "/v2/registries/delegations"
    listed, made, revoked = (
        await plane.client.get(base),
        await plane.client.post(base, json={"resource": "arn:aws:ecr:us-east-2:1:repository/a"}),
        await plane.client.delete(f"{base}/deleg_1"),
    )

    assert (200, {"delegations": []}) == (listed.status_code, listed.json())
    assert (400, "Bad Request") == (made.status_code, made.json()["title"])
    assert (404, "Not Found") == (revoked.status_code, revoked.json()["title"])
