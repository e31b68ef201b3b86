"""What workers and the platform have said is kept, whatever becomes of the platform."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from runyard.services.kept_logs import WRITE_EVERY_S
from tests.e2e.keeping import Endpoint, keeping, until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.row("F126")
def test_output_sdk_lines_and_lifecycle_are_kept_when_the_platform_stops(data: Path) -> None:
    with keeping(data) as platform:
        endpoint = platform.deploy("talking", "--workers-max", "1", handler="talking.py")
        endpoint.ask({"out": "said aloud", "err": "and beside"}, seconds=120)
        before = endpoint.logs()
        (worker,) = endpoint.workers()

    with keeping(data) as platform:
        endpoint = Endpoint(platform, endpoint.id)
        after = endpoint.logs()
        of_worker = platform.http.get(f"/v2/serverless/{endpoint.id}/workers/{worker['id']}/logs?follow=false").text

    assert before == after[: len(before)]
    for said in (
        "said aloud",
        "and beside",
        "Starting Serverless Worker",
        "starting for release 1: ",
        "ended (exit code 0)",
    ):
        assert any(said in line for line in after), said
        assert said in of_worker
    assert any('"message": "Finished."' in line for line in after)
    assert 1 == sum("said aloud" in line for line in after)


def test_more_than_memory_has_is_there_in_order_also_after_a_crash(data: Path) -> None:
    with keeping(data) as platform:
        endpoint = platform.deploy()
        endpoint.ask({"flood": 12_000})
        since = {"since": "2020-01-01T00:00:00Z"}
        flood = [line for line in endpoint.logs(**since) if line.startswith("flood ")]
        assert [f"flood {number}" for number in range(12_000)] == [line[:-81] for line in flood]

        endpoint.ask({"say": "the last words"})
        time.sleep(2 * WRITE_EVERY_S)
        server = platform.server
        os.kill(server, signal.SIGKILL)
        until(lambda: (platform.server != server and platform.healthy()) or None)
        again = endpoint.logs(**since)
        assert flood == [line for line in again if line.startswith("flood ")]
        assert 1 == again.count("the last words")


def test_a_deleted_endpoint_leaves_no_lines(data: Path) -> None:
    with keeping(data) as platform:
        endpoint = platform.deploy()
        endpoint.ask({"say": "for nobody else"})
        endpoint.logs()
        assert kept(data) != [(0,)]
        platform.http.delete(f"/v2/serverless/{endpoint.id}")
    with keeping(data):
        until(lambda: kept(data) == [(0,)] or None)


def kept(data: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(data / "logs.db")) as database:
        return database.execute("select count(*) from lines").fetchall()
