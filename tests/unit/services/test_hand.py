"""Inputs in hand: no more than so many bytes, and each answer has its share."""

import pytest

from runyard.domain.job import Job
from runyard.domain.payload import Spilled
from runyard.services import hand as service
from runyard.services.hand import Batch, Hand
from tests.builders import a_job


def job_of(ref: str, size: int) -> Job:
    return a_job(ref)._replace(input=Spilled(ref, size))


def hand_with(bytes_max: int, **sizes: int) -> Hand:
    hand = Hand(bytes_max=bytes_max)
    for ref, size in sizes.items():
        hand.put(ref, b"x" * size)
    return hand


def test_what_came_first_goes_first_when_there_is_too_much() -> None:
    hand = hand_with(10, a=4, b=4, c=2)
    assert 10 == hand.bytes
    hand.put("d", b"1")

    assert [None, b"xxxx", b"xx", b"1"] == [hand.get(ref) for ref in "abcd"]
    assert 7 == hand.bytes


def test_one_that_is_larger_is_there_alone() -> None:
    hand = hand_with(10, a=4, b=11)

    assert (None, 11) == (hand.get("a"), hand.bytes)
    assert not hand.has_room(0)
    hand.put("c", b"1")
    assert ("b" in hand, 1) == (False, hand.bytes)


def test_what_is_put_or_dropped_twice_counts_once() -> None:
    hand = hand_with(10, a=4)
    hand.put("a", b"xx")
    assert 2 == hand.bytes
    for _ in range(2):
        hand.drop("a")

    assert 0 == hand.bytes


def test_a_batch_has_what_is_in_hand_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ANSWER_BYTES_MAX", 5)
    hand = hand_with(100, a=3, b=2, c=1, large=6)
    batch = Batch(hand)

    assert [True, True, False] == [batch.has_room_for(job_of(ref, len(hand.get(ref) or b""))) for ref in "abc"]
    assert None is batch.missing
    assert Batch(hand).has_room_for(job_of("large", 6)), "one may be larger"


def test_a_batch_says_what_is_missing() -> None:
    batch = Batch(hand_with(100))
    assert not batch.asked
    missing = job_of("a", 3)

    assert not batch.has_room_for(missing)
    assert (True, missing) == (batch.asked, batch.missing)


def test_what_a_batch_has_found_it_has_until_it_is_handed_over() -> None:
    hand = hand_with(4, a=3)
    batch, jobs = Batch(hand), [job_of("a", 3), a_job("b", input=b"2")]
    assert batch.has_room_for(jobs[0])
    hand.put("c", b"xxx")
    assert "a" not in hand

    assert [b"xxx", b"2"] == [job.input for job in batch.filled(jobs)]
    hand.put("a", b"xxx")
    batch.handed_over()
    assert "a" not in hand
