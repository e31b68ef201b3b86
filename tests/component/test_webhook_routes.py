"""`/v2/serverless/{id}/webhooks` and `webhook-secret`, over services in process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from runyard.domain.job import EndpointId, Job, JobState
from runyard.domain.webhook import Delivery, DeliveryState, Try
from tests.builders import START, a_job_that_is
from tests.component.control_plane import ControlPlane

URL = "https://receiver.test/hook?token=mine"


@pytest_asyncio.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        yield plane


async def owed(plane: ControlPlane, endpoint_id: str, job_id: str = "job") -> Job:
    job = a_job_that_is(JobState.COMPLETED, webhook=URL)._replace(id=job_id, endpoint_id=EndpointId(endpoint_id))  # type: ignore[arg-type]
    plane.outbox.owe(job)
    return job


async def failed(plane: ControlPlane) -> Delivery:
    delivery = await plane.outbox.take(START + 10, ())
    assert delivery is not None
    for attempt in (
        Try(at=START + 10, duration_s=0.25, status=500, excerpt="oh"),
        Try(at=START + 20, duration_s=10.0, error="no answer within 10 s"),
        Try(at=START + 40, duration_s=0.0, status=302),
    ):
        delivery = delivery.after(attempt, plane.webhooks._schedule, 0.5)
    await plane.outbox.save(delivery)
    return delivery


async def test_they_are_listed_with_their_tries(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    job = await owed(plane, id)
    delivery = await failed(plane)
    await owed(plane, id, "newer")
    shown = (await plane.client.get(f"/v2/serverless/{id}/webhooks")).json()
    newer, older = shown["webhooks"]

    assert None is shown["next"]
    assert ("newer", "PENDING", "2027-01-15T08:00:02.000Z", []) == (
        newer["jobId"],
        newer["state"],
        newer["nextTryAt"],
        newer["tries"],
    )
    assert "finishedAt" not in newer
    assert {
        "id": delivery.id,
        "jobId": job.id,
        "url": URL,
        "state": "FAILED",
        "size": delivery.size,
        "createdAt": "2027-01-15T08:00:02.000Z",
        "finishedAt": "2027-01-15T08:00:40.000Z",
        "tries": [
            {"at": "2027-01-15T08:00:10.000Z", "durationMs": 250, "status": 500, "excerpt": "oh"},
            {"at": "2027-01-15T08:00:20.000Z", "durationMs": 10000, "error": "no answer within 10 s"},
            {"at": "2027-01-15T08:00:40.000Z", "durationMs": 0, "status": 302},
        ],
    } == older
    assert older == (await plane.client.get(f"/v2/serverless/{id}/webhooks/{delivery.id}")).json()


async def test_they_are_found_by_job_and_state_page_by_page(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    for number in range(3):
        await owed(plane, id, f"job-{number}")

    async def jobs(**query: str) -> tuple[list[str], str | None]:
        body = (await plane.client.get(f"/v2/serverless/{id}/webhooks", params=query)).json()
        return [delivery["jobId"] for delivery in body["webhooks"]], body["next"]

    assert (["job-1"], None) == await jobs(jobId="job-1")
    assert ([], None) == await jobs(state="DELIVERED")
    page, after = await jobs(limit="2", state="PENDING")
    assert ["job-2", "job-1"] == page
    assert after is not None
    assert (["job-0"], None) == await jobs(limit="2", after=after)


@pytest.mark.parametrize(
    "query", ["state=DONE", "limit=0", "limit=1001", "limit=x", "limit=", "after=-1", f"after={'9' * 30}", "after=²"]
)
async def test_a_question_that_means_nothing_is_refused_by_name(plane: ControlPlane, query: str) -> None:
    id = (await plane.create())["id"]
    reply = await plane.client.get(f"/v2/serverless/{id}/webhooks?{query}")

    assert 400 == reply.status_code
    assert query.partition("=")[0] in reply.json()["detail"]


async def test_one_is_delivered_again(plane: ControlPlane) -> None:
    id = (await plane.create())["id"]
    await owed(plane, id)
    delivery = await failed(plane)
    reply = await plane.client.post(f"/v2/serverless/{id}/webhooks/{delivery.id}/redeliver")
    again = await plane.outbox.take(plane.clock.at, ())

    assert (202, "PENDING", 3) == (reply.status_code, reply.json()["state"], len(reply.json()["tries"]))
    assert again is not None
    assert (delivery.id, DeliveryState.PENDING, 0) == (again.id, again.state, again.round_tries)


async def test_nobody_finds_another_endpoints(plane: ControlPlane) -> None:
    mine, other = (await plane.create())["id"], (await plane.create(name="other"))["id"]
    await owed(plane, mine)
    delivery = await failed(plane)
    path = f"/v2/serverless/{other}/webhooks/{delivery.id}"
    replies = [await plane.client.get(path), await plane.client.post(f"{path}/redeliver")]

    assert [404, 404] == [reply.status_code for reply in replies]
    assert delivery.id in replies[0].json()["detail"]
    assert [] == (await plane.client.get(f"/v2/serverless/{other}/webhooks")).json()["webhooks"]


async def test_the_secret_is_made_once_shown_and_replaced(plane: ControlPlane) -> None:
    id, other = (await plane.create())["id"], (await plane.create(name="other"))["id"]
    path = f"/v2/serverless/{id}/webhook-secret"
    reply = await plane.client.get(path)
    first = reply.json()
    assert {"secret", "createdAt"} == first.keys()
    assert first["secret"].startswith("whsec_")
    assert "no-store" == reply.headers["cache-control"]
    assert first == (await plane.client.get(path)).json()
    assert first["secret"] != (await plane.client.get(f"/v2/serverless/{other}/webhook-secret")).json()["secret"]

    rotated = (await plane.client.post(path)).json()
    assert rotated["secret"] != first["secret"]
    assert {"secret": first["secret"], "expiresAt": "2027-01-16T08:00:00.000Z"} == rotated["previous"]
    plane.clock.at += 86_400
    assert {"secret": rotated["secret"], "createdAt": rotated["createdAt"]} == (await plane.client.get(path)).json()


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", "webhooks"),
        ("GET", "webhooks/msg_1"),
        ("POST", "webhooks/msg_1/redeliver"),
        ("GET", "webhook-secret"),
        ("POST", "webhook-secret"),
    ],
)
async def test_they_want_a_key_and_an_endpoint(plane: ControlPlane, method: str, rest: str) -> None:
    id = (await plane.create())["id"]
    strangers = await plane.stranger.request(method, f"/v2/serverless/{id}/{rest}")
    nowhere: Any = await plane.client.request(method, f"/v2/serverless/none/{rest}")

    assert (401, 404) == (strangers.status_code, nowhere.status_code)
