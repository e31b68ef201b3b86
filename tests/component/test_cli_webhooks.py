"""`runyard webhooks` against the real control plane in process."""

import json
from pathlib import Path

import pytest

from runyard.domain.job import JobId, JobState
from runyard.domain.webhook import Delivery, Try
from tests.builders import START, a_job_that_is
from tests.component.test_cli import Yard, folder, yard

__all__ = ["folder", "yard"]  # Fixtures.

URL = "https://receiver.test/hook"


@pytest.fixture
def hooked(yard: Yard, folder: Path) -> Yard:
    """Three deliveries to one endpoint, the oldest of which has been refused."""
    yard.ok("deploy", str(folder))
    for number in range(3):
        job = a_job_that_is(JobState.COMPLETED, webhook=URL, endpoint_id=yard.endpoint().id)
        yard.plane.outbox.owe(job._replace(id=JobId(f"job-{number}")))
    [delivery] = [d for d in deliveries(yard) if d.job_id == "job-0"]
    refused = Try(at=START + 10, duration_s=0.25, error="it is\x1b[31m a metadata\naddress", refused=True)
    keep(yard, delivery.after(refused, yard.plane.webhooks._schedule, 0.5))
    return yard


def deliveries(yard: Yard) -> list[Delivery]:
    return [kept.delivery for kept in yard.plane.outbox._kept.values()]


def keep(yard: Yard, delivery: Delivery) -> None:
    yard.bridge.loop.run_until_complete(yard.plane.outbox.save(delivery))


def test_they_are_listed_newest_first(hooked: Yard) -> None:
    header, *rows = hooked.ok("webhooks", "list", "hello").splitlines()

    assert ["ID", "JOB", "STATE", "CREATED", "TRIES", "NEXT", "TRY", "LAST", "ANSWER"] == header.split()
    assert [["job-2", "PENDING"], ["job-1", "PENDING"], ["job-0", "FAILED"]] == [row.split()[1:3] for row in rows]
    assert "it is" in rows[2]
    assert "\x1b" not in rows[2], "what a receiver says does not rule the terminal"


def test_they_are_listed_by_job_and_state_and_in_pages(hooked: Yard) -> None:
    assert ["job-1"] == [
        hook["jobId"] for hook in hooked.json("webhooks", "list", "hello", "--job", "job-1")["webhooks"]
    ]
    failed = hooked.json("webhooks", "list", "hello", "--state", "failed")["webhooks"]
    assert ["job-0"] == [hook["jobId"] for hook in failed]
    first = hooked.run("webhooks", "list", "hello", "--limit", "2")
    after = first.stderr.split()[-1]
    assert first.stderr.startswith("there are more: --after ")
    assert ["job-0"] == [
        hook["jobId"] for hook in hooked.json("webhooks", "list", "hello", "--after", after)["webhooks"]
    ]


def test_one_is_shown_with_its_tries(hooked: Yard) -> None:
    [failed] = [delivery for delivery in deliveries(hooked) if not delivery.pending]
    said = hooked.ok("webhooks", "show", "hello", failed.id)

    assert f"to:       {URL}\n" in said
    assert "state:    FAILED\n" in said
    assert ["2027-01-15T08:00:10.000Z", "0.2s", "it", "is", "[31m", "a", "metadata", "address"] == said.splitlines()[
        -1
    ].split()
    assert failed.id == hooked.json("webhooks", "show", "hello", failed.id)["id"]


def test_one_is_delivered_again(hooked: Yard) -> None:
    [failed] = [delivery for delivery in deliveries(hooked) if not delivery.pending]
    said = hooked.run("webhooks", "redeliver", "hello", failed.id)

    assert f"runyard webhooks show hello {failed.id}" in said.stderr
    assert all(delivery.pending for delivery in deliveries(hooked))
    assert "PENDING" == hooked.json("webhooks", "redeliver", "hello", failed.id)["state"]


def test_one_that_is_none_is_refused_in_a_line(hooked: Yard) -> None:
    result = hooked.run("webhooks", "redeliver", "hello", "msg_none")

    assert 1 == result.exit_code
    assert "msg_none" in result.stderr


def test_the_secret_is_printed_alone_and_replaced(hooked: Yard) -> None:
    first = hooked.ok("webhooks", "secret", "hello")
    rotated = hooked.run("webhooks", "secret", "hello", "--rotate")
    shown = json.loads(hooked.ok("webhooks", "secret", "hello", "--json"))

    assert first.startswith("whsec_")
    assert rotated.stdout.strip() == shown["secret"] != first.strip()
    assert "2027-01-16T08:00:00.000Z" in rotated.stderr
    assert first.strip() == shown["previous"]["secret"]
