"""`runyard run`, `status`, `cancel`, `purge` and `jobs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runyard.cli.dead_letters import ERROR_LENGTH, attempt_text, error_line, error_text, print_dead_letters
from runyard.cli.output import cut, json_option, note, print_json, print_table, seconds
from runyard.cli.platform import control, endpoint_named, queue_of

if TYPE_CHECKING:
    from runyard.client.shapes import JobStatus
    from runyard.client.sync import Job

REQUEST_FIELDS = frozenset({"input", "webhook", "policy", "s3Config", "runyard"})
STATES = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
LOOK_EVERY_S = 2.0
"""How often a waiting terminal is told what the job waits for."""


@click.command()
@click.argument("endpoint")
@click.argument("input", default="{}", metavar="[INPUT]")
@click.option("--sync", is_flag=True, help="Wait for the job's end and print its output.")
@click.option("--stream", is_flag=True, help="Print the output of a generator as it comes, one JSON value a line.")
@click.option("--idempotency-key", metavar="KEY", help="Name the request: sent again with this key it is the same job.")
@json_option
def run(endpoint: str, input: str, sync: bool, stream: bool, idempotency_key: str | None, as_json: bool) -> None:
    """Send a request to ENDPOINT (an id or a name) and print the job's id.

    INPUT is JSON, @file, or - for standard input: what the handler finds in job["input"]. An object with "input" in it,
    and nothing but fields of a request (webhook, policy, s3Config, runyard) beside it, is the whole request. A request
    whose connection is lost is sent again, and runs once. Exits 1 when the job has failed.
    """
    if sync and stream:
        raise click.UsageError("--sync and --stream are two ways to wait: choose one")
    request = _request(_json_argument(input))
    queue = queue_of(endpoint)
    job = queue.run(
        request["input"],
        webhook=request.get("webhook"),
        policy=request.get("policy"),
        s3_config=request.get("s3Config"),
        idempotency_key=idempotency_key,
        id=_chosen_id(request.get("runyard")),
    )
    try:
        if stream:
            _print_stream(job, as_json)
        elif sync:
            _print_result(_wait(job), as_json)
        elif as_json:
            print_json({"id": job.id, "status": "IN_QUEUE"})
        else:
            click.echo(job.id)
    except KeyboardInterrupt:
        note(f"\nthe job goes on: runyard status {endpoint} {job.id}")
        raise


@click.command()
@click.argument("endpoint")
@click.argument("job")
@json_option
def status(endpoint: str, job: str, as_json: bool) -> None:
    """Show where JOB of ENDPOINT is and what it gave, as long as that is kept. Exits 0 whatever its state."""
    found = _found(queue_of(endpoint).job(job))
    if as_json:
        print_json(found)
    else:
        _print_status(found)


@click.command()
@click.argument("endpoint")
@click.argument("job")
@json_option
def cancel(endpoint: str, job: str, as_json: bool) -> None:
    """Stop JOB of ENDPOINT, waiting or running."""
    _print_state(queue_of(endpoint).job(job).cancel(), as_json)


@click.command()
@click.argument("endpoint")
@json_option
def purge(endpoint: str, as_json: bool) -> None:
    """Cancel all jobs that wait at ENDPOINT; running ones go on."""
    removed = queue_of(endpoint).purge()
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"cancelled {removed} waiting jobs")


@click.command("jobs")
@click.argument("endpoint")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES, case_sensitive=False), help="Repeatable.")
@click.option("--worker", metavar="ID", help="Only jobs of this worker.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--after", metavar="CURSOR", help="Go on where the list before ended.")
@click.option("--dead", is_flag=True, help="Only jobs that failed or timed out, with how their last attempt ended.")
@json_option
def list_jobs(
    endpoint: str,
    states: tuple[str, ...],
    worker: str | None,
    limit: int,
    after: str | None,
    dead: bool,
    as_json: bool,
) -> None:
    """List the jobs of ENDPOINT (an id or a name), newest first."""
    if dead:
        if states or worker:
            raise click.UsageError("--dead has states of its own, of all workers: leave --state and --worker out")
        print_dead_letters(endpoint, limit, after, as_json)
        return
    wanted = {"states": ",".join(states), "workerId": worker, "limit": str(limit), "after": after}
    found = control().jobs(endpoint_named(endpoint).id, {name: value for name, value in wanted.items() if value})
    if as_json:
        print_json(found)
        return
    rows = [
        (
            job.id,
            job.status,
            job.createdAt,
            seconds(job.delayTime),
            seconds(job.executionTime),
            job.workerId,
            cut(error_line(job.error), ERROR_LENGTH) if job.error else "",
        )
        for job in found.requests
    ]
    print_table(("ID", "STATUS", "CREATED", "DELAY", "EXECUTION", "WORKER", "ERROR"), rows)
    if found.next is not None:
        note(f"there are more: --after {found.next}")


def _json_argument(text: str) -> Any:
    """The value of INPUT-JSON, @file or -."""
    import msgspec

    try:
        if text == "-":
            data = sys.stdin.buffer.read()
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        else:
            data = text.encode()
        return msgspec.json.decode(data)
    except OSError as error:
        raise click.UsageError(f"cannot read {text[1:]}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise click.UsageError(f"INPUT is not valid JSON: {error}") from error


def _request(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "input" in value and REQUEST_FIELDS.issuperset(value):  # pyright: ignore
        return value  # pyright: ignore[reportUnknownVariableType]
    return {"input": value}


def _chosen_id(added: Any) -> str | None:
    """The id that a whole request asks for in its `runyard` object."""
    if added is None:
        return None
    if isinstance(added, dict) and added.keys() <= {"id"}:  # pyright: ignore[reportUnknownMemberType]
        return added.get("id")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    raise click.UsageError('"runyard" in a request may have an "id" and nothing else')


def _wait(job: Job) -> JobStatus:
    """The job's end. A terminal is told meanwhile what it waits for."""
    if not sys.stderr.isatty():
        return job.wait()
    told: str | None = None
    while not (now := job.wait(LOOK_EVERY_S)).ended:
        reason = None if now.queue_reason is None else f"{now.queue_reason.code}: {now.queue_reason.message}"
        if reason is not None and reason != told:
            note(f"waiting, {reason}")
            told = reason
    return now


def _print_stream(job: Job, as_json: bool) -> None:
    for chunk in job.stream():
        print_json({"output": chunk} if as_json else chunk)
    end = job.status()
    if as_json:
        print_json(end)
    _exit_by(end)


def _print_result(end: JobStatus, as_json: bool) -> None:
    if as_json:
        print_json(end)
    elif end.ok:
        print_json(end.output)
    _exit_by(end)


def _exit_by(end: JobStatus) -> None:
    if not end.ok:
        note(f"job {end.id} {end.status}" + (f": {error_text(end.error)}" if end.error else ""))
        sys.exit(1)


def _print_state(now: JobStatus, as_json: bool) -> None:
    if as_json:
        print_json({"id": now.id, "status": now.status})
    else:
        click.echo(f"{now.id} {now.status}")


def _found(job: Job) -> JobStatus:
    """With its input and attempts where it has failed or expired."""
    from runyard.client.errors import ApiError

    try:
        found = job.status()
    except ApiError as error:
        if error.status != ApiError.NOT_FOUND:
            raise
        return job.detail()
    return found if found.ok else job.detail()


def _print_status(now: JobStatus) -> None:
    import msgspec

    reason = now.queue_reason
    rows = [
        ("id", now.id),
        ("status", now.status),
        ("waiting for", None if reason is None else f"{reason.code}: {reason.message}"),
        ("worker", now.worker_id),
        ("delay", None if now.delay_ms is None else seconds(now.delay_ms)),
        ("execution", None if now.execution_ms is None else seconds(now.execution_ms)),
        ("quarantined", "yes: retry it with --force, or leave it" if now.quarantined else None),
        *(("attempt", attempt_text(attempt)) for attempt in now.attempts),
        ("error", None if now.error is None else error_text(now.error)),
        ("output", None if now.output is None else msgspec.json.encode(now.output).decode()),
    ]
    for name, value in rows:
        if value is not None:
            click.echo(f"{name + ':':<13}{value}")
