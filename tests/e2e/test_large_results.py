"""Results much larger than what the server may hold, with stock workers and real processes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.keeping import Endpoint, Keeping, ended, forget_peak, keeping, peak_kb

MB = 1_000_000
GROWTH_KB_MAX = 64 * 1024


@pytest.fixture(scope="module", params=["memory", "embedded"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    data = tmp_path_factory.mktemp("large") / "data"
    with keeping(data, "--store", request.param) as platform:
        yield platform.deploy("large", handler="large.py")


def download(endpoint: Endpoint, path: str) -> tuple[int, str]:
    """Size and digest of what a client gets, who keeps none of it; it must be as long as the answer says."""
    digest, size = hashlib.sha256(), 0
    with endpoint.platform.http.stream("GET", f"/v2/{endpoint.id}/{path}") as reply:
        assert 200 == reply.status_code
        for piece in reply.iter_raw():
            size += len(piece)
            digest.update(piece)
    assert int(reply.headers["content-length"]) == size
    return size, digest.hexdigest()


def files(platform: Keeping) -> list[Path]:
    return list((platform.data / "payloads").iterdir())


def test_a_result_of_50_mb_comes_back_as_the_handler_made_it(large: Endpoint) -> None:
    reply = large.platform.http.post(f"/v2/{large.id}/runsync?wait=120000", json={"input": {"bytes": 50 * MB}})
    output = reply.json()["output"]

    assert [*range(50 * MB // 5000)] == [item["n"] for item in output]
    assert {'\\ " é [{,}]' * 400} == {item["text"] for item in output}
    assert len(reply.content) > 50 * MB
    assert "chunked" == reply.headers["transfer-encoding"], "its head was out before the result was there"


def test_300_mb_in_and_out_to_two_clients_at_once_take_no_memory(large: Endpoint) -> None:
    server = large.platform.server
    large.ask({"bytes": 10 * MB})  # What is loaded once is loaded.
    forget_peak(server)
    before = peak_kb(server)
    job_id = large.run({"bytes": 300 * MB, "as": "string"})
    job = ended(large, job_id)
    inwards = peak_kb(server) - before
    got: list[tuple[int, str]] = []
    readers = [
        threading.Thread(target=lambda path=path: got.append(download(large, f"{path}/{job_id}")))
        for path in ("status", "status-sync")
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    outwards = peak_kb(server) - before
    print(f"server's peak: {before} KB before, {inwards} KB more inwards, {outwards} KB more in all")  # noqa: T201

    assert "COMPLETED" == job["status"]
    assert 2 == len(got)
    assert 1 == len(set(got)), "both clients got the same"
    assert 0 < got[0][0] - 300 * MB < 400
    assert inwards < GROWTH_KB_MAX
    assert outwards < GROWTH_KB_MAX


def test_a_large_result_outlives_the_server(tmp_path: Path) -> None:
    with keeping(tmp_path / "data", "--store", "embedded") as platform:
        endpoint = platform.deploy("large", handler="large.py")
        job_id = endpoint.run({"bytes": 2 * MB})
        assert "COMPLETED" == ended(endpoint, job_id)["status"]
        before = platform.http.get(f"/v2/{endpoint.id}/status/{job_id}").json()
        (platform.data / "payloads" / "e,j,0.part").write_bytes(b"half")
        old = platform.server
        assert 0 == platform.restart().returncode
        assert platform.server != old
        after = platform.http.get(f"/v2/{endpoint.id}/status/{job_id}").json()

        assert before == after
        assert 2 * MB < len(json.dumps(after["output"]))
        assert 1 == len(files(platform)), "what was never whole is cleared away, and nothing else"


def test_a_memory_store_begins_with_no_payloads(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with keeping(data, "--store", "memory") as platform:
        endpoint = platform.deploy("large", handler="large.py")
        assert "COMPLETED" == ended(endpoint, endpoint.run({"bytes": 2 * MB}))["status"]
        assert 1 == len(files(platform))
    with keeping(data, "--store", "memory") as platform:
        assert [] == files(platform)
