"""`runyard endpoints`, `workers` and `delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runyard.cli.output import json_option, note, print_json, print_table
from runyard.cli.platform import control, endpoint_named
from runyard.cli.runs import run_rows
from runyard.cli.terms import term_rows

if TYPE_CHECKING:
    from runyard.wire import control as wire


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def endpoints(context: click.Context, as_json: bool) -> None:
    """List the endpoints, or show one."""
    if context.invoked_subcommand is None:
        _list(as_json)
    elif as_json:
        raise click.UsageError(f"--json goes behind {context.invoked_subcommand}")


@endpoints.command()
@click.argument("endpoint")
@json_option
def show(endpoint: str, as_json: bool) -> None:
    """Show ENDPOINT (an id or a name): how it runs, and what holds for its jobs."""
    found = endpoint_named(endpoint)
    if as_json:
        print_json(found)
        return
    reason = found.runyard.queueReason
    rows = (
        ("id", found.id),
        ("name", found.name),
        ("version", found.runyard.version),
        *run_rows(found),
        ("workers", f"{found.workers.min}-{found.workers.max}"),
        ("scaling", scaling_text(found)),
        ("timeout", f"{found.timeout / 1000:g}s"),
        ("created", found.createdAt),
        *((("waits", f"{reason.code}: {reason.message}"),) if reason else ()),
    )
    width = max(len(name) for name, _ in rows) + 3
    for name, value in rows:
        click.echo(f"{name + ':':<{width}}{value}")
    print_table(("JOBS", "HOLDS", "SET BY"), term_rows(found.runyard.jobs))


def _list(as_json: bool) -> None:
    found = control().endpoints()
    if as_json:
        print_json({"endpoints": found})
        return
    rows = [
        (
            endpoint.id,
            endpoint.name,
            endpoint.runyard.version,
            f"{endpoint.workers.min}-{endpoint.workers.max}",
            scaling_text(endpoint),
            endpoint.createdAt,
        )
        for endpoint in found
    ]
    print_table(("ID", "NAME", "VERSION", "WORKERS", "SCALING", "CREATED"), rows)


@click.command()
@click.argument("endpoint")
@click.option("--all", "show_all", is_flag=True, help="Also the last workers that ended, and how.")
@json_option
def workers(endpoint: str, show_all: bool, as_json: bool) -> None:
    """List the workers of ENDPOINT (an id or a name)."""
    found = control().workers(endpoint_named(endpoint).id)
    if as_json:
        print_json(found)
        return
    shown = [*found.workers, *(found.runyard.stopped if show_all else ())]
    print_table(("ID", "STATUS", "VERSION", "JOBS", "UPTIME", "NOTE"), [_worker_row(worker) for worker in shown])


@click.command()
@click.argument("endpoint")
@json_option
def delete(endpoint: str, as_json: bool) -> None:
    """Delete ENDPOINT (an id or a name): its jobs are cancelled and its workers stopped."""
    found = endpoint_named(endpoint)
    control().delete(found.id)
    if as_json:
        print_json({"id": found.id, "name": found.name})
    else:
        note(f"deleted {found.name} ({found.id})")


def scaling_text(endpoint: wire.Endpoint) -> str:
    """`queue-delay 4s` or `request-count 4`."""
    from runyard.wire.control import QueueDelayScaling

    scaling = endpoint.scaling
    if isinstance(scaling, QueueDelayScaling):
        return f"queue-delay {scaling.queueDelay:g}s"
    return f"request-count {scaling.requestCount}"


def _worker_row(worker: wire.Worker) -> tuple[object, ...]:
    extra = worker.runyard
    status = worker.status if extra.stoppedAt is None else "STOPPED"
    version = f"{worker.version} (old)" if worker.isStale else worker.version
    uptime = None if worker.uptimeSeconds is None else f"{worker.uptimeSeconds}s"
    said = ", ".join(part for part in (extra.exit, extra.reason) if part)
    return worker.id, status, version, extra.jobs, uptime, said
