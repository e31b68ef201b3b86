"""A backup of a platform that works, and the platform that is made from it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx2

from tests.e2e.keeping import BUILD_S_MAX, Endpoint, Keeping, keeping, until

CLIENTS = 4
KEEP_ON_S = 1.0
WAIT_S_MAX = 2.0
LARGE_BYTES = 2_000_000


class Submitter(threading.Thread):
    """Submits again and again, and remembers when each job was acknowledged."""

    def __init__(self, platform: Keeping, endpoint: Endpoint, number: int) -> None:
        super().__init__()
        self.url, self.key, self.number = f"{platform.url}/v2/{endpoint.id}/run", platform.key, number
        self.acknowledged: dict[str, tuple[float, str]] = {}
        self.slowest_s = 0.0
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        with httpx2.Client(headers={"Authorization": self.key}, timeout=30) as http:
            while not self.over.is_set() and not self.failures:
                input, began = f"{self.number}-{len(self.acknowledged)}", time.monotonic()
                reply = http.post(self.url, json={"input": {"tag": input, "pad": "x" * 2000}})
                now = time.monotonic()
                self.slowest_s = max(self.slowest_s, now - began)
                if reply.status_code == 200:
                    self.acknowledged[reply.json()["id"]] = now, input
                else:
                    self.failures.append(reply.text)


def test_a_backup_under_load_has_every_job_that_was_acknowledged_before_it(tmp_path: Path) -> None:
    data, backup, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with keeping(data, "--store", "embedded") as platform:
        endpoint = platform.deploy("tolerant", "--workers-min", "1", "--workers-max", "1", "--env", "TOLERANT=1")
        first = endpoint.ask({}, seconds=BUILD_S_MAX)
        done = [endpoint.run({}) for _ in range(20)]
        large = platform.deploy("large", handler="large.py")
        many = [large.run({"bytes": LARGE_BYTES, "as": "string"}) for _ in range(5)]
        finished = [(endpoint, job_id) for job_id in done] + [(large, job_id) for job_id in many]
        until(lambda: all(shown(*job)["status"] == "COMPLETED" for job in finished), BUILD_S_MAX)
        results = {job_id: shown(of, job_id) for of, job_id in finished}
        assert 5 == len(list((data / "payloads").iterdir()))
        busy = platform.deploy("busy", "--workers-min", "0", "--workers-max", "0")
        submitters = [Submitter(platform, busy, number) for number in range(CLIENTS)]
        for submitter in submitters:
            submitter.start()
        try:
            time.sleep(KEEP_ON_S)
            began = time.monotonic()
            made = platform.command("backup", str(backup), "--data-dir", str(data), "--json")
            ended = time.monotonic()
            time.sleep(KEEP_ON_S)
        finally:
            for submitter in submitters:
                submitter.over.set()
                submitter.join()
        assert 0 == made.returncode, made.stderr
        assert 0 == platform.command("restore", str(backup), "--data-dir", str(again)).returncode
    assert str(backup) == json.loads(made.stdout)["backup"]
    assert [] == [failure for submitter in submitters for failure in submitter.failures]
    acknowledged = {k: v for submitter in submitters for k, v in submitter.acknowledged.items()}
    before = {job_id: input for job_id, (at, input) in acknowledged.items() if at < began}
    during = sum(began < at < ended for at, _ in acknowledged.values())
    assert min(len(before), during) > 50, "there was load before and during the backup"
    assert max(submitter.slowest_s for submitter in submitters) < WAIT_S_MAX, "no client waits for a backup"

    with keeping(again, "--store", "embedded") as platform:
        assert platform.key != (data / "admin.key").read_text().strip()
        there = Endpoint(platform, busy.id)
        found = {job["id"]: job for job in listed(there)}
        assert set() == before.keys() - found.keys()
        assert {job_id: before[job_id] for job_id in before} == {
            job_id: shown(there, job_id)["input"]["tag"] for job_id in before
        }
        for of, job_id in finished:
            assert results[job_id] == shown(Endpoint(platform, of.id), job_id), "a result reads as it did"
        assert {LARGE_BYTES} == {len(str(results[job_id]["output"])) for job_id in many}
        assert first.keys() == Endpoint(platform, endpoint.id).ask({}, seconds=BUILD_S_MAX).keys(), "and work goes on"


def shown(endpoint: Endpoint, job_id: str) -> dict[str, object]:
    return endpoint.platform.http.get(f"/v2/{endpoint.id}/requests/{job_id}").json()


def listed(endpoint: Endpoint) -> list[dict[str, object]]:
    jobs: list[dict[str, object]] = []
    after: dict[str, str] = {}
    while True:
        page = endpoint.platform.http.get(f"/v2/{endpoint.id}/requests", params={"limit": "1000", **after}).json()
        jobs += page["requests"]
        if page.get("next") is None:
            return jobs
        after = {"after": page["next"]}
