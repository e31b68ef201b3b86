"""Log streams as their readers see them (contract E.4, assertion 31)."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runyard.domain.job import EndpointId, WorkerId
from runyard.ports.runtime import LogSource
from tests.component.control_plane import ControlPlane, Report


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane().running() as plane:
        await plane.create()
        yield plane


@pytest.fixture
def id(plane: ControlPlane) -> EndpointId:
    return plane.endpoints.list()[0].id


def say(plane: ControlPlane, *lines: str, worker: str = "w", **about: Any) -> None:
    for line in lines:
        plane.logs.append(WorkerId(worker), plane.endpoints.list()[0].id, line, **about)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream as (id, data)."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(len(block) == 2 for block in blocks)
    return [(id.removeprefix("id: "), json.loads(data.removeprefix("data: "))) for id, data in blocks]


def lines(text: str) -> list[str]:
    return [data["line"] for _, data in events(text)]


async def ended(plane: ControlPlane, path: str, **headers: str) -> str:
    """A stream that was asked not to follow, to its end."""
    async with plane.stream(path + ("&" if "?" in path else "?") + "follow=false", **headers) as stream:
        assert stream.status == 200
        return await stream.rest()


@pytest.mark.row("F128", "F129")
async def test_a_workers_log_is_followed_as_documented(plane: ControlPlane, id: EndpointId) -> None:
    say(plane, "first")
    plane.clock.at += 1.5
    say(plane, "second", job_id="job")
    async with plane.stream(f"/v2/serverless/{id}/workers/w/logs") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert {name: stream.headers[name] for name in ("cache-control", "connection", "x-accel-buffering")} == {
            "cache-control": "no-cache",
            "connection": "keep-alive",
            "x-accel-buffering": "no",
        }
        assert events(await stream.next()) == [
            (
                "2027-01-15T08:00:00.000Z/000000000001",
                {"ts": "2027-01-15T08:00:00.000Z", "source": "container", "line": "first", "workerId": "w"},
            ),
            (
                "2027-01-15T08:00:01.500Z/000000000002",
                {
                    "ts": "2027-01-15T08:00:01.500Z",
                    "source": "container",
                    "line": "second",
                    "workerId": "w",
                    "jobId": "job",
                },
            ),
        ]
        say(plane, "other", worker="other")
        say(plane, "third\nwith\r\nbreaks")
        assert lines(await stream.next()) == ["third\nwith\r\nbreaks"]


@pytest.mark.row("F128")
async def test_a_reader_chooses_source_and_length(plane: ControlPlane, id: EndpointId) -> None:
    say(plane, "starting", source=LogSource.SYSTEM)
    say(plane, *map(str, range(150)))
    path = f"/v2/serverless/{id}/workers/w/logs"

    assert lines(await ended(plane, path)) == [str(n) for n in range(50, 150)]
    assert lines(await ended(plane, f"{path}?tail=2")) == ["148", "149"]
    assert len(lines(await ended(plane, f"{path}?tail=5000"))) == 151
    assert lines(await ended(plane, f"{path}?source=system")) == ["starting"]
    assert lines(await ended(plane, f"{path}?source=container&tail=1")) == ["149"]
    assert await ended(plane, f"{path}?tail=0") == ""


@pytest.mark.row("F129")
async def test_a_reader_resumes_without_gap_or_repeat(plane: ControlPlane, id: EndpointId) -> None:
    path = f"/v2/serverless/{id}/workers/w/logs"
    say(plane, "a", "b")
    async with plane.stream(path) as stream:
        (last_id, _) = events(await stream.next())[-1]
    say(plane, "c")
    plane.clock.at += 2
    say(plane, "d")

    assert lines(await ended(plane, path, last_event_id=last_id)) == ["c", "d"]
    assert lines(await ended(plane, path, last_event_id="2027-01-15T08:00:00Z")) == ["d"]
    assert lines(await ended(plane, f"{path}?tail=0&since=2027-01-15T08:00:01Z", last_event_id=last_id)) == ["c", "d"]
    assert lines(await ended(plane, f"{path}?tail=0&since=2027-01-15T08:00:01Z")) == ["d"]
    assert lines(await ended(plane, f"{path}?since=2027-01-15T10:00:01%2B02:00")) == ["d"]


async def test_an_endpoints_log_has_all_workers_and_can_be_narrowed(plane: ControlPlane, id: EndpointId) -> None:
    say(plane, "one", worker="a", job_id="x")
    say(plane, "two", worker="b", job_id="x")
    say(plane, "three", worker="b")
    path = f"/v2/serverless/{id}/logs"

    assert [(data["workerId"], data["line"]) for _, data in events(await ended(plane, path))] == [
        ("a", "one"),
        ("b", "two"),
        ("b", "three"),
    ]
    assert lines(await ended(plane, f"{path}?jobId=x")) == ["one", "two"]
    assert lines(await ended(plane, f"{path}?jobId=x&workerId=b")) == ["two"]
    assert lines(await ended(plane, f"{path}?workerId=nobody")) == []


async def test_a_worker_is_readable_before_it_speaks_and_after_it_is_gone(plane: ControlPlane, id: EndpointId) -> None:
    endpoint = plane.endpoints.get(id)
    plane.fleet.live[id] = [Report(plane.worker(endpoint, "silent"))]
    plane.fleet.stopped[id] = [Report(plane.crashed(endpoint, "dead"))]
    say(plane, "Segmentation fault", worker="forgotten by the fleet")

    async with plane.stream(f"/v2/serverless/{id}/workers/silent/logs") as stream:
        say(plane, "hello", worker="silent")
        assert lines(await stream.next()) == ["hello"]
    assert await ended(plane, f"/v2/serverless/{id}/workers/dead/logs") == ""
    assert lines(await ended(plane, f"/v2/serverless/{id}/workers/forgotten by the fleet/logs")) == [
        "Segmentation fault"
    ]


async def test_a_worker_of_another_endpoint_is_not_found(plane: ControlPlane, id: EndpointId) -> None:
    say(plane, "x")
    other = (await plane.create(name="other"))["id"]

    for path in (f"/v2/serverless/{other}/workers/w/logs", f"/v2/serverless/{id}/workers/v/logs"):
        assert (await plane.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "tail=-1",
        "tail=5001",
        "tail=x",
        "tail=",
        "tail=1e3",
        "tail=%D9%A1",
        "tail=" + "9" * 5000,
        "source=stdout",
        "source=",
        "since=yesterday",
        "since=2027-01-15",
        "since=2027-01-15T08:00:00",
        "since=%00",
        "follow=yes",
    ],
    ids=lambda query: query[:24],
)
async def test_a_query_that_cannot_be_read_is_refused_by_name(plane: ControlPlane, id: EndpointId, query: str) -> None:
    say(plane, "x")
    for path in (f"/v2/serverless/{id}/workers/w/logs", f"/v2/serverless/{id}/logs"):
        reply = await plane.client.get(f"{path}?follow=false&{query}")

        assert reply.status_code == 422
        assert reply.json()["errors"][0].startswith(query.partition("=")[0])


@pytest.mark.parametrize("event_id", ["x", "/1", "2027-01-15T08:00:00Z/", "2027-01-15T08:00:00Z/1234567890123", "é"])
async def test_an_event_id_that_is_none_is_refused(plane: ControlPlane, id: EndpointId, event_id: str) -> None:
    reply = await plane.client.get(f"/v2/serverless/{id}/logs", headers={"Last-Event-ID": event_id.encode()})

    assert reply.status_code == 422


@pytest.mark.looptime
async def test_silence_is_broken_by_comments(plane: ControlPlane, id: EndpointId, looptime: object) -> None:
    async with plane.stream(f"/v2/serverless/{id}/logs") as stream:
        assert await stream.next() == ": nothing new\n\n"
        assert looptime == 15
        say(plane, "at last")
        assert lines(await stream.next()) == ["at last"]
        assert looptime == 15


async def test_a_stream_ends_with_its_endpoint_and_with_the_platform(plane: ControlPlane, id: EndpointId) -> None:
    other = (await plane.create(name="other"))["id"]
    async with plane.stream(f"/v2/serverless/{id}/logs") as one, plane.stream(f"/v2/serverless/{other}/logs") as two:
        await plane.client.delete(f"/v2/serverless/{id}")
        assert await one.next() is None

        plane.logs.close()
        assert await two.next() is None


async def test_a_client_that_leaves_ends_its_stream(plane: ControlPlane, id: EndpointId) -> None:
    async with plane.stream(f"/v2/serverless/{id}/logs") as stream:
        stream.left.set()
        assert await stream.next() is None
