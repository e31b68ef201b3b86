"""Names of requests: which keys and ids there may be, what id a key gives, and when two requests are the same."""

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.errors import BadRequest, Conflict
from runyard.domain.idempotency import check_job_id, check_key, check_same, fingerprint, job_id_of
from runyard.domain.job import DEFAULT_POLICY, EndpointId, ExecutionPolicy, JobId

keys = st.binary(min_size=1, max_size=255).map(lambda raw: bytes(0x21 + byte % 94 for byte in raw))
endpoints = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True).map(EndpointId)
policies = st.builds(
    ExecutionPolicy,
    execution_timeout=st.none() | st.timedeltas(timedelta(seconds=5), timedelta(days=7)),
    ttl=st.timedeltas(timedelta(seconds=10), timedelta(days=7)),
    low_priority=st.booleans(),
)
asked = st.tuples(st.binary(), st.none() | st.text(), policies, st.none() | st.binary())


@given(key=keys)
def test_a_key_is_any_visible_ascii(key: bytes) -> None:
    assert key == check_key(key)


@pytest.mark.parametrize("key", [b"", b"a b", b"a, a", b"tab\t", b"\x7f", "é".encode(), b"k" * 256, b"line\n"])
def test_what_is_no_key_is_refused_with_what_would_be_one(key: bytes) -> None:
    with pytest.raises(BadRequest, match="1 to 255 visible ASCII"):
        check_key(key)


@pytest.mark.parametrize("id", ["a", "0", "order-1", "A.b_c~d", "x" * 128, "sync-1", str(uuid.UUID(int=0))])
def test_an_id_may_be_chosen_that_urls_and_command_lines_take_as_it_is(id: str) -> None:
    assert id == check_job_id(id)


@pytest.mark.parametrize(
    "id",
    ["", ".", "..", "-f", "~a", "_a", "a/b", "a b", "a%2Fb", "a?b", "a#b", "a,b", 'a"', "é", "x" * 129, "a\n", "$ID"],
)
def test_an_id_that_could_be_taken_for_something_else_is_refused(id: str) -> None:
    with pytest.raises(BadRequest, match=r"runyard\.id must be"):
        check_job_id(id)


@given(key=keys, endpoint_id=endpoints)
def test_an_id_of_a_key_looks_like_every_other_and_is_never_one_of_them(key: bytes, endpoint_id: EndpointId) -> None:
    derived = job_id_of(endpoint_id, key)

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-u1", derived)
    assert 8 == uuid.UUID(derived.removesuffix("-u1")).version
    assert derived == job_id_of(endpoint_id, key)
    assert derived == check_job_id(derived)


def test_an_id_of_a_key_stays_what_it_is_in_every_release() -> None:
    assert "15fc723a-6b0b-8b78-adda-5bcf2c723bf2-u1" == job_id_of(EndpointId("e"), b"key")


@given(one=st.tuples(endpoints, keys), other=st.tuples(endpoints, keys))
def test_different_names_give_different_ids(one: tuple[EndpointId, bytes], other: tuple[EndpointId, bytes]) -> None:
    assert (one == other) is (job_id_of(*one) == job_id_of(*other))


@given(one=asked, other=asked)
def test_a_fingerprint_is_the_same_for_the_same_request_only(one: Any, other: Any) -> None:
    assert fingerprint(*one) == fingerprint(*one)
    assert 32 == len(fingerprint(*one))
    assert (one == other) is (fingerprint(*one) == fingerprint(*other))


@given(request=asked, at=st.integers(0, 3), value=st.data())
def test_each_part_of_a_request_counts(request: Any, at: int, value: st.DataObject) -> None:
    parts: list[st.SearchStrategy[Any]] = [st.binary(), st.none() | st.text(), policies, st.none() | st.binary()]
    changed = [*request]
    changed[at] = value.draw(parts[at].filter(lambda part: part != request[at]))

    assert fingerprint(*request) != fingerprint(*changed)


def test_a_fingerprint_stays_what_it_is_in_every_release_whatever_holds_at_the_endpoint() -> None:
    stored = "813b56e097af8191653fd0b75113f0df57c1aeb965826dd7cabc66aac0efb5cd"

    assert stored == fingerprint(b"1", None, DEFAULT_POLICY, None).hex()
    assert stored == fingerprint(b"1", None, ExecutionPolicy(ttl=timedelta(days=1)), None).hex()


def test_what_moves_from_one_part_to_the_next_makes_another_request() -> None:
    assert fingerprint(b"ab", "c", DEFAULT_POLICY, None) != fingerprint(b"a", "bc", DEFAULT_POLICY, None)
    assert fingerprint(b"a", None, DEFAULT_POLICY, b"") != fingerprint(b"a", "", DEFAULT_POLICY, None)


def test_another_request_under_a_name_is_a_conflict_and_so_is_a_job_that_was_never_named() -> None:
    mine = fingerprint(b"1", None, DEFAULT_POLICY, None)
    check_same(JobId("j"), mine, mine)
    for known in (fingerprint(b"2", None, DEFAULT_POLICY, None), None):
        with pytest.raises(Conflict, match=r"job j .*another body"):
            check_same(JobId("j"), known, mine)
