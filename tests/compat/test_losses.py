"""Results that never come: the worker dies, or ends a job without a word. Such a job is tried again, three times in all."""

from __future__ import annotations

import pytest

from tests.compat.early import Doomed
from tests.compat.platform import Endpoint, Platform, result_of, until

REASONS = {
    "SIGKILL": (
        "worker {worker} ended (killed by signal 9) (attempt 3 of 3; no attempt is left)"
        "; quarantined: 3 workers died with this job in hand"
    ),
    "not JSON": "the worker finished the job without sending a result (attempt 3 of 3; no attempt is left)",
}


@pytest.mark.parametrize("way", REASONS)
def test_a_job_that_loses_every_worker_fails_after_three_and_says_why(doomed: dict[str, Doomed], way: str) -> None:
    endpoint = doomed[way].endpoint

    end = endpoint.ended(doomed[way].job_id)

    assert {"status": "FAILED", "error": REASONS[way].format(worker=end["workerId"])} == result_of(end)
    assert {"completed": 0, "failed": 1, "inProgress": 0, "inQueue": 0, "retried": 2} == endpoint.sdk.health()["jobs"]
    endpoint.stopped_worker(end["workerId"])
    assert 3 == len(endpoint.stopped())  # A worker that has lost a result gets no second chance.


@pytest.mark.parametrize("way", ["sys.exit", "os._exit"])
def test_a_job_whose_worker_ends_is_done_by_another(outcomes: Endpoint, way: str) -> None:
    first = outcomes.ask({"do": "worker"})["workerId"]
    retried = outcomes.sdk.health()["jobs"]["retried"]

    reply = outcomes.ask({"do": way, "only_on": first})

    assert {"status": "COMPLETED", "output": {"survived_on": reply["workerId"]}} == result_of(reply)
    assert reply["workerId"] != first
    assert retried + 1 == outcomes.sdk.health()["jobs"]["retried"]
    assert "exit code 3" == outcomes.stopped_worker(first)["runyard"]["exit"]


@pytest.mark.row("F125")
def test_a_worker_that_finds_itself_unfit_says_so_and_the_waiting_job_shows_it(platform: Platform) -> None:
    unfit = platform.deploy("unfit.py", "unfit", "--workers-max", "1")
    job = unfit.run({"n": 1})

    worker = until(lambda: next(iter(unfit.stopped().values()), None), "a worker ends")

    reason = "weights_are_there: RuntimeError: no weights on the disk"
    facts = worker["runyard"]
    assert ("UNHEALTHY", reason, "exit code 1") == (worker["status"], facts["reason"], facts["exit"])
    assert f"unhealthy: {reason}" in unfit.logs(workerId=worker["id"], source="system")
    shown = unfit.status(job)
    assert ("IN_QUEUE", "crash_loop") == (shown["status"], shown["queueReason"]["code"])
    assert "no weights on the disk" in shown["queueReason"]["message"]
    unfit.sdk.purge_queue()
