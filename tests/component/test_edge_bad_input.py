"""What a client may send that means nothing here: it is told so in JSON, and the next request is served as ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runyard.config import Settings
from tests.builders import ENDPOINT, SECRET, WORKER, a_worker
from tests.edge_kit import Reply, Wire, Yard, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY_BYTES_MAX = 128 * 1024
ANSWERED_S_MAX = 5
WEEK_MS = 7 * 24 * 3600 * 1000


class Site:
    """A yard on real ports, for all tests of this module; each ends with a good request."""

    def __init__(self, yard: Yard, port: int, worker_port: int) -> None:
        self.yard = yard
        self.port = port
        self.worker_port = worker_port

    def request(
        self, line: str, body: bytes = b"", *headers: str, key: str | None = None, length: int | None = None
    ) -> bytes:
        """`line` is a method and a target; `key` a whole Authorization value, "" for none."""
        key = f"Bearer {self.yard.key}" if key is None else key
        lines = [f"{line} HTTP/1.1", "Host: runyard.test", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"Authorization: {key}"] if key else []
        return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body

    async def ask(self, data: bytes, *, worker: bool = False) -> Reply:
        async with asyncio.timeout(ANSWERED_S_MAX), Wire.to(self.worker_port if worker else self.port) as wire:
            wire.send(data)
            reply = await wire.reply()
        assert reply is not None, "the connection was closed without an answer"
        return reply

    async def run(self, body: bytes) -> Reply:
        return await self.ask(self.request(f"POST /v2/{ENDPOINT}/run", body))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Site]:
    yard = Yard(settings=Settings(run_bytes_max=BODY_BYTES_MAX, runsync_bytes_max=BODY_BYTES_MAX))
    await yard.open()
    yard.roster.add(a_worker())
    async with serving(yard) as (port, worker_port):
        yield Site(yard, port, worker_port)
    await yard.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared: Site, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    yield shared
    assert 200 == (await shared.ask(shared.request(f"GET /v2/{ENDPOINT}/health"))).status
    assert "a request failed" not in caplog.text


def told(reply: Reply, status: int, about: str = "") -> None:
    assert status == reply.status, reply.body
    assert "application/json" == reply.headers["content-type"]
    assert ["error"] == list(reply.json())
    assert about in reply.json()["error"]


def submitting(**fields: object) -> bytes:
    return json.dumps({"input": 1} | fields).encode()


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b'{"input": 1}}', "valid JSON"),
        (b"{'input': 1}", "valid JSON"),
        (b'{"input": NaN}', "valid JSON"),
        (b'{"input": 01}', "valid JSON"),
        (b'{"input": "a\nb"}', "valid JSON"),
        (b'{"input": "\xff\xfe"}', "valid JSON"),
        (b'{"input": "\\ud800"}', "valid JSON"),
        (b'{"input": "\\udc00\\ud800"}', "valid JSON"),
        (b'{"input": "\xed\xa0\x80"}', "valid JSON"),
        (b'\xff\xfe{\x00"\x00', "valid JSON"),
        (b'{"inp\xffut": 1, "input": 1}', "valid JSON"),
        (b"input=1", "valid JSON"),
        (b"\x00" * 1000, "valid JSON"),
        (b'{"input": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested"),
        (b'{"input": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}", "nested"),
        (b'{"input": 1, "s3Config": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}", "nested"),
        (b'{"input": 1, "ignored": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested"),
        (b"{}", '"input"'),
        (b'{"Input": 1}', '"input"'),
        (b"[]", "wrong type"),
        (b"null", "wrong type"),
        (b'"input"', "wrong type"),
        (submitting(webhook=1), "wrong type"),
        (submitting(webhook="ftp://a.test/"), "webhook"),
        (submitting(webhook="javascript:alert(1)"), "webhook"),
        (submitting(policy=1), "policy"),
        (submitting(policy="fast"), "policy"),
        (submitting(policy={"executiontimeout": 5000}), "policy"),
        (submitting(s3Config="bucket"), "s3Config"),
    ],
    ids=lambda value: repr(value[:32]) if isinstance(value, bytes) else None,
)
@pytest.mark.parametrize("operation", ["run", "runsync"])
async def test_a_body_that_is_no_submission_is_refused(site: Site, operation: str, body: bytes, about: str) -> None:
    reply = await site.ask(site.request(f"POST /v2/{ENDPOINT}/{operation}", body))

    told(reply, 400, about)


NO_TIMES: list[object] = [
    -1,
    WEEK_MS + 1,
    2**63,
    10**40,
    -(10**40),
    1e300,
    60_000.5,
    True,
    False,
    "60000",
    [60_000],
    {},
]
NO_FLAGS: list[object] = [1, 0, "yes", [], {}]
POLICIES: list[tuple[str, object]] = [
    *[("executionTimeout", value) for value in [0, 1, 4999, *NO_TIMES]],
    *[("ttl", value) for value in [0, 9999, *NO_TIMES]],
    *[("lowPriority", value) for value in NO_FLAGS],
]


@pytest.mark.parametrize(("name", "value"), POLICIES)
async def test_a_policy_out_of_its_bounds_is_refused_by_name(site: Site, name: str, value: object) -> None:
    told(await site.run(submitting(policy={name: value})), 400, name)


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {},
        {"executionTimeout": 5000, "ttl": 10_000},
        {"executionTimeout": WEEK_MS, "ttl": WEEK_MS, "lowPriority": True},
        {"executionTimeout": None, "ttl": None, "lowPriority": None},
    ],
)
async def test_a_policy_at_its_bounds_is_taken(site: Site, policy: object) -> None:
    assert 200 == (await site.run(submitting(policy=policy))).status


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": null}',
        b'{"input": "\\u0000"}',
        b'{"input": 1e400}',
        b'{"input": ' + b"9" * 4000 + b"}",
        b'{"input": 1, "input": 2}',
        b' \r\n\t{"input": 1} ',
        submitting(webhook="", policy=None, s3Config=None, extra=[1]),
    ],
)
async def test_what_json_allows_comes_back_as_json(site: Site, body: bytes) -> None:
    job_id = (await site.run(body)).json()["id"]
    status = await site.ask(site.request(f"GET /v2/{ENDPOINT}/status/{job_id}"))
    cancelled = await site.ask(site.request(f"POST /v2/{ENDPOINT}/cancel/{job_id}"))

    assert "IN_QUEUE" == status.json()["status"]
    assert "CANCELLED" == cancelled.json()["status"]


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
        b"Content-Length: %d\r\n\r\n" % 10**18,
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % 10**9,
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 5,
        b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b" " * (BODY_BYTES_MAX + 1),
    ],
)
@pytest.mark.parametrize("operation", ["run", "runsync"])
async def test_too_large_a_body_is_refused_before_it_is_all_here(site: Site, operation: str, data: bytes) -> None:
    head = f"POST /v2/{ENDPOINT}/{operation} HTTP/1.1\r\nHost: a\r\nAuthorization: {site.yard.key}\r\n"
    reply = await site.ask(head.encode() + data)

    told(reply, 413, str(BODY_BYTES_MAX))
    assert "close" == reply.headers["connection"]


async def test_a_body_of_just_the_limit_is_taken(site: Site) -> None:
    assert 200 == (await site.run(b'{"input": 1}'.ljust(BODY_BYTES_MAX))).status


@pytest.mark.parametrize("target", ["runsync", "status-sync/{job}", "stream/{job}"])
@pytest.mark.parametrize(
    "wait", ["abc", "-1", "1e9", "", "1.5", "%20", "0x10", "+5", "1_000", "%D9%A1", "1" * 16, "%00"]
)
async def test_a_wait_that_is_no_number_is_refused(site: Site, target: str, wait: str) -> None:
    method, body = ("POST", submitting()) if target == "runsync" else ("GET", b"")
    job_id = (await site.run(submitting())).json()["id"]
    reply = await site.ask(site.request(f"{method} /v2/{ENDPOINT}/{target.format(job=job_id)}?wait={wait}", body))

    told(reply, 400, "wait")


@pytest.mark.parametrize(
    "target",
    [
        "status/x?ttl=abc",
        "status/x?ttl=",
        "requests?limit=0",
        "requests?limit=1001",
        "requests?limit=abc",
        "requests?limit=",
        "requests?limit=0000000011000",
        "requests?limit=000000001" + "0" * 5000,
        "requests?after=abc",
        "requests?after=" + "9" * 20,
        "requests?states=LOST",
        "requests?states=completed",
        "requests?" + "a=1&" * 200,
        "status/x?" + "&" * 2000,
    ],
)
async def test_a_query_that_means_nothing_is_refused(site: Site, target: str) -> None:
    told(await site.ask(site.request(f"GET /v2/{ENDPOINT}/{target}")), 400)


IDS = (
    ["x", "%2F", "..%2F..%2Fetc", "a%2Fb", "%00", "a%00b", "%0D%0Aset-cookie:%20a", "%ff%fe", "%", "%zz", "%u0000"]  # noqa: RUF005
    + ["'%20OR%201=1--", "%F0%9F%90%88", "%ED%A0%80", "x" * 7000, "", ".", "..", "sync-", "-u1", "{}"]
)


@pytest.mark.parametrize("job_id", IDS, ids=lambda value: value[:24])
@pytest.mark.parametrize(
    "call", ["GET status", "GET status-sync", "GET stream", "POST cancel", "POST retry", "GET requests"]
)
async def test_a_job_id_that_never_was_is_not_found(site: Site, call: str, job_id: str) -> None:
    method, operation = call.split()

    told(await site.ask(site.request(f"{method} /v2/{ENDPOINT}/{operation}/{job_id}")), 404)


@pytest.mark.parametrize(
    "endpoint_id", [*IDS[:16], ENDPOINT.upper(), f"{ENDPOINT}%00", f"%20{ENDPOINT}"], ids=lambda v: v[:24]
)
@pytest.mark.parametrize("call", ["POST run", "POST runsync", "POST purge-queue", "GET health", "GET requests"])
async def test_an_endpoint_that_never_was_is_not_found(site: Site, call: str, endpoint_id: str) -> None:
    method, operation = call.split()

    told(await site.ask(site.request(f"{method} /v2/{endpoint_id}/{operation}", submitting())), 404)


STRANGERS = (
    ["", "Bearer", "Bearer ", "Bearer wrong", "wrong", "Basic {key}", "Token {key}", "{key}x", "Bearer {key} x"]  # noqa: RUF005
    + ["Bearer Bearer {key}", "Bearer \xff", "\xe9" * 2000, "Bearer " + "k" * 60_000]
)


@pytest.mark.row("F043")
@pytest.mark.parametrize(
    "key",
    STRANGERS,
    ids=lambda value: value[:24],
)
@pytest.mark.parametrize(
    "call", ["POST run", "POST runsync", "GET health", "GET status/x", "POST cancel/x", "POST purge-queue"]
)
async def test_without_a_good_key_nothing_is_answered(site: Site, call: str, key: str) -> None:
    method, operation = call.split()
    key = key.format(key=site.yard.key)
    reply = await site.ask(site.request(f"{method} /v2/{ENDPOINT}/{operation}", submitting(), key=key))

    told(reply, 401, "API key")
    assert site.yard.key not in reply.body.decode()


@pytest.mark.row("F043")
@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "BEARER {}", "Bearer  {}", " {} "])
async def test_a_key_is_good_with_and_without_bearer(site: Site, form: str) -> None:
    request = site.request(f"POST /v2/{ENDPOINT}/run", submitting(), key=form.format(site.yard.key))

    assert 200 == (await site.ask(request)).status


async def test_a_stranger_is_refused_before_the_body_is_sent(site: Site) -> None:
    reply = await site.ask(site.request(f"POST /v2/{ENDPOINT}/run", key="wrong", length=BODY_BYTES_MAX))

    told(reply, 401)
    assert "close" == reply.headers["connection"]


@pytest.mark.parametrize(
    ("call", "allow"),
    [
        ("GET run", "POST"),
        ("PUT runsync", "POST"),
        ("OPTIONS run", "POST"),
        ("TRACE retry/x", "POST"),
        ("GET cancel/x", "POST"),
        ("POST health", "GET"),
        ("DELETE status/x", "GET, POST"),
        ("PATCH stream/x", "GET, POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(site: Site, call: str, allow: str) -> None:
    method, operation = call.split()
    reply = await site.ask(site.request(f"{method} /v2/{ENDPOINT}/{operation}"))

    told(reply, 405, method)
    assert allow == reply.headers["allow"]


@pytest.mark.parametrize("secret", ["", "wrong", "Bearer wrong", f"Bearer {SECRET}x", "\xff"])
async def test_a_strange_worker_is_refused_before_its_result_is_read(site: Site, secret: str) -> None:
    request = site.request(f"POST /v2/{ENDPOINT}/job-done/{WORKER}/x", key=secret, length=1000)

    told(await site.ask(request, worker=True), 401, "secret")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"output": NaN}', b'{"error": "\\ud800"}', b"[" * 60_000, b'{"status": 1}'],
)
async def test_a_worker_may_report_anything(site: Site, body: bytes) -> None:
    """The official worker drops a result that is refused, and sends one that met a 500 again and again."""
    request = site.request(f"POST /v2/{ENDPOINT}/job-done/{WORKER}/x", body, key=SECRET)

    assert 200 == (await site.ask(request, worker=True)).status


@pytest.mark.parametrize("target", ["/", "/v2", f"/v2/{ENDPOINT}/run", f"/v2/{ENDPOINT}/job-take", "/docs"])
async def test_the_worker_port_serves_nothing_else(site: Site, target: str) -> None:
    assert 404 == (await site.ask(site.request(f"GET {target}"), worker=True)).status
