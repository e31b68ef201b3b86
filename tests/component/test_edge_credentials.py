"""Credentials on a connection that stays: what one request has proven opens nothing for another."""

import json

import pytest

from runyard.domain.worker import Exit
from tests.builders import ENDPOINT, SECRET, WORKER, a_worker
from tests.component.wire import GET, POST, Ports, Wire, open_ports

pytestmark = pytest.mark.looptime


async def health(ports: Ports, wire: Wire, key: str | None = None) -> int:
    return (await wire.ask(ports.request(GET, "/health", key=key))).status


async def test_a_wrong_key_behind_a_right_one_is_refused() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()

        assert [200, 401] == [await health(ports, wire, key) for key in (None, "rpa_wrong")]
        assert await wire.is_closed()


async def test_no_key_behind_a_right_one_is_refused() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        await health(ports, wire)
        reply = await wire.ask(f"GET /v2/{ENDPOINT}/health HTTP/1.1\r\nHost: yard.test\r\n\r\n")

        assert 401 == reply.status


async def test_a_revoked_key_opens_nothing_on_a_connection_it_had_opened() -> None:
    async with open_ports() as ports:
        access = ports.platform.access
        key, secret = await access.create("short-lived")
        wire, other = await ports.connect(), await ports.connect()
        assert (200, 200) == (await health(ports, wire, secret), await health(ports, other))
        await access.revoke(key.id)

        assert (401, 200) == (await health(ports, wire, secret), await health(ports, other))


async def test_a_workers_secret_opens_no_other_workers_routes_on_its_connection(looptime: object) -> None:
    async with open_ports() as ports:
        ports.platform.roster.add(a_worker("worker-2"))
        ports.platform.roster.add(a_worker("worker-3", secret_digest=b"another"))
        wire = await ports.connect_worker()

        statuses = [
            (await wire.ask(ports.request(GET, f"/ping/{id}?", key=SECRET))).status
            for id in (WORKER, "worker-3", "worker-2", WORKER)
        ]
        assert [200, 401, 200, 200] == statuses
        assert looptime == 1, "a stranger's poll is refused after a pause"


async def test_a_worker_of_one_endpoint_does_not_report_to_another() -> None:
    async with open_ports() as ports:
        wire = await ports.connect_worker()
        await wire.ask(ports.request(GET, f"/ping/{WORKER}?", key=SECRET))
        request = ports.request(POST, f"/job-done/{WORKER}/job-1?", "{}", key=SECRET)
        reply = await wire.ask(request.replace(ENDPOINT.encode(), b"endpoint-2"))

        assert 401 == reply.status


async def test_the_secret_of_a_worker_that_has_ended_opens_nothing_on_its_connection() -> None:
    async with open_ports() as ports:
        roster = ports.platform.roster
        wire = await ports.connect_worker()
        assert 200 == (await wire.ask(ports.request(GET, f"/ping/{WORKER}?", key=SECRET))).status
        [live] = roster.of_endpoint(ENDPOINT)
        live.worker = live.worker.stopped(0, Exit(0))
        roster.retire(live)

        assert 401 == (await wire.ask(ports.request(GET, f"/ping/{WORKER}?", key=SECRET))).status


async def test_users_keys_and_workers_secrets_are_not_interchangeable() -> None:
    async with open_ports() as ports:
        user, worker = await ports.connect(), await ports.connect_worker()

        assert 401 == await health(ports, user, SECRET)
        assert 401 == (await worker.ask(ports.request(GET, f"/ping/{WORKER}?"))).status


async def test_a_pipeline_ends_with_the_first_request_that_is_a_strangers() -> None:
    async with open_ports() as ports:
        wire = await ports.connect()
        body = json.dumps({"input": 1})
        for key in (None, "rpa_wrong", None, "rpa_wrong"):
            wire.send(ports.request(POST, "/run", body, key=key))

        assert [200, 401] == [(await wire.reply()).status for _ in range(2)]
        assert await wire.is_closed()
        assert 1 == (await ports.platform.jobs.counts(ENDPOINT)).in_queue
