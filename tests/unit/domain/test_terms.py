"""What holds for an endpoint's jobs: its own terms over the platform's, within bounds."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.errors import BadRequest
from runyard.domain.terms import BOUNDS, DEFAULT_TERMS, NO_OWN_TERMS, QUEUE, JobTerms, OwnTerms, TtlScope

BOTH = pytest.mark.parametrize("make", [JobTerms, OwnTerms])


def test_the_platforms_terms_are_the_documented_ones() -> None:
    assert (1800, 60, 86_400, "all") == (
        DEFAULT_TERMS.retention_s,
        DEFAULT_TERMS.retention_sync_s,
        DEFAULT_TERMS.ttl_s,
        DEFAULT_TERMS.ttl_scope,
    )
    assert (604_800, 3) == (DEFAULT_TERMS.keep_s, DEFAULT_TERMS.attempts_max)


@BOTH
@pytest.mark.parametrize("name", BOUNDS)
def test_a_term_reaches_to_its_bounds_and_no_further(make: Callable[..., Any], name: str) -> None:
    low, high = BOUNDS[name]

    assert [low, high] == [getattr(make(**{name: value}), name) for value in (low, high)]
    for value in (low - 1, high + 1, -math.inf, math.inf, math.nan):
        with pytest.raises(BadRequest, match=rf"^{name} must be {low:.0f} to {high:.0f}, not {value:.15g}$"):
            make(**{name: value})


def test_a_value_that_is_refused_is_named_to_the_last_digit() -> None:
    with pytest.raises(BadRequest, match=r"not 86400000$"):
        JobTerms(ttl_s=86_400_000)


@pytest.mark.parametrize(
    ("wait_s", "retention_s"),
    [(None, 1800), (1, 60), (59.9, 60), (60, 60), (90, 90), (300, 300), (4000, 300)],
)
def test_a_synchronous_result_stays_for_its_wait_within_one_and_five_minutes(
    wait_s: float | None, retention_s: float
) -> None:
    assert retention_s == DEFAULT_TERMS.retention_of(wait_s)


@pytest.mark.parametrize(("wait_s", "retention_s"), [(None, 5), (1, 900), (300, 900), (4000, 900)])
def test_where_synchronous_results_stay_longer_than_any_wait_they_stay_that_long(
    wait_s: float | None, retention_s: float
) -> None:
    assert retention_s == JobTerms(retention_s=5, retention_sync_s=900).retention_of(wait_s)


def test_an_endpoint_without_terms_of_its_own_has_the_platforms() -> None:
    platform = JobTerms(retention_s=5, attempts_max=7)

    assert platform == NO_OWN_TERMS.over(platform)


TERMS: dict[str, st.SearchStrategy[Any]] = {
    name: st.integers(int(low), int(high)) for name, (low, high) in BOUNDS.items()
} | {"ttl_scope": st.sampled_from(TtlScope)}


@given(st.fixed_dictionaries({}, optional=TERMS), st.fixed_dictionaries(TERMS))
def test_what_an_endpoint_has_of_its_own_holds_and_nothing_else_is_changed(
    own: dict[str, Any], platform: dict[str, Any]
) -> None:
    terms = OwnTerms(**own)

    assert JobTerms(**platform | own) == terms.over(JobTerms(**platform))
    assert own.keys() == set(terms.names)


def test_every_term_can_be_an_endpoints_own() -> None:
    assert [field.name for field in fields(JobTerms)] == [field.name for field in fields(OwnTerms)]
    assert ["ttl_scope", "keep_s"] == OwnTerms(keep_s=0, ttl_scope=QUEUE).names
