"""Which delivery is next: one lane for each receiver, and lanes take turns, so that nobody waits behind a receiver that
fails, hangs, or has a thousand of them coming.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from runyard.domain.webhook import DeliveryId


class _Lane:
    __slots__ = ("at", "heap", "last_turn", "receiver", "stamp")

    def __init__(self, receiver: str) -> None:
        self.receiver = receiver
        self.heap: list[tuple[float, int, DeliveryId]] = []
        """(when, stamp, which); one whose stamp is not the delivery's any more counts as gone."""
        self.last_turn = float("-inf")
        self.at = 0.0
        """When it may have its next turn."""
        self.stamp = 0
        """That of its place among the turns; 0: it has none."""


class Lanes:
    """Deliveries that wait, by what is needed to choose among them. Each call takes logarithmic time."""

    def __init__(self) -> None:
        self._waiting: dict[DeliveryId, tuple[int, _Lane]] = {}
        self._lanes: dict[str, _Lane] = {}
        self._turns: list[tuple[float, int, _Lane]] = []
        self._stamp = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, delivery_id: DeliveryId, receiver: str, next_at: float) -> None:
        """Let it wait until `next_at`; if it waits already, until then instead."""
        self.drop(delivery_id)
        lane = self._lanes.setdefault(receiver, _Lane(receiver))
        stamp = self._next_stamp()
        self._waiting[delivery_id] = (stamp, lane)
        heapq.heappush(lane.heap, (next_at, stamp, delivery_id))
        self._offer(lane)

    def drop(self, delivery_id: DeliveryId) -> None:
        _, lane = self._waiting.pop(delivery_id, (0, None))
        if lane is not None:
            self._offer(lane)

    def take(self, now: float, passing: Collection[str]) -> DeliveryId | None:
        """One whose time has come: of the lane that has waited longest for its turn, and is not to be passed over."""
        lane = self._first(passing)
        if lane is None or lane.at > now:
            return None
        _, _, delivery_id = heapq.heappop(lane.heap)
        del self._waiting[delivery_id]
        lane.last_turn, lane.stamp = now, 0
        self._offer(lane)
        return delivery_id

    def next_at(self, passing: Collection[str]) -> float | None:
        lane = self._first(passing)
        return None if lane is None else lane.at

    def _first(self, passing: Collection[str]) -> _Lane | None:
        passed: list[tuple[float, int, _Lane]] = []
        found: _Lane | None = None
        while self._turns and found is None:
            _, stamp, lane = turn = self._turns[0]
            if lane.stamp != stamp:
                heapq.heappop(self._turns)
            elif lane.receiver in passing:
                passed.append(heapq.heappop(self._turns))
            else:
                found = turn[2]
        for turn in passed:
            heapq.heappush(self._turns, turn)
        return found

    def _offer(self, lane: _Lane) -> None:
        """Give the lane its place among the turns, by what is first in it now."""
        heap = lane.heap
        while heap and self._waiting.get(heap[0][2], (0,))[0] != heap[0][1]:
            heapq.heappop(heap)
        if not heap:
            lane.stamp = 0
            self._lanes.pop(lane.receiver, None)
            return
        at = max(heap[0][0], lane.last_turn)
        if lane.stamp and lane.at == at:
            return
        lane.at, lane.stamp = at, self._next_stamp()
        heapq.heappush(self._turns, (lane.at, lane.stamp, lane))

    def _next_stamp(self) -> int:
        self._stamp += 1
        return self._stamp
