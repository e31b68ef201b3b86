"""What `--durability process` promises: the end of any process takes nothing that was acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.keeping import Endpoint, environment, keeping, until

ROUNDS = 3
JOBS = 50


@pytest.mark.parametrize("durability", ["process", "power"])
def test_no_job_is_lost_with_killed_processes(durability: str, tmp_path: Path) -> None:
    data, jobs = tmp_path / "data", list[str]()
    for round in range(ROUNDS):
        with keeping(
            data, "--store", "embedded", "--durability", durability, log=tmp_path / f"log-{round}"
        ) as platform:
            if round == 0:
                endpoint_id = platform.deploy("kept", "--workers-min", "0", "--workers-max", "0").id
            endpoint = Endpoint(platform, endpoint_id)
            jobs += [endpoint.run({"pad": "x" * 1000}) for _ in range(JOBS)]
            os.kill(platform.server, signal.SIGKILL)
            until(platform.healthy)
            jobs += [endpoint.run({}) for _ in range(JOBS)]
            platform.process.kill()
            platform.process.wait()
    with keeping(data, "--store", "embedded", "--durability", durability) as platform:
        shown = [platform.http.get(f"/v2/{endpoint_id}/status/{job_id}").json() for job_id in jobs]

    assert ["IN_QUEUE"] * len(jobs) == [one.get("status") for one in shown]


def test_a_durability_that_there_is_not_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "--durability", "much"], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )

    assert 2 == done.returncode
    assert done.stderr.endswith("\nError: durability must be power or process, not 'much'\n")
