"""`runyard retry`, and `runyard jobs --dead`: jobs that ended without a result, why, and their way back into the queue."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from runyard.cli.output import cut, json_option, note, print_json, print_table
from runyard.cli.platform import control, endpoint_named

if TYPE_CHECKING:
    from runyard.client.shapes import Attempt
    from runyard.wire import control as wire
    from runyard.wire.jobs import AttemptBody

ERROR_LENGTH = 60


@click.command()
@click.argument("endpoint")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--all-dead", is_flag=True, help="All jobs that failed or timed out, but for the quarantined.")
@click.option("--force", is_flag=True, help="Also a quarantined JOB, which has killed workers.")
@json_option
def retry(endpoint: str, jobs: tuple[str, ...], all_dead: bool, force: bool, as_json: bool) -> None:
    """Queue JOBs of ENDPOINT again, under their ids, after they failed or timed out.

    Exits 1 when a JOB was not queued.
    """
    if all_dead == bool(jobs):
        raise click.UsageError("name the jobs to queue again, or take them all with --all-dead")
    if all_dead and force:
        raise click.UsageError("--force is for jobs that are named: jobs that kill workers are not forced in bulk")
    body = {"all": True} if all_dead else {"ids": jobs, "force": force}
    outcome = control().redrive(endpoint_named(endpoint).id, body)
    if len(jobs) == 1 and outcome.redriven and not as_json:
        click.echo(f"{jobs[0]} IN_QUEUE")
    else:
        _print_redriven(outcome, endpoint, as_json)


def print_dead_letters(endpoint: str, limit: int, after: str | None, as_json: bool) -> None:
    """One page, for people or for programs."""
    query = {"limit": str(limit)} | ({} if after is None else {"after": after})
    found = control().dead_letters(endpoint_named(endpoint).id, query)
    if as_json:
        print_json(found)
        return
    header = ("ID", "STATUS", "ENDED", "ATTEMPTS", "LAST ATTEMPT", "ERROR")
    print_table(header, [_row(job) for job in found.deadLetters])
    if found.next is not None:
        note(f"there are more: --after {found.next}")


def attempt_text(attempt: Attempt) -> str:
    """An attempt for people: when, who and why, then what the worker said last."""
    free = "" if attempt.counted else ", not counted"
    first = f"{attempt.ended_at} run {attempt.run}: {attempt.reason} ({attempt.cause}{free})"
    return "\n".join([first, *(f"  | {line}" for line in attempt.last_lines)])


def error_text(error: str) -> str:
    """A job's error as people read it: the official SDK sends a JSON object with the traceback inside."""
    said = _sdk_error(error)
    return str(said.get("error_traceback") or said.get("error_message") or error).strip()


def error_line(error: str) -> str:
    """What went wrong, without the traceback."""
    return str(_sdk_error(error).get("error_message") or error)


def _sdk_error(error: str) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(error, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError):
        return {}


def _row(job: wire.DeadLetter) -> Sequence[object]:
    status = f"{job.status}, quarantined" if job.quarantined else job.status
    error = cut(error_line(job.error), ERROR_LENGTH) if job.error else ""
    last = _how_it_ended(job.attempts[-1]) if job.attempts else ""
    return job.id, status, job.finishedAt, len(job.attempts), last, error


def _how_it_ended(attempt: AttemptBody) -> str:
    if attempt.signal is not None:
        return f"{attempt.cause}, signal {attempt.signal}"
    return attempt.cause if attempt.exitCode is None else f"{attempt.cause}, exit code {attempt.exitCode}"


def _print_redriven(outcome: wire.Redriven, endpoint: str, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
    else:
        click.echo(f"queued {outcome.redriven} jobs again")
    for refusal in outcome.refused:
        note(refusal.detail)
    if outcome.quarantined and not outcome.refused:
        note(f"left {outcome.quarantined} quarantined jobs: runyard jobs {endpoint} --dead")
    if outcome.refused:
        sys.exit(1)
