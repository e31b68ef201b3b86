"""Attempts that gave no result: what they cost a job, what is remembered of them, and when it is enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.attempt import (
    ATTEMPTS_KEPT_MAX,
    EXCUSED,
    EXCUSED_MAX,
    LAST_LINES_BYTES_MAX,
    LAST_LINES_MAX,
    Attempt,
    AttemptLimits,
    Cause,
    Evidence,
    WorkerId,
    bounded,
    deaths,
    remembered,
)
from runyard.domain.errors import BadRequest, InvalidTransition, Quarantined
from runyard.domain.job import Job, JobState
from runyard.domain.worker import Exit, cause_of_end
from tests.builders import START, WORKER, a_job, a_job_that_is

CRASH = Evidence(Cause.WORKER_DIED, exit_code=None, signal=9, last_lines=("loading", "boom"))
STOPPED = Evidence(Cause.WORKER_STOPPED, exit_code=0)
FORGOT = Evidence(Cause.RESULT_LOST)


def tried(*ends: Evidence, limits: AttemptLimits | None = None) -> Job:
    """A job that a new worker takes and loses in each of these ways, a second apart."""
    job = a_job()
    for number, evidence in enumerate(ends):
        at = START + 2 * number
        job = job.take(WorkerId(f"w{number}"), at).lose_worker(at + 1, "gone", evidence, limits or AttemptLimits())
    return job


@pytest.mark.row("F034")
def test_a_job_remembers_who_had_it_when_and_how_that_ended() -> None:
    job = tried(CRASH)

    assert (Attempt(1, WorkerId("w0"), START, START + 1, "gone", True, CRASH),) == job.attempts


@pytest.mark.row("F034")
def test_a_job_that_failed_after_its_last_attempt_has_the_whole_history() -> None:
    job = tried(FORGOT, STOPPED, CRASH, FORGOT)

    assert (JobState.FAILED, "gone (attempt 3 of 3; no attempt is left)", False) == (
        job.state,
        job.error,
        job.quarantined,
    )
    assert [("w0", True), ("w1", False), ("w2", True), ("w3", True)] == [(a.worker_id, a.counted) for a in job.attempts]


def test_what_is_not_the_jobs_doing_costs_no_attempt_but_is_counted_as_lost() -> None:
    job = tried(*[STOPPED] * 5, Evidence(Cause.PLATFORM_DIED))

    assert (JobState.IN_QUEUE, 6, 6) == (job.state, job.attempts_lost, job.attempts_excused)
    assert {WorkerId(f"w{number}") for number in range(6)} == job.fenced_from


def test_a_job_is_not_excused_for_ever() -> None:
    assert JobState.IN_QUEUE == tried(*[STOPPED] * (EXCUSED_MAX + 2)).state
    assert JobState.FAILED == tried(*[STOPPED] * (EXCUSED_MAX + 3)).state


def test_the_number_of_attempts_is_a_setting() -> None:
    limits = AttemptLimits(attempts_max=1)

    assert "gone (attempt 1 of 1; no attempt is left)" == tried(CRASH, limits=limits).error
    assert JobState.IN_QUEUE == tried(*[FORGOT] * 4, limits=AttemptLimits(attempts_max=5)).state


def test_a_job_that_kills_worker_after_worker_is_quarantined() -> None:
    job = tried(CRASH, CRASH, CRASH)

    assert (JobState.FAILED, True) == (job.state, job.quarantined)
    assert "gone (attempt 3 of 3; no attempt is left); quarantined: 3 workers died with this job in hand" == job.error


def test_quarantine_can_come_before_the_last_attempt() -> None:
    limits = AttemptLimits(attempts_max=9, quarantine_after=2)
    job = tried(CRASH, FORGOT, CRASH, limits=limits)

    assert (JobState.FAILED, True) == (job.state, job.quarantined)
    assert JobState.IN_QUEUE == tried(CRASH, FORGOT, FORGOT, limits=limits).state


def test_quarantine_comes_at_the_last_attempt_at_the_latest_and_never_for_one_death() -> None:
    assert tried(CRASH, CRASH, limits=AttemptLimits(attempts_max=2)).quarantined
    assert not tried(CRASH, limits=AttemptLimits(attempts_max=1)).quarantined


@pytest.mark.parametrize("wrong", [{"attempts_max": 0}, {"attempts_max": 21}, {"quarantine_after": 1}])
def test_limits_out_of_their_bounds_are_refused_by_name(wrong: dict[str, int]) -> None:
    [name] = wrong

    with pytest.raises(BadRequest, match=name):
        AttemptLimits(**wrong)


def test_a_quarantined_job_is_retried_only_where_somebody_insists() -> None:
    job = tried(CRASH, CRASH, CRASH)

    with pytest.raises(Quarantined, match=r"3 workers died.*--force.*\"force\": true"):
        job.retry(START + 9)
    again = job.retry(START + 9, force=True)
    assert (JobState.IN_QUEUE, 2, 0, 0, False) == (
        again.state,
        again.run,
        again.attempts_lost,
        again.attempts_excused,
        again.quarantined,
    )
    assert job.attempts == again.attempts, "what happened is not forgotten"


def test_insisting_does_not_retry_what_has_not_failed() -> None:
    with pytest.raises(InvalidTransition, match="only FAILED or TIMED_OUT"):
        a_job_that_is(JobState.COMPLETED).retry(START, force=True)


def test_deaths_of_an_earlier_run_do_not_count_in_the_next() -> None:
    job = tried(CRASH, CRASH, CRASH).retry(START + 9, force=True)
    job = job.take(WORKER, START + 10).lose_worker(START + 11, "gone", CRASH)

    assert (JobState.IN_QUEUE, 1, 3) == (job.state, deaths(job.attempts, 2), deaths(job.attempts, 1))


def test_a_job_that_ran_too_long_remembers_what_its_worker_said() -> None:
    job = a_job().take(WORKER, START).time_out(START + 600, ("step 7 of 9",))

    [attempt] = job.attempts
    assert (Cause.TIMED_OUT, ("step 7 of 9",), 0) == (
        attempt.evidence.cause,
        attempt.evidence.last_lines,
        job.attempts_lost,
    )


@pytest.mark.parametrize(
    ("exit", "asked", "cause"),
    [
        (Exit(1), False, Cause.WORKER_DIED),
        (Exit(0), False, Cause.WORKER_DIED),
        (Exit(None, 9), True, Cause.WORKER_STOPPED),
        (Exit(None, 9, with_platform=True), False, Cause.PLATFORM_DIED),
        (Exit(None, 9, with_platform=True), True, Cause.PLATFORM_DIED),
        (None, False, Cause.PLATFORM_DIED),
    ],
)
def test_the_end_of_a_worker_says_whose_doing_it_was(exit: Exit | None, asked: bool, cause: Cause) -> None:
    assert cause == cause_of_end(exit, asked=asked)


def test_the_last_lines_are_the_last_and_not_too_many() -> None:
    assert tuple(f"line {number}" for number in range(90, 100)) == bounded(f"line {number}" for number in range(100))
    assert ("a" * (LAST_LINES_BYTES_MAX - 3), "end") == bounded(["lost", "a" * 5000, "end"])
    assert () == bounded([])


@given(st.lists(st.text(), max_size=30))
def test_last_lines_stay_within_their_bounds(lines: list[str]) -> None:
    kept = bounded(line * 50 for line in lines)

    assert len(kept) <= LAST_LINES_MAX
    assert sum(len(line.encode("utf-8", "replace")) for line in kept) <= LAST_LINES_BYTES_MAX


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=60))
def test_the_history_is_bounded_and_what_counts_in_this_run_stays(tries: list[tuple[int, bool]]) -> None:
    history: tuple[Attempt, ...] = ()
    tries = sorted(tries, key=lambda item: item[0])
    for number, (run, counted) in enumerate(tries):
        history = remembered(history, Attempt(run, WORKER, number, number + 1, "gone", counted))

    assert len(history) == min(len(tries), ATTEMPTS_KEPT_MAX)
    assert sorted(history, key=lambda attempt: attempt.taken_at) == list(history)
    last_run = tries[-1][0] if tries else 0
    counting = [number for number, (run, counted) in enumerate(tries) if run == last_run and counted]
    assert (
        counting[-(ATTEMPTS_KEPT_MAX - 1) :]
        == [int(a.taken_at) for a in history if a.run == last_run and a.counted][-(ATTEMPTS_KEPT_MAX - 1) :]
    )


@given(st.lists(st.sampled_from(list(Cause)[:4])), st.integers(1, 6), st.integers(2, 6))
def test_a_job_always_ends_and_never_too_early(causes: list[Cause], attempts_max: int, quarantine_after: int) -> None:
    limits = AttemptLimits(attempts_max=attempts_max, quarantine_after=quarantine_after)
    job, used, died = a_job(), 0, 0
    for number, cause in enumerate(causes):
        if job.terminal:
            break
        excused = cause in EXCUSED and job.attempts_excused < EXCUSED_MAX
        used, died = used + (not excused), died + (cause is Cause.WORKER_DIED)
        job = job.take(WorkerId(f"w{number}"), START).lose_worker(START, "gone", Evidence(cause), limits)

        enough = not excused and (used >= attempts_max or (died >= quarantine_after))
        assert enough == job.terminal
        assert job.quarantined == (job.terminal and died >= max(2, min(quarantine_after, attempts_max)))
