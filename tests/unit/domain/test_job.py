"""The life of a job."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.attempt import ATTEMPTS_MAX
from runyard.domain.errors import BadRequest, InvalidTransition
from runyard.domain.job import (
    RETRYABLE,
    TERMINAL,
    TRANSITIONS,
    ExecutionPolicy,
    Job,
    JobState,
    WorkerId,
    check_execution_timeout,
)
from runyard.domain.terms import QUEUE, TtlScope
from tests.builders import START, WORKER, a_job, a_job_that_is

OTHER = WorkerId("worker-2")
LATER = START + 10
Q, P = JobState.IN_QUEUE, JobState.IN_PROGRESS
DONE, FAILED, CANCELLED, TIMED_OUT = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT

VERBS: dict[str, Callable[[Job], Job]] = {
    "take": lambda job: job.take(OTHER, LATER),
    "give back": lambda job: job.give_back(),
    "lose worker": lambda job: job.lose_worker(LATER, "it died"),
    "lose worker for good": lambda job: job._replace(attempts_lost=ATTEMPTS_MAX - 1).lose_worker(LATER, "it died"),
    "complete": lambda job: job.complete(b"1", LATER),
    "fail": lambda job: job.fail("boom", None, LATER),
    "time out": lambda job: job.time_out(LATER),
    "cancel": lambda job: job.cancel(LATER),
    "retry": lambda job: job.retry(LATER),
}
# The picture at the top of domain/job.py, edge by edge.
EDGES: dict[tuple[JobState, str], JobState] = {
    (Q, "take"): P,
    (Q, "cancel"): CANCELLED,
    (Q, "fail"): FAILED,
    (P, "give back"): Q,
    (P, "lose worker"): Q,
    (P, "lose worker for good"): FAILED,
    (P, "complete"): DONE,
    (P, "fail"): FAILED,
    (P, "time out"): TIMED_OUT,
    (P, "cancel"): CANCELLED,
    (FAILED, "retry"): Q,
    (TIMED_OUT, "retry"): Q,
}


@pytest.mark.parametrize(("edge", "target"), EDGES.items(), ids=str)
def test_a_job_goes_along_every_edge_of_its_picture(edge: tuple[JobState, str], target: JobState) -> None:
    state, verb = edge

    assert target == VERBS[verb](a_job_that_is(state)).state
    assert target in TRANSITIONS[state]


@pytest.mark.parametrize(
    ("state", "verb"), [(state, verb) for state in JobState for verb in VERBS if (state, verb) not in EDGES]
)
def test_a_job_goes_nowhere_else(state: JobState, verb: str) -> None:
    job = a_job_that_is(state)

    with pytest.raises(InvalidTransition, match=f"job {job.id} is {state}"):
        VERBS[verb](job)


def test_the_table_has_no_edge_that_the_picture_lacks() -> None:
    drawn = {(state, target) for (state, _), target in EDGES.items()}

    assert drawn == {(state, target) for state, targets in TRANSITIONS.items() for target in targets}


def test_what_is_terminal_leads_at_most_back_to_the_queue() -> None:
    assert {state for state in JobState if TRANSITIONS[state] <= {Q}} == TERMINAL
    assert {state for state in TERMINAL if Q in TRANSITIONS[state]} == RETRYABLE


def test_a_taken_job_is_held_by_its_worker_alone() -> None:
    job = a_job().take(WORKER, START + 1)

    assert job.held_by(WORKER)
    assert not job.held_by(OTHER)
    assert not a_job().held_by(WORKER)
    assert not job.complete(None, START + 2).held_by(WORKER)


def test_giving_back_undoes_a_take() -> None:
    job = a_job()

    assert job == job.take(WORKER, LATER).give_back()


def test_a_job_that_lost_its_worker_waits_anew_and_never_for_that_worker() -> None:
    job = a_job_that_is(P).progress(b'"half"').lose_worker(LATER, "it died")

    assert (Q, None, None, LATER, 1) == (job.state, job.lease, job.output, job.queued_at, job.attempts_lost)
    assert frozenset({WORKER}) == job.fenced_from
    assert START == job.created_at


def test_a_job_fails_with_the_reason_when_it_has_lost_its_last_worker() -> None:
    job = a_job()
    for attempt in range(ATTEMPTS_MAX):
        assert job.state is Q
        job = job.take(WorkerId(f"w{attempt}"), START + attempt).lose_worker(START + attempt + 1, "killed by signal 9")

    assert FAILED == job.state
    assert job.error == "killed by signal 9 (attempt 3 of 3; no attempt is left)"
    assert START + ATTEMPTS_MAX == job.finished_at


def test_a_retry_is_a_new_run_with_all_attempts_and_without_the_old_result() -> None:
    failed = a_job(attempts_lost=2).take(WORKER, START + 1).fail("boom", b'{"partial":1}', START + 2)
    job = failed.retry(LATER)

    assert (failed.id, failed.input, failed.created_at) == (job.id, job.input, job.created_at)
    assert (Q, 2, 0, LATER) == (job.state, job.run, job.attempts_lost, job.queued_at)
    assert (None, None, None, None) == (job.lease, job.output, job.error, job.finished_at)


def test_a_retried_job_avoids_a_worker_that_may_still_report_on_the_old_run() -> None:
    timed_out = a_job_that_is(TIMED_OUT).retry(LATER)
    lost = a_job(attempts_lost=ATTEMPTS_MAX - 1).take(WORKER, START).lose_worker(START + 1, "it went silent")

    assert frozenset({WORKER}) == timed_out.fenced_from
    assert frozenset({WORKER}) == lost.retry(LATER).fenced_from


def test_a_retried_job_may_go_to_the_worker_that_has_reported_its_failure() -> None:
    # Else a retry could not run where that worker is the only one.
    assert frozenset() == a_job_that_is(FAILED).retry(LATER).fenced_from


def test_a_fence_outlives_the_run() -> None:
    job = a_job().take(WORKER, START).lose_worker(START + 1, "it died").take(OTHER, START + 2)

    assert frozenset({WORKER}) == job.fail("boom", None, START + 3).retry(LATER).fenced_from


@pytest.mark.parametrize("state", [Q, *sorted(TERMINAL)])
def test_progress_is_of_running_jobs_only(state: JobState) -> None:
    with pytest.raises(InvalidTransition):
        a_job_that_is(state).progress(b'"half"')


def test_progress_shows_until_the_result_replaces_it() -> None:
    running = a_job_that_is(P).progress(b'"half"')

    assert b'"half"' == running.output
    assert b'"whole"' == running.complete(b'"whole"', LATER).output
    assert None is running.complete(None, LATER).output
    assert None is running.time_out(LATER).output
    assert None is running.cancel(LATER).output


def test_times_are_counted_from_the_last_time_it_was_queued() -> None:
    job = a_job().take(WORKER, START + 3).lose_worker(START + 10, "it died").take(OTHER, START + 14)
    done = job.complete(None, START + 15.5)

    assert (4.0, None) == (job.delay_s, job.execution_s)
    assert (4.0, 1.5) == (done.delay_s, done.execution_s)
    assert (None, None) == (a_job().delay_s, a_job().execution_s)


def test_a_job_cancelled_while_it_waited_never_ran() -> None:
    job = a_job().cancel(LATER)

    assert (None, None) == (job.delay_s, job.execution_s)


def test_times_never_run_backwards() -> None:
    job = a_job().take(WORKER, START - 5).complete(None, START - 9)

    assert (0.0, 0.0) == (job.delay_s, job.execution_s)


def test_a_waiting_job_is_due_when_it_expires_and_a_running_one_when_its_time_is_up() -> None:
    waiting = a_job(execution_timeout_s=60.0, expires_at=START + 100)

    assert START + 100 == waiting.due_at
    assert START + 70 == waiting.take(WORKER, START + 10).due_at
    assert START + 100 == waiting.take(WORKER, START + 50).due_at


@pytest.mark.parametrize("end", ["complete", "fail", "time out", "cancel", "lose worker for good"])
def test_a_result_is_kept_for_its_retention_but_no_longer_than_the_job_may_live(end: str) -> None:
    short_retention = VERBS[end](a_job_that_is(P, retention_s=60.0))
    short_life = VERBS[end](a_job_that_is(P, retention_s=60.0, expires_at=LATER + 5))

    assert LATER + 60 == short_retention.expires_at == short_retention.due_at
    assert LATER + 5 == short_life.expires_at


def test_a_lifetime_set_by_hand_counts_from_then() -> None:
    assert LATER + 6 == a_job_that_is(DONE).expire_in(6, LATER).expires_at
    assert LATER + 6 == a_job_that_is(Q).expire_in(6, LATER).expires_at


@pytest.mark.parametrize("state", [Q, DONE, CANCELLED])
@pytest.mark.parametrize("scope", TtlScope)
def test_a_job_that_does_not_run_has_expired_from_the_moment_on_that_its_time_is_over(
    state: JobState, scope: TtlScope
) -> None:
    job = a_job_that_is(state, ttl_scope=scope, expires_at=START + 50, retention_s=48.0)

    assert (False, True) == (job.has_expired(START + 49.9), job.has_expired(START + 50))
    assert START + 50 == job.due_at


def test_a_running_job_expires_unless_its_ttl_counts_only_while_it_waits() -> None:
    times = {"expires_at": START + 50, "execution_timeout_s": 100.0}
    everywhere, in_queue = (a_job_that_is(P, ttl_scope=scope, **times) for scope in TtlScope)

    assert (START + 50, True) == (everywhere.due_at, everywhere.has_expired(START + 50))
    assert (START + 101, False) == (in_queue.due_at, in_queue.has_expired(START + 10**9))


@pytest.mark.parametrize("end", ["complete", "fail", "time out", "cancel", "lose worker for good"])
def test_where_the_ttl_counts_only_while_it_waits_a_result_has_all_of_its_retention(end: str) -> None:
    ended = VERBS[end](a_job_that_is(P, ttl_scope=QUEUE, retention_s=60.0, expires_at=LATER - 5))

    assert LATER + 60 == ended.expires_at
    assert (False, True) == (ended.has_expired(LATER + 59), ended.has_expired(LATER + 60))


def test_a_job_that_waits_again_has_the_ttl_of_its_submission() -> None:
    running = a_job_that_is(P, ttl_scope=QUEUE, expires_at=LATER)

    assert running.lose_worker(LATER, "it died").has_expired(LATER)
    assert running.give_back().has_expired(LATER)
    assert not running.lose_worker(LATER - 1, "it died").has_expired(LATER - 1)


def test_a_lifetime_set_by_hand_counts_in_every_state() -> None:
    running = a_job_that_is(P, ttl_scope=QUEUE).expire_in(6, LATER)

    assert (LATER + 6, True) == (running.due_at, running.has_expired(LATER + 6))
    assert LATER + 6 == running.complete(None, LATER + 1).expires_at


def test_a_retry_begins_the_ttl_anew() -> None:
    job = a_job_that_is(FAILED, ttl_s=70.0, ttl_scope=QUEUE).retry(LATER)

    assert (LATER + 70, QUEUE) == (job.expires_at, job.ttl_scope)


@pytest.mark.parametrize("ttl", [timedelta(seconds=10), timedelta(days=7)])
@pytest.mark.parametrize("timeout", [timedelta(seconds=5), timedelta(days=7), None])
def test_a_policy_reaches_to_its_bounds(ttl: timedelta, timeout: timedelta | None) -> None:
    policy = ExecutionPolicy(ttl=ttl, execution_timeout=timeout)

    assert (ttl, timeout) == (policy.ttl, policy.execution_timeout)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(milliseconds=9_999), timedelta(days=7, milliseconds=1)])
def test_a_time_to_live_out_of_bounds_is_refused_by_name(ttl: timedelta) -> None:
    with pytest.raises(BadRequest, match=r"policy\.ttl must be 10000 to 604800000 milliseconds, not \d+"):
        ExecutionPolicy(ttl=ttl)


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(milliseconds=4_999), timedelta(days=7, milliseconds=1)])
def test_an_execution_timeout_out_of_bounds_is_refused_by_name(timeout: timedelta) -> None:
    with pytest.raises(BadRequest, match=r"policy\.executionTimeout must be 5000 to 604800000 milliseconds"):
        ExecutionPolicy(execution_timeout=timeout)
    with pytest.raises(BadRequest, match="timeout must be"):
        check_execution_timeout(timeout, "timeout")


@given(
    st.lists(st.tuples(st.sampled_from(sorted(VERBS)), st.sampled_from("abc"), st.floats(0, 1e6)), max_size=30),
    st.sampled_from(TtlScope),
)
def test_whatever_happens_to_a_job_its_facts_agree(story: list[tuple[str, str, float]], scope: TtlScope) -> None:
    job, ended = a_job(ttl_scope=scope), set[tuple[int, JobState]]()
    for verb, worker, after in story:
        was = job
        try:
            job = job.take(WorkerId(worker), START + after) if verb == "take" else VERBS[verb](job)
        except InvalidTransition:
            continue
        if was.terminal:
            assert was.run + 1 == job.run, "what has ended changes by a retry only"
        if job.terminal:
            assert all(run != job.run for run, _ in ended), "a run ends once"
            ended.add((job.run, job.state))

        assert job.state in TRANSITIONS[was.state]
        assert (job.finished_at is not None) == job.terminal
        assert job.lease is not None or job.state in (Q, CANCELLED, FAILED)
        assert job.lease is None or job.state is not Q
        assert (job.error is not None) == (job.state in RETRYABLE)
        assert 0 <= job.attempts_lost <= ATTEMPTS_MAX
        assert job.due_at <= job.expires_at or (scope is QUEUE and job.state is P)
        assert not job.has_expired(job.due_at - 1)
        assert not job.terminal or scope is not QUEUE or job.expires_at == (job.finished_at or 0) + job.retention_s
        assert (job.id, job.input, job.created_at) == (was.id, was.input, was.created_at)
        assert was.fenced_from <= job.fenced_from
