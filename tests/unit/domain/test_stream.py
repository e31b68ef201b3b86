"""A reader's place in a stream, whatever becomes of the job meanwhile."""

import pytest

from runyard.domain.attempt import AttemptLimits
from runyard.domain.job import Job, WorkerId
from runyard.domain.stream import Place
from tests.builders import START, a_job

A, B = WorkerId("worker-a"), WorkerId("worker-b")
LATER = START + 9


def held() -> Job:
    return a_job().take(A, START)


def lost_for_good() -> Job:
    return held().lose_worker(LATER, "it died", limits=AttemptLimits(attempts_max=1))


@pytest.mark.parametrize(
    "job",
    [
        held(),
        held().progress(b"1"),
        held().complete(b"[]", LATER),
        held().fail("boom", None, LATER),
        held().cancel(LATER),
        held().time_out(LATER),
        lost_for_good(),
    ],
    ids=["running", "with progress", "completed", "failed", "cancelled", "timed out", "lost for good"],
)
def test_a_place_holds_until_the_attempt_is_given_up(job: Job) -> None:
    place = Place().in_attempt_of(held()).behind(5)

    assert Place(1, A, 5) == place == place.in_attempt_of(job)


@pytest.mark.parametrize(
    ("job", "begin"),
    [
        (held().lose_worker(START, "it died"), Place(1)),
        (held().lose_worker(START, "it died").take(B, START), Place(1, B)),
        (held().fail("boom", None, START).retry(START), Place(2)),
        (held().fail("boom", None, START).retry(START).take(A, START), Place(2, A)),
    ],
    ids=["waits again", "elsewhere", "retried", "retried on the same worker"],
)
def test_another_attempt_begins_at_its_first_chunk(job: Job, begin: Place) -> None:
    assert begin == Place(1, A, 5).in_attempt_of(job)
