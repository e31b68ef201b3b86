"""`runyard webhooks`: what was told to the webhooks of jobs, and what could not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runyard.cli.output import cut, json_option, note, print_json, print_table, seconds
from runyard.cli.platform import control, endpoint_named

if TYPE_CHECKING:
    from runyard.wire import webhooks as wire

STATES = ("PENDING", "DELIVERED", "FAILED")
SAID_LENGTH = 60


@click.group()
def webhooks() -> None:
    """List, show and repeat webhook deliveries; show and replace the secret that signs them."""


@webhooks.command("list")
@click.argument("endpoint")
@click.option("--job", metavar="ID", help="Only those about this job.")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--after", metavar="CURSOR", help="Go on where the list before ended.")
@json_option
def list_deliveries(
    endpoint: str, job: str | None, state: str | None, limit: int, after: str | None, as_json: bool
) -> None:
    """List the webhook deliveries of ENDPOINT (an id or a name), newest first."""
    wanted = {"jobId": job, "state": state, "limit": str(limit), "after": after}
    found = control().webhooks(endpoint_named(endpoint).id, {name: value for name, value in wanted.items() if value})
    if as_json:
        print_json(found)
        return
    header = ("ID", "JOB", "STATE", "CREATED", "TRIES", "NEXT TRY", "LAST ANSWER")
    print_table(header, [_row(delivery) for delivery in found.webhooks])
    if found.next is not None:
        note(f"there are more: --after {found.next}")


@webhooks.command()
@click.argument("endpoint")
@click.argument("delivery")
@json_option
def show(endpoint: str, delivery: str, as_json: bool) -> None:
    """Show DELIVERY of ENDPOINT: where it goes, and what each try gave."""
    found = control().webhook(endpoint_named(endpoint).id, delivery)
    if as_json:
        print_json(found)
        return
    rows = (
        ("id", found.id),
        ("job", found.jobId),
        ("to", found.url),
        ("state", found.state),
        ("created", found.createdAt),
        ("finished", found.finishedAt),
        ("next try", found.nextTryAt),
    )
    for name, value in rows:
        if value is not None:
            click.echo(f"{name + ':':<10}{value}")
    if found.tries:
        tries = [(attempt.at, seconds(attempt.durationMs), _said(attempt)) for attempt in found.tries]
        print_table(("TRIED", "TOOK", "ANSWER"), tries)


@webhooks.command()
@click.argument("endpoint")
@click.argument("delivery")
@json_option
def redeliver(endpoint: str, delivery: str, as_json: bool) -> None:
    """Try DELIVERY of ENDPOINT again, now, whatever became of it."""
    again = control().redeliver(endpoint_named(endpoint).id, delivery)
    if as_json:
        print_json(again)
    else:
        note(f"{again.id} is tried again: runyard webhooks show {endpoint} {again.id}")


@webhooks.command()
@click.argument("endpoint")
@click.option("--rotate", is_flag=True, help="Make a new one; the old one signs beside it for a day.")
@json_option
def secret(endpoint: str, rotate: bool, as_json: bool) -> None:
    """Print the secret that signs the webhooks of ENDPOINT (whsec_...)."""
    found = control().webhook_secret(endpoint_named(endpoint).id, rotate=rotate)
    if as_json:
        print_json(found)
        return
    if found.previous is not None:
        note(f"the one before signs beside it until {found.previous.expiresAt}")
    click.echo(found.secret)


def _row(delivery: wire.Delivery) -> tuple[object, ...]:
    last = cut(_said(delivery.tries[-1]), SAID_LENGTH) if delivery.tries else ""
    tries = len(delivery.tries)
    return delivery.id, delivery.jobId, delivery.state, delivery.createdAt, tries, delivery.nextTryAt, last


def _said(attempt: wire.Try) -> str:
    """One line: what a receiver says is not to rule the terminal."""
    said = attempt.error or f"{attempt.status} {attempt.excerpt}"
    return "".join(letter if letter.isprintable() else " " for letter in said).strip()
