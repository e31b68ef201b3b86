"""Large results in an object store: a real platform, the official client, a real server over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import runpod

from tests.e2e.keeping import BUILD_S_MAX, START_S_MAX, ended, environment, forget_peak, keeping, peak_kb, until
from tests.s3_kit import BUCKET, CREDENTIALS, ObjectStore, object_store

MB = 1_000_000
GROWTH_KB_MAX = 64 * 1024


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        store.empty()
        yield store


def settings(store: ObjectStore, payloads: str = f"s3://{BUCKET}/yard") -> dict[str, str]:
    return CREDENTIALS | {"RUNYARD_PAYLOADS": payloads, "RUNYARD_S3_ENDPOINT": store.url}


def test_a_large_result_lies_in_the_bucket_until_its_job_is_deleted(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with keeping(data, env=settings(store)) as platform:
        endpoint = platform.deploy("large", handler="large.py")
        monkeypatch.setattr(runpod, "endpoint_url_base", f"{platform.url}/v2")
        client = runpod.Endpoint(endpoint.id, api_key=platform.key)
        job = client.run({"input": {"bytes": 5 * MB}})
        output = job.output(timeout=int(BUILD_S_MAX))
        assert [*range(1000)] == [item["n"] for item in output]
        [key] = [key for key in store.names() if key.startswith(f"yard/{endpoint.id},{job.job_id},")]
        assert 5 * MB < store.client.head_object(Bucket=BUCKET, Key=key)["ContentLength"]
        assert [] == list((data / "payloads").iterdir())

        assert 0 == platform.restart().returncode
        path = f"/v2/{endpoint.id}/status/{job.job_id}"
        assert output == platform.http.get(path).json()["output"], "it outlives the server"
        assert 0 == platform.command("delete", endpoint.id).returncode
        assert 404 == platform.http.get(path).status_code
        assert 0 == platform.restart().returncode
        until(lambda: [name for name in store.names() if name.startswith("yard/")] == ["yard/owner"])
        log = platform.log.read_text()
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in log
    assert CREDENTIALS["AWS_ACCESS_KEY_ID"] not in log


def test_a_large_input_lies_in_the_bucket_until_its_job_is_deleted(store: ObjectStore, tmp_path: Path) -> None:
    with keeping(tmp_path / "data", env=settings(store, f"s3://{BUCKET}/inputs")) as platform:
        endpoint = platform.deploy("sizes", handler="sizes.py")
        text = "é" * 4 * MB
        job_id = endpoint.run({"text": text})
        assert "COMPLETED" == ended(endpoint, job_id, BUILD_S_MAX)["status"]
        [key] = [key for key in store.names() if key.startswith(f"inputs/{endpoint.id},{job_id},")]
        job = platform.http.get(f"/v2/{endpoint.id}/requests/{job_id}").json()

        assert (text, 4 * MB) == (job["input"]["text"], job["output"]["length"])
        assert 8 * MB < store.client.head_object(Bucket=BUCKET, Key=key)["ContentLength"]
        assert 0 == platform.command("delete", endpoint.id).returncode
        assert 0 == platform.restart().returncode
        until(lambda: [name for name in store.names() if name.startswith("inputs/")] == ["inputs/owner"])


def test_large_results_take_no_memory_on_their_way_to_the_bucket_and_back(store: ObjectStore, tmp_path: Path) -> None:
    with keeping(tmp_path / "data", env=settings(store, f"s3://{BUCKET}/memory")) as platform:
        endpoint = platform.deploy("large", handler="large.py")
        endpoint.ask({"bytes": 10 * MB}, seconds=BUILD_S_MAX)  # What is loaded once is loaded.
        forget_peak(platform.server)
        before = peak_kb(platform.server)
        job_id = endpoint.run({"bytes": 150 * MB, "as": "string"})
        assert "COMPLETED" == ended(endpoint, job_id)["status"]
        with platform.http.stream("GET", f"/v2/{endpoint.id}/status/{job_id}") as reply:
            size = sum(map(len, reply.iter_raw()))
        growth = peak_kb(platform.server) - before
        print(f"server's peak: {before} KB before, {growth} KB more")  # noqa: T201

    assert 0 < size - 150 * MB < 400
    assert growth < GROWTH_KB_MAX


def test_a_platform_that_moves_to_a_bucket_reads_what_it_had(store: ObjectStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with keeping(data) as platform:
        endpoint = platform.deploy("large", handler="large.py")
        path = f"/v2/{endpoint.id}/status/{endpoint.run({'bytes': MB})}"
        until(lambda: platform.http.get(path).json()["status"] == "COMPLETED", BUILD_S_MAX)
        before = platform.http.get(path).json()
    with keeping(data, env=settings(store, f"s3://{BUCKET}/moved")) as platform:
        assert before == platform.http.get(path).json()
        assert ["moved/owner"] == [name for name in store.names() if name.startswith("moved/")]


def test_a_start_without_the_bucket_ends_and_says_what_to_do(store: ObjectStore, tmp_path: Path) -> None:
    started = subprocess.run(
        [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")],
        env=environment() | settings(store, "s3://nowhere/yard"),
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )

    assert 0 != started.returncode
    assert "there is no bucket nowhere" in started.stderr
    assert "create it, or set payloads to another" in started.stderr
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in started.stderr
