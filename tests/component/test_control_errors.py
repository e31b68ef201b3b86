"""Whatever a caller sends, the control plane answers in its own words and never with a 500."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.component.control_plane import ControlPlane


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        yield plane


CONTROL = ("/v2/serverless", "/v2/serverless/x/y/z", "/v2/keys/nope/nope", "/v2/bundles", "/v2/templates")
OTHERS = ("/", "/v2", "/v2/", "/v2/some-endpoint/nothing", "/v1/endpoints", "/graphql", "/v2/serverless-x", "//v2/keys")


@pytest.mark.parametrize("path", [*CONTROL, *OTHERS], ids=ascii)
async def test_a_stranger_learns_nothing_but_that_a_key_is_needed(plane: ControlPlane, path: str) -> None:
    reply = await plane.stranger.get(path)

    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert ("title" in reply.json()) == (path in CONTROL)
    assert ("error" in reply.json()) == (path in OTHERS)


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}"])
async def test_a_key_opens_bare_or_as_a_bearer_token(plane: ControlPlane, form: str) -> None:
    reply = await plane.stranger.get("/v2/serverless", headers={"Authorization": form.format(plane.secret)})

    assert reply.status_code == 200


@pytest.mark.parametrize("path", [*CONTROL[1:], *OTHERS], ids=ascii)
async def test_an_unknown_path_is_404_in_the_form_of_its_plane(plane: ControlPlane, path: str) -> None:
    reply = await plane.client.get(path)

    assert reply.status_code == 404
    if path in CONTROL:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json() == {"title": "Not Found", "status": 404, "detail": "there is nothing at this path"}
    else:
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == {"error": "there is nothing at this path"}


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v2/serverless", "GET, HEAD, POST"),
        ("/v2/serverless/x", "DELETE, GET, HEAD, PATCH"),
        ("/v2/serverless/x/workers", "GET, HEAD"),
        ("/v2/keys/x", "DELETE"),
        (f"/v2/bundles/{'0' * 64}", "HEAD, PUT"),
        ("/healthz", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_405(plane: ControlPlane, path: str, allow: str) -> None:
    reply = await plane.client.request("OPTIONS", path)

    assert reply.status_code == 405
    assert reply.headers["allow"] == allow
    assert reply.json().get("status", 405) == 405


@pytest.mark.parametrize("path", ["/v2/serverless", "/v2/serverless/{id}", "/healthz", "/metrics"])
async def test_head_is_get_without_a_body(plane: ControlPlane, path: str) -> None:
    path = path.format(id=(await plane.create())["id"])
    reply = await plane.client.head(path)

    assert (reply.status_code, reply.content) == (200, b"")


NESTED = b'{"gpu":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001
BODIES = {
    "empty": b"",
    "space": b" ",
    "text": b"hello",
    "null": b"null",
    "number": b"7",
    "array": b"[]",
    "string": b'"x"',
    "cut": b'{"name":"x"',
    "trailing": b"{}{}",
    "not-utf8": b'{"name":"\xff\xfe"}',
    "not-utf8-key": b'{"\xff":1}',
    "surrogate": b'{"name":"\\ud800"}',
    "raw-surrogate": b'{"name":"\xed\xa0\x80"}',
    "nul": b'{"name":"a\\u0000b"}',
    "raw-nul": b'{"name":"a\0b"}',
    "huge-int": b'{"timeout":' + b"9" * 400 + b"}",
    "very-huge-int": b'{"timeout":' + b"9" * 10_000 + b"}",
    "huge-float": b'{"timeout":1e999}',
    "tiny-float": b'{"scaling":{"type":"QUEUE_DELAY","queueDelay":1e-999}}',
    "big-delay": b'{"scaling":{"type":"QUEUE_DELAY","queueDelay":1e300}}',
    "nan": b'{"timeout":NaN}',
    "infinity": b'{"timeout":-Infinity}',
    "nested": NESTED,
    "nested-array": b"[" * 100_000,
    "bool": b'{"name":true,"workers":false}',
    "nulls": b'{"name":null,"type":null,"scaling":null,"workers":null,"env":null}',
    "lists": b'{"name":[],"type":[],"scaling":[],"workers":[],"env":[],"runyard":[]}',
    "many-keys": b"{" + b",".join(b'"k%d":1' % n for n in range(10_000)) + b"}",
    "many-env": b'{"env":{' + b",".join(b'"K%d":"1"' % n for n in range(600)) + b"}}",
    "big-env": b'{"env":{"A":"' + b"x" * 300_000 + b'"}}',
    "same-key": b'{"timeout":60000,"timeout":"x"}',
    "backtick-key": b'{"` - at `$.x`":1}',
    "newline-key": b'{"a\\nb` - at `$":1}',
    "bom": b"\xef\xbb\xbf{}",
    "utf16": '{"name":"x"}'.encode("utf-16"),
    "form": b"name=x&type=QUEUE",
}
ROUTES = [("POST", "/v2/serverless"), ("PATCH", "/v2/serverless/{id}"), ("POST", "/v2/keys")]
ODD_IDS = {
    "missing": "nope",
    "dots": "..%2f..%2fetc",
    "encoded-slash": "a%2Fb",
    "nul": "%00",
    "not-utf8": "%ff%fe",
    "surrogate": "%ed%a0%80",
    "long": "x" * 5000,
    "unicode": "%F0%9F%9A%80",
    "quote": "'%22%3Cscript%3E",
    "space": "%20",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=["create", "update", "key"])
async def test_a_bad_body_is_the_callers_fault(plane: ControlPlane, method: str, path: str, body: bytes) -> None:
    path = path.format(id=(await plane.create())["id"])
    before = (await plane.client.get("/v2/serverless")).json(), len(plane.access.list())
    reply = await plane.client.request(method, path, content=body)

    assert reply.status_code in (400, 422)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == reply.status_code
    assert ((await plane.client.get("/v2/serverless")).json(), len(plane.access.list())) == before


@pytest.mark.parametrize("id", ODD_IDS.values(), ids=ODD_IDS.keys())
async def test_an_odd_id_is_not_found(plane: ControlPlane, id: str) -> None:
    paths = ("/v2/serverless/{}", "/v2/serverless/{}/workers", "/v2/serverless/{}/releases", "/v2/serverless/{}/logs")
    calls = [
        *itertools.product(("GET",), paths),
        ("PATCH", paths[0]),
        ("DELETE", paths[0]),
        ("DELETE", "/v2/keys/{}"),
        ("GET", "/v2/serverless/{}/workers/w/logs"),
    ]
    for method, path in calls:
        reply = await plane.client.request(method, path.format(id), content=b"{}" if method == "PATCH" else None)

        assert (reply.status_code, reply.json()["status"]) == (404, 404), (method, path)


async def test_a_body_over_the_limit_is_refused_declared_or_not(plane: ControlPlane) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 65_536

    for content in (b" " * (1 << 20) + b"x", chunks()):
        reply = await plane.client.post("/v2/serverless", content=content)

        assert (reply.status_code, reply.json()["title"]) == (413, "Content Too Large")
    for declared in ("1048577", "9" * 400):
        reply = await plane.client.post("/v2/serverless", content=b"{}", headers={"Content-Length": declared})
        assert reply.status_code == 413


@pytest.mark.parametrize(("method", "path"), [("POST", "/v2/serverless"), ("PUT", f"/v2/bundles/{'0' * 64}")])
async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(
    plane: ControlPlane, method: str, path: str
) -> None:
    said: list[dict[str, Any]] = []
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(parts)

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await plane.app(plane.scope(method, path), receive, send)

    assert said[0]["status"] == 400
    assert plane.endpoints.list() == []
    assert list(plane.blobs.kept) == [plane.bundle]


async def test_a_fault_of_the_platform_tells_nothing_about_it(plane: ControlPlane) -> None:
    del plane.fleet.reasons
    await plane.client.post("/v2/serverless", json=plane.body())
    reply = await plane.client.get("/v2/serverless")

    assert reply.status_code == 500
    assert reply.json()["title"] == "Internal Server Error"
    assert "reasons" not in reply.text


async def test_health_and_metrics_ask_for_no_key(plane: ControlPlane) -> None:
    id = (await plane.create(name="secret name"))["id"]
    health, metrics = [await plane.stranger.get(path) for path in ("/healthz", "/metrics")]

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert metrics.status_code == 200
    assert metrics.headers["content-type"].startswith("text/plain")
    assert f'runyard_jobs{{endpoint="{id}",state="IN_QUEUE"}} 0.0\n' in metrics.text
    assert f'runyard_jobs_finished_total{{endpoint="{id}",state="TIMED_OUT"}} 0.0\n' in metrics.text
    assert f'runyard_workers{{endpoint="{id}",state="IDLE"}} 0.0\n' in metrics.text
    assert "runyard_endpoints 1.0\n" in metrics.text
    assert "secret name" not in metrics.text
