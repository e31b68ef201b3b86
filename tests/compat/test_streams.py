"""Generators: what is made shows at once, in order and once; what stays depends on `return_aggregate_stream`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from runpod.endpoint import Job

from tests.compat.gate import Gate
from tests.compat.platform import TERMINAL, Endpoint, result_of

CHUNKS: list[Any] = ["one", {"two": 2}, ["three", 3], None, "five"]
CHUNK_BYTES_MAX = 1 << 20


@pytest.mark.row("F007", "F137", "F122")
@pytest.mark.parametrize("kind", ["generating", pytest.param("async_generating", marks=pytest.mark.row("F138"))])
def test_a_piece_shows_while_the_job_goes_on(kind: str, gate: Gate, request: pytest.FixtureRequest) -> None:
    endpoint: Endpoint = request.getfixturevalue(kind)
    job = endpoint.sdk.run({"input": {"chunks": CHUNKS, "gate": gate.port}})
    stream = job.stream()
    guest = gate.next()

    early = [next(stream) for _ in CHUNKS]

    assert (CHUNKS, "IN_PROGRESS") == (early, endpoint.status(job.job_id)["status"])
    guest.let_go()
    assert ["after the gate"] == list(stream)
    assert {"status": "COMPLETED", "output": []} == result_of(endpoint.status(job.job_id))


@pytest.mark.row("F007", "F137")
def test_a_stream_of_events_is_gone_on_with_where_it_broke(generating: Endpoint, gate: Gate) -> None:
    job_id = generating.run({"chunks": CHUNKS, "gate": gate.port})
    guest = gate.next()
    with _events(generating, job_id) as lines:
        early = [next(lines) for _ in CHUNKS]  # And leave.
    with _events(generating, job_id, last_event_id=early[1]["id"]) as lines:
        again = [next(lines) for _ in CHUNKS[2:]]
        guest.let_go()
        last, end = lines

    assert CHUNKS == [json.loads(event["data"]) for event in early]
    assert early[2:] == again
    assert "after the gate" == json.loads(last["data"])
    assert ("end", "COMPLETED") == (end["event"], json.loads(end["data"])["status"])
    assert [*CHUNKS, "after the gate"] == list(_job(generating, job_id).stream())  # Nothing was drained.


@contextmanager
def _events(endpoint: Endpoint, job_id: str, *, last_event_id: str = "") -> Iterator[Iterator[dict[str, str]]]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
    with endpoint.platform.http.stream("GET", f"/v2/{endpoint.id}/stream/{job_id}", headers=headers) as reply:
        assert reply.status_code == 200
        yield _parsed(reply.iter_lines())


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            event[name] = value
        elif "data" in event:
            yield event
            event = {}
        else:
            event = {}


def _job(endpoint: Endpoint, job_id: str) -> Job:
    return Job(endpoint.id, job_id, endpoint.sdk.rp_client)


@pytest.mark.row("F139", "F121")
def test_aggregated_pieces_are_the_output_too(aggregating: Endpoint) -> None:
    job = aggregating.sdk.run({"input": {"chunks": CHUNKS}})

    assert CHUNKS == list(job.stream())
    assert CHUNKS == job.output()
    assert CHUNKS == aggregating.sdk.run_sync({"input": {"chunks": CHUNKS}})


@pytest.mark.row("F139")
def test_a_generator_without_aggregation_leaves_no_output(generating: Endpoint) -> None:
    assert {"status": "COMPLETED", "output": []} == result_of(generating.ask({"chunks": CHUNKS}))


@pytest.mark.row("F137", "F141", "F033")
@pytest.mark.parametrize("kind", ["generating", "aggregating"])
def test_a_generator_that_raises_fails_after_what_it_has_made(kind: str, request: pytest.FixtureRequest) -> None:
    endpoint: Endpoint = request.getfixturevalue(kind)
    job = endpoint.sdk.run({"input": {"chunks": ["one", "two"], "raise": "no more"}})

    assert ["one", "two"] == list(job.stream())
    status = endpoint.status(job.job_id)
    assert ("FAILED", None) == (status["status"], status.get("output"))
    assert status["error"].startswith("handler: no more \ntraceback: Traceback")


@pytest.mark.row("F137", "F142", "F033")
@pytest.mark.parametrize(("error", "shown"), [("soft", "soft"), ({"code": 3}, "{'code': 3}")])
def test_a_generator_that_yields_an_error_fails_there(generating: Endpoint, error: Any, shown: str) -> None:
    job = generating.sdk.run({"input": {"chunks": ["one", {"error": error}, "never"]}})

    assert ["one"] == list(job.stream())
    assert {"status": "FAILED", "error": shown} == result_of(generating.status(job.job_id))


@pytest.mark.row("F008")
def test_a_large_piece_comes_in_several_of_a_megabyte_at_most(generating: Endpoint) -> None:
    size = 5 * CHUNK_BYTES_MAX // 2
    job_id = generating.run({"chunks": [], "bytes": size})

    items: list[str] = []
    while True:
        reply = generating.sdk.rp_client.get(f"{generating.id}/stream/{job_id}")
        items += [item["output"] for item in reply["stream"]]
        if reply["status"] in TERMINAL and not reply["stream"]:
            break

    assert (len(items) > 1, "x" * size) == (True, "".join(items))
    assert [] == [len(item) for item in items if len(json.dumps(item)) > CHUNK_BYTES_MAX]


@pytest.mark.row("F008")
def test_a_large_piece_that_cannot_be_split_is_left_out_and_says_so(generating: Endpoint) -> None:
    job = generating.sdk.run({"input": {"chunks": ["one", ["x" * CHUNK_BYTES_MAX], "three"]}})

    one, left_out, three = job.stream()

    assert ("one", "three", "COMPLETED") == (one, three, job.status())
    assert "over 1 MB" in left_out["error"]
