"""How much a caller may ask for: so many requests in a window of time, and so many open at once.

*Theory of operation.*

1. Each caller has a `Counter`. A request enters, if it may, and leaves when it is answered or its client has gone. What
   is refused is not counted: who asks in vain does not put off the time when it may ask again.
2. The window slides: in no stretch of `window_s` are more than `requests` taken, wherever it begins.
3. Requests that come within a hundredth of the window of each other are remembered as one burst, which ends with the
   last of them. So a counter is small whatever its limit is, and a caller at its limit loses 1 % of it at most.
4. `Counters` are bounded, too. Those that have nothing to remember are forgotten as others are asked for; beyond the
   bound the one asked for longest ago goes, and its caller begins anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import ceil

from runyard.domain.errors import BadRequest

WINDOW_S_MAX = 3600
BURSTS_IN_WINDOW = 100
COUNTERS_MAX = 10_000
"""A counter takes 12 KB at the very most: one that is asked for all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`requests` in any `window_s` and `in_flight` at once; 0 is no limit.

    Where the workers that run carry more than `requests`, `per_worker` in a window each, that counts instead.
    """

    requests: int
    window_s: float = 10
    in_flight: int = 0
    per_worker: int = 0

    def __post_init__(self) -> None:
        for name in ("requests", "in_flight", "per_worker"):
            number = getattr(self, name)
            if type(number) is not int or number < 0:
                raise BadRequest(f"{name} must be a whole number, 0 or more, not {number!r}")
        if type(self.window_s) not in (int, float) or not 0 < self.window_s <= WINDOW_S_MAX:
            raise BadRequest(f"window_s must be above 0 and at most {WINDOW_S_MAX} seconds, not {self.window_s!r}")

    def __str__(self) -> str:
        """As it is written in a settings file."""
        return f"{{ {', '.join(f'{name} = {value}' for name, value in asdict(self).items())} }}"

    def changed(self, changes: Mapping[str, object]) -> Limit:
        """With these fields. Raises `BadRequest` naming what is wrong."""
        known = [field.name for field in fields(self)]
        if unknown := changes.keys() - set(known):
            raise BadRequest(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]

    def carried_by(self, workers: int) -> Limit:
        """With so many workers running."""
        carried = workers * self.per_worker
        return replace(self, requests=carried) if 0 < self.requests < carried else self


@dataclass(frozen=True, slots=True, kw_only=True)
class TooFast:
    """There were too many requests lately; one more is taken after `retry_after_s`, in whole seconds."""

    limit: Limit
    retry_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TooManyOpen:
    """Too many requests are still open. Nobody knows when one of them is answered."""

    limit: Limit


@dataclass(slots=True)
class _Burst:
    first: float
    last: float
    requests: int


class Counter:
    """What one caller has asked for lately, and has open."""

    __slots__ = ("_bursts", "_fades_at", "_lately", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self._lately = 0
        """Requests in `_bursts`."""
        self._bursts: deque[_Burst] = deque()
        self._fades_at = 0.0
        """When nothing of `_bursts` counts any more."""

    @property
    def bursts(self) -> int:
        return len(self._bursts)

    def enter(self, limit: Limit, now: float) -> TooFast | TooManyOpen | None:
        """Count a request that comes `now`, or say why it may not."""
        if 0 < limit.in_flight <= self.in_flight:
            return TooManyOpen(limit=limit)
        if limit.requests:
            self._forget(now - limit.window_s)
            if self._lately >= limit.requests:
                return TooFast(limit=limit, retry_after_s=self._wait_s(limit, now))
            self._remember(limit.window_s, now)
        self.in_flight += 1
        return None

    def leave(self) -> None:
        """A request that had entered is over."""
        self.in_flight -= 1

    def is_stale(self, now: float) -> bool:
        """Whether a new one would do as well."""
        return not self.in_flight and self._fades_at <= now

    def _forget(self, until: float) -> None:
        bursts = self._bursts
        while bursts and bursts[0].last <= until:
            self._lately -= bursts.popleft().requests

    def _remember(self, window_s: float, now: float) -> None:
        self._lately += 1
        self._fades_at = now + window_s
        bursts = self._bursts
        if bursts and now - bursts[-1].first < window_s / BURSTS_IN_WINDOW:
            bursts[-1].last = now
            bursts[-1].requests += 1
        else:
            bursts.append(_Burst(now, now, 1))

    def _wait_s(self, limit: Limit, now: float) -> int:
        """Whole seconds until so much is forgotten that one more request fits."""
        surplus = self._lately - limit.requests + 1
        for burst in self._bursts:
            surplus -= burst.requests
            if surplus <= 0:
                wait_s = max(1, ceil(burst.last + limit.window_s - now))
                # Rounding may have hidden the last bit of the wait, and then the request would come too early.
                return wait_s if burst.last <= now + wait_s - limit.window_s else wait_s + 1
        raise AssertionError("more was counted than is remembered")


class Counters:
    """The counters of all callers, `counters_max` at most."""

    def __init__(self, *, counters_max: int = COUNTERS_MAX) -> None:
        self._counters_max = counters_max
        self._counters: OrderedDict[Hashable, Counter] = OrderedDict()
        """The one asked for longest ago comes first."""

    def __len__(self) -> int:
        return len(self._counters)

    def of(self, caller: Hashable, now: float) -> Counter:
        """This caller's, for use at once."""
        counters = self._counters
        counter = counters.get(caller)
        if counter is None:
            if len(counters) >= self._counters_max:
                counters.popitem(last=False)
            counter = counters[caller] = Counter()
        else:
            counters.move_to_end(caller)
        self._look_at_the_oldest(now)
        return counter

    def _look_at_the_oldest(self, now: float) -> None:
        """One at a time: for each that comes one may go, so they cannot pile up, and nobody waits for a sweep."""
        caller, counter = next(iter(self._counters.items()))
        if len(self._counters) > 1 and counter.is_stale(now):
            del self._counters[caller]
        elif counter.in_flight:
            self._counters.move_to_end(caller)  # It is in use, and behind it may be some that are not.
