import base64
import json
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.job import JobState
from runyard.domain.webhook import (
    ROTATION_S,
    SCHEDULES,
    SECRET_BYTES,
    TRIES_KEPT_MAX,
    Delivery,
    DeliveryId,
    DeliveryState,
    Schedule,
    SigningSecret,
    Try,
    living,
    owed_by,
    owes,
    receiver_of,
    rotated,
    secret_of,
    signed_headers,
)
from tests.builders import START, a_job, a_job_that_is

RUNPOD, BACKOFF = SCHEDULES["runpod"], SCHEDULES["backoff"]
URL = "https://receiver.test/hook"
ID = DeliveryId("msg_1")
BODY = '{"output":"ä"}'.encode()


def a_delivery() -> Delivery:
    return owed_by(a_job_that_is(JobState.COMPLETED, webhook=URL), BODY)


def no(at: float, status: int | None = 500, *, refused: bool = False) -> Try:
    return Try(at=at, duration_s=2.0, status=status, error=None if status else "reset", refused=refused)


# --- What becomes of a delivery ----------------------------------------------------------------------------------------


def test_a_yes_ends_it() -> None:
    done = a_delivery().after(no(START, 200), RUNPOD, 0.5)

    assert (DeliveryState.DELIVERED, START + 2) == (done.state, done.finished_at)


@pytest.mark.row("F044")
def test_by_default_it_is_tried_twice_more_ten_seconds_apart() -> None:
    first = a_delivery().after(no(START), RUNPOD, 0.9)
    second = first.after(no(START + 12, None), RUNPOD, 0.1)
    third = second.after(no(START + 24, 204), RUNPOD, 0.5)

    assert [True, True, False] == [delivery.pending for delivery in (first, second, third)]
    assert [START + 12, START + 24] == [first.next_at, second.next_at]
    assert (DeliveryState.FAILED, START + 26) == (third.state, third.finished_at)
    assert [500, None, 204] == [attempt.status for attempt in third.tries]


def test_a_refused_address_is_not_tried_again() -> None:
    assert DeliveryState.FAILED is a_delivery().after(no(START, None, refused=True), BACKOFF, 0.5).state


def test_it_is_asked_for_again_with_all_its_tries_and_its_story() -> None:
    failed = a_delivery().after(no(START, None, refused=True), RUNPOD, 0.5)
    again = failed.again(START + 100)

    assert (DeliveryState.PENDING, START + 100, None) == (again.state, again.next_at, again.finished_at)
    assert failed.tries == again.tries
    assert again.after(no(START + 100), RUNPOD, 0.5).pending


def test_the_last_tries_are_remembered() -> None:
    delivery = a_delivery()
    for number in range(TRIES_KEPT_MAX + 3):
        delivery = delivery.again(START).after(no(START + number), RUNPOD, 0.5)

    assert [START + 3 + number for number in range(TRIES_KEPT_MAX)] == [attempt.at for attempt in delivery.tries]


@given(chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=20, max_size=20))
def test_back_off_grows_to_hours_and_ends_within_two_days(chances: list[float]) -> None:
    delivery, now, waits = a_delivery(), START, list[float]()
    for chance in chances:
        delivery = delivery.after(Try(at=now, duration_s=0.0, status=500), BACKOFF, chance)
        if not delivery.pending:
            break
        waits.append(delivery.next_at - now)
        now = delivery.next_at

    assert BACKOFF.tries_max - 1 == len(waits)
    for number, wait in enumerate(waits):
        plain = min(5 * 4**number, 6 * 3600)
        assert 0.8 * plain - 1e-3 <= wait <= 1.2 * plain + 1e-3  # Unix time has microseconds.
    assert 3600 * 3 < max(waits)
    assert now - START < 2 * 86_400


@pytest.mark.parametrize(("status", "runpod", "backoff"), [(200, 1, 1), (204, 0, 1), (302, 0, 0), (None, 0, 0)])
def test_what_is_a_yes(status: int | None, runpod: int, backoff: int) -> None:
    assert (bool(runpod), bool(backoff)) == (RUNPOD.is_success(status), BACKOFF.is_success(status))


def test_a_schedule_without_jitter_asks_no_chance() -> None:
    schedule = Schedule(tries_max=3, first_s=1, factor=3, delay_max_s=2)

    assert [1, 2, None] == [schedule.delay_s(tries, 0.99) for tries in (1, 2, 3)]


# --- What is owed ----------------------------------------------------------------------------------------------------


def test_an_end_with_a_webhook_is_owed_and_nothing_else() -> None:
    waiting = a_job(webhook=URL)
    ended = a_job_that_is(JobState.FAILED, webhook=URL)

    assert owes(ended, waiting)
    assert not owes(ended.expire_in(5, START), ended)
    assert not owes(ended.retry(START), ended)
    assert not owes(a_job_that_is(JobState.FAILED), waiting)


def test_the_same_end_owes_the_same_and_another_another() -> None:
    ended = a_job_that_is(JobState.FAILED, webhook=URL)
    again = ended.retry(START + 9).cancel(START + 10)
    later = a_job_that_is(JobState.FAILED, webhook=URL, at=START + 1)
    ids = [owed_by(job, BODY).id for job in (ended, ended, again, later)]

    assert ids[0] == ids[1]
    assert 3 == len(set(ids))
    assert all("." not in id and id.startswith("msg_") for id in ids), "a dot would make signatures ambiguous"


@pytest.mark.parametrize(
    ("url", "receiver"),
    [("HTTPS://u:p@Host.Test:8443/x", "host.test:8443"), ("http://[::1]:80/", "[::1]:80"), ("http://[", ""), ("", "")],
)
def test_a_receiver_is_host_and_port(url: str, receiver: str) -> None:
    assert receiver == receiver_of(url)


# --- Signatures ------------------------------------------------------------------------------------------------------


def a_secret(fill: bytes = b"k", **changes: float | None) -> SigningSecret:
    return SigningSecret(**{"value": secret_of(fill * SECRET_BYTES), "created_at": START} | changes)  # type: ignore[arg-type]


def now() -> float:
    """The official library compares with the real clock."""
    return datetime.now(UTC).timestamp()


def test_the_official_library_verifies_it() -> None:
    secret = a_secret()
    headers = signed_headers(ID, BODY, [secret], now())

    assert json.loads(BODY) == standardwebhooks.Webhook(secret.value).verify(BODY, headers)
    assert ID == headers["webhook-id"]


@pytest.mark.parametrize("change", ["body", "id", "time", "secret"])
def test_the_official_library_sees_a_change(change: str) -> None:
    secret, at = a_secret(), now()
    headers, body = signed_headers(ID, BODY, [secret], at), BODY
    match change:
        case "body":
            body += b" "
        case "id":
            headers["webhook-id"] = "msg_2"
        case "time":
            headers["webhook-timestamp"] = str(int(at) + 1)
        case _:
            secret = a_secret(b"x")

    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret.value).verify(body, headers)


def test_after_a_rotation_both_secrets_verify_it_for_a_day() -> None:
    at = now()
    old, new = a_secret(b"o").value, a_secret(b"n").value
    secrets = rotated([SigningSecret(value=old, created_at=at - 9)], new, at - 5)
    headers = signed_headers(ID, BODY, secrets, at)
    later = signed_headers(ID, BODY, secrets, at - 5 + ROTATION_S)

    assert 2 == len(headers["webhook-signature"].split())
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(BODY, headers)
    assert 1 == len(later["webhook-signature"].split())


def test_two_secrets_sign_at_most() -> None:
    secrets = rotated(rotated(rotated([], "whsec_YQ==", START), "whsec_Yg==", START + 1), "whsec_Yw==", START + 2)

    assert ["whsec_Yw==", "whsec_Yg=="] == [secret.value for secret in secrets]
    assert secrets[:1] == living(secrets, START + 2 + ROTATION_S)


def test_a_secret_has_the_form_of_the_specification_and_hides() -> None:
    secret = a_secret()

    assert secret.value.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.value[6:])) <= 64
    assert secret.value not in f"{secret} {secret!r} {[secret]}"


def test_a_secret_that_is_none_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="rotate"):
        signed_headers(ID, BODY, [SigningSecret(value="whsec_*", created_at=START)], START)
