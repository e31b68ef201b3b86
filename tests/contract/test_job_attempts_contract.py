"""What stores keep of a job's attempts, and journals that an older Runyard has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from runyard.adapters.stores import records
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.index import JobIndex
from runyard.domain.attempt import Cause, Evidence
from runyard.domain.errors import TooBusy
from runyard.domain.job import Job, JobState, WorkerId
from runyard.ports.stores import JobStore
from tests.builders import ENDPOINT, START, a_job
from tests.contract.job_stores import A, B, NewStore, kept, put_away, saved, stored, taken

CRASH = Evidence(Cause.WORKER_DIED, exit_code=3, last_lines=("loading", "bööm"))
STOPPED = Evidence(Cause.WORKER_STOPPED, signal=15)

# Two jobs as they were written before jobs remembered their attempts: one that lost its worker and was taken again, and
# one that waits.
OLD_ROWS = (
    (
        "dd000000029f01a56f6c642d31aa656e64706f696e742d3101ffc4077b226e223a317dcb41dad27480000000cb4082c00000"
        "000000cb409c200000000000c0c0c09ba8494e5f5155455545cb41dad27480800000cb41dad2c8e0000000010191a8776f72"
        "6b65722d61c0cb0000000000000000c0c0c090009f01a56f6c642d32aa656e64706f696e742d310202c4077b226e223a317d"
        "cb41dad27480000000cb4082c00000000000cb409c200000000000c0af68747470733a2f2f612e746573742fc09ba8494e5f"
        "5155455545cb41dad27480000000cb41dad2c8e0000000010090c0cb0000000000000000c0c0c09000"
    ),
    (
        "dd000000019402a56f6c642d31ff9bab494e5f50524f4752455353cb41dad27480800000cb41dad2c8e0000000010191a877"
        "6f726b65722d61a8776f726b65722d62cb41dad27480c00000c0c0c0"
    ),
)


async def lost(store: JobStore, job: Job, *ends: Evidence) -> Job:
    """The job after these losses, each of another worker, all of them stored."""
    for number, evidence in enumerate(ends):
        job = await saved(store, job, job.take(WorkerId(f"w{number}"), START))
        job = await saved(store, job, job.lose_worker(START + 1, "gone", evidence))
    return job


@pytest.mark.row("F034")
async def test_a_job_that_was_not_to_blame_comes_back_to_the_head_and_counts_as_retried(store: JobStore) -> None:
    await stored(store, "a", "b")
    [job] = await store.take(ENDPOINT, A, 1, START)
    await saved(store, job, job.lose_worker(START + 1, "it was stopped", STOPPED))

    assert ["a", "b"] == await taken(store, B, limit=2)
    assert 1 == (await store.counts(ENDPOINT)).retried


@pytest.mark.row("F034")
async def test_a_job_keeps_its_history_through_its_ends_and_runs(store: JobStore) -> None:
    await stored(store, "a")
    job = await kept(store, a_job("a"))
    quarantined = await lost(store, job, CRASH, STOPPED, CRASH, CRASH)

    assert quarantined == await kept(store, job)
    assert (JobState.FAILED, True, 4) == (quarantined.state, quarantined.quarantined, len(quarantined.attempts))
    again = await saved(store, quarantined, quarantined.retry(START + 9, force=True))
    assert (4, 2) == (len((await kept(store, again)).attempts), again.run)


async def test_the_evidence_counts_as_payload_and_goes_with_the_job(new_store: NewStore) -> None:
    store = new_store(10_000)
    said = Evidence(Cause.WORKER_DIED, last_lines=("x" * 2000,))
    for _ in range(9):
        await stored(store, "a")
        job = await kept(store, a_job("a"))
        failed = await lost(store, job, said, said, said)
        with pytest.raises(TooBusy):
            await store.add(a_job("b", input=b"1" * 4_000))
        await put_away(store, failed)

    await store.add(a_job("b", input=b"1" * 9_900))


async def test_the_history_is_there_again_when_the_store_is_opened_again(tmp_path: Path) -> None:
    store = EmbeddedJobs(tmp_path / "jobs.db")
    first, second = await stored(store, "a", "b")
    ended = await lost(store, first, CRASH, STOPPED, CRASH, CRASH)
    waiting = await lost(store, second, STOPPED)
    counts = await store.counts(ENDPOINT)
    await store.close()

    store = EmbeddedJobs(tmp_path / "jobs.db")
    assert [ended, waiting] == [await kept(store, first), await kept(store, second)]
    assert counts == await store.counts(ENDPOINT)
    assert (1, 4) == (counts.failed, counts.retried)
    await store.close()


def test_a_journal_of_an_older_runyard_is_read() -> None:
    index = JobIndex()
    records.replay([(number, bytes.fromhex(row)) for number, row in enumerate(OLD_ROWS, 1)], index)
    running, waiting = (index.entry(a_job(id).id) for id in ("old-1", "old-2"))
    assert running is not None
    assert waiting is not None

    expected = a_job("old-1").take(A, START + 1).lose_worker(START + 2, "it died").take(B, START + 3)
    assert expected._replace(attempts=()) == running.job
    assert a_job("old-2", webhook="https://a.test/") == waiting.job
    lost_again = running.job.lose_worker(START + 4, "gone", CRASH)
    assert (JobState.IN_QUEUE, 2, 1) == (lost_again.state, lost_again.attempts_lost, len(lost_again.attempts))
