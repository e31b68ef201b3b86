"""What the roster knows of a worker between its jobs."""

from runyard.domain.job import JobId
from runyard.services.roster import LAST_WORDS_S, LiveWorker
from tests.builders import START, a_worker

A, B = JobId("a"), JobId("b")


def test_a_line_is_about_the_only_job_that_a_worker_holds() -> None:
    live = LiveWorker(a_worker())
    live.took(A, START)
    assert live.job_of_output(START) == A

    live.took(B, START)
    assert live.job_of_output(START) is None


def test_a_line_that_comes_after_the_result_is_about_the_job_that_has_just_ended() -> None:
    live = LiveWorker(a_worker())
    live.took(A, START)
    live.dropped(A, START + 5)

    assert live.job_of_output(START + 5) == A
    assert live.job_of_output(START + 5 + LAST_WORDS_S) is None


def test_a_line_of_a_worker_that_never_had_a_job_is_about_none() -> None:
    assert LiveWorker(a_worker()).job_of_output(START) is None


def test_a_line_that_comes_after_the_next_job_is_about_that() -> None:
    live = LiveWorker(a_worker())
    live.took(A, START)
    live.dropped(A, START)
    live.took(B, START)

    assert live.job_of_output(START) == B
