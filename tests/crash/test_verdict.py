"""The judge tells what was promised from what was not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.crash.record import End, Facts, Fault, Line, Ticket, parse
from tests.crash.verdict import Verdict, judge

DONE = End("COMPLETED", "client-1-1")
FAILED = End("FAILED", '{"error_message": "asked to fail: client-1-1"}')
SPENT = End("FAILED", "worker b ended (attempt 3 of 3; no attempt is left)")


def a_ticket(**changes: Any) -> Ticket:
    """A job that was submitted at 10 and answers its token."""
    values = {"fails": False, "generates": False, "sent_at": 10.0, "keep_s": 1800.0}
    return Ticket(**{"id": "job", "path": "/v2/e", "token": "client-1-1"} | values | changes)


def started(at: float, worker: str = "a") -> Line:
    return Line(at, "start", "job", worker, 1)


def verdict_on(
    ticket: Ticket, *lines: Line, faults: tuple[Fault, ...] = (), final: End | None = DONE, read_at: float = 100
) -> Verdict:
    return judge(Facts(tickets=(ticket,), lines=lines, faults=faults, final={"job": final}, read_at=read_at))


def test_a_job_that_ran_once_and_answered_rightly_is_neither() -> None:
    verdict = verdict_on(a_ticket(ends=[(12.0, DONE)]), started(11))

    assert verdict.held
    assert "acknowledged=1 started=1 excused=0 spent=0 lost=0 double=0" == str(verdict)


@pytest.mark.parametrize(
    ("final", "problem"),
    [
        (None, "it was not there when all was quiet"),
        (End("IN_QUEUE", None), "it was IN_QUEUE when all was quiet"),
        (End("IN_PROGRESS", None), "it was IN_PROGRESS when all was quiet"),
        (End("COMPLETED", "client-2-9"), "it ended as COMPLETED with 'client-2-9'"),
        (End("COMPLETED", None), "it ended as COMPLETED with None"),
        (End("CANCELLED", None), "it ended as CANCELLED with None"),
        (FAILED, f"it ended as FAILED with {FAILED.output!r}"),
        (SPENT, f"it was given up after 0 losses of workers: {SPENT.output}"),
    ],
)
def test_an_acknowledged_job_without_its_end_is_lost(final: End | None, problem: str) -> None:
    [story] = verdict_on(a_ticket(), started(11), final=final).lost

    assert f"job: {problem}" == story.splitlines()[0]


def test_a_job_that_was_told_to_be_missing_is_lost_though_it_is_there_later() -> None:
    assert verdict_on(a_ticket(missing=["404"]), started(11)).lost


def test_a_job_whose_time_is_over_may_be_gone_if_its_end_was_shown() -> None:
    seen = a_ticket(ends=[(12.0, DONE)], keep_s=60.0)

    assert verdict_on(seen, started(11), final=None, read_at=71).held
    assert verdict_on(seen, started(11), final=None, read_at=69).lost
    assert verdict_on(a_ticket(keep_s=60.0), started(11), final=None, read_at=71).lost


def test_an_end_that_was_shown_stays_unless_a_retry_was_sent() -> None:
    changed = a_ticket(ends=[(12.0, DONE)], cancels=[13.0])

    assert verdict_on(changed, final=End("CANCELLED", None)).lost

    retried = a_ticket(fails=True, ends=[(12.0, FAILED)], retries=[12.5], cancels=[13.0])
    assert verdict_on(retried, started(11), final=End("CANCELLED", None)).held


def test_a_job_may_be_cancelled_by_whoever_asked_for_it_even_without_an_answer() -> None:
    assert verdict_on(a_ticket(cancels=[11.0]), final=End("CANCELLED", None)).held


def test_a_promised_retry_that_never_starts_is_lost() -> None:
    ticket = a_ticket(fails=True, ends=[(12.0, FAILED)], retries=[12.5], promised_retries=[12.5])

    assert verdict_on(ticket, started(11), final=FAILED).lost
    assert verdict_on(ticket, started(11), started(13), final=FAILED).held


def test_pieces_of_another_job_in_a_stream_are_a_loss() -> None:
    ticket = a_ticket(chunks=["client-1-1 0", "client-1-10 0"])

    assert verdict_on(ticket, started(11)).lost


def test_a_second_start_without_a_reason_is_a_double() -> None:
    verdict = verdict_on(a_ticket(), started(11), started(14, "b"))

    assert (1, 0) == (len(verdict.double), verdict.excused)


def test_a_second_start_of_a_job_that_nobody_was_told_of_is_a_double_too() -> None:
    lines = (started(11)._replace(job_id="other"), started(14, "b")._replace(job_id="other"))

    assert 1 == len(verdict_on(a_ticket(), *lines).double)


@pytest.mark.parametrize(
    ("fault", "excused"),
    [
        (Fault(12, "kill worker", "a"), True),
        (Fault(12, "cut worker", "a"), True),
        (Fault(12, "kill server"), True),
        (Fault(10.5, "kill server"), True),  # It had the job already, and its handler had not started.
        (Fault(9.5, "kill server"), False),
        (Fault(14.5, "kill server"), False),
        (Fault(12, "kill worker", "b"), False),
    ],
)
def test_a_second_start_is_excused_by_what_befell_the_worker_that_had_the_job(fault: Fault, excused: bool) -> None:
    verdict = verdict_on(a_ticket(), started(11), started(14, "b"), faults=(fault,))

    assert (not excused, excused) == (bool(verdict.double), verdict.excused == 1)


def test_a_retry_excuses_one_second_start_and_no_more() -> None:
    ticket = a_ticket(fails=True, retries=[12.0])

    assert verdict_on(ticket, started(11), started(13), final=FAILED).held
    assert verdict_on(ticket, started(11), started(13), started(14), final=FAILED).double


def test_a_job_may_be_given_up_after_three_losses() -> None:
    faults = tuple(Fault(at, "kill server") for at in (11, 12, 13))
    lines = (started(10.5), started(11.5, "b"), started(12.5, "c"))

    verdict = verdict_on(a_ticket(), *lines, faults=faults, final=SPENT)
    assert (True, 2, 1) == (verdict.held, verdict.excused, verdict.spent)
    assert not verdict_on(a_ticket(), *lines, faults=faults[:2], final=SPENT).held


def test_a_story_tells_what_happened_meanwhile() -> None:
    ticket = replace(a_ticket(), cancels=[13.0])

    [story] = verdict_on(ticket, started(11), faults=(Fault(12, "kill worker", "a"),), final=None).lost

    assert [
        "job: it was not there when all was quiet",
        "    10.000 submitted with client-1-1",
        "    11.000 start on a",
        "    12.000 kill worker a",
        "    13.000 cancel sent",
    ] == story.splitlines()


def test_the_handlers_log_is_read_as_it_is_written() -> None:
    assert (Line(1.5, "start", "job", "a", 77),) == parse("1.500000 start job a 77\n")
