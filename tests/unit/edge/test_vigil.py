"""When the loop stays awake for more news, and when it goes to sleep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runyard.edge.vigil import CREDIT_MAX, DISK_WINDOWS, Vigil


class Scene:
    """A loop that turns only when the test says so, and a clock that the test moves."""

    def __init__(self, window_s: float = 1.0) -> None:
        self.time = 100.0
        self.due: list[Callable[[], object]] = []
        self.vain = 0
        """Vigils that ended without news."""
        self.vigil = Vigil(window_s, self, lambda: self.time)  # type: ignore[arg-type]

    def call_soon(self, call: Callable[[], object], *args: Any) -> None:
        self.due.append(call)

    @property
    def awake(self) -> bool:
        return bool(self.due)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()
        self.vain += bool(due) and not self.due

    def hear(self, gap_s: float) -> None:
        """News, so long after the last."""
        self.time += gap_s
        if self.awake:
            self.turn()
        self.vigil.news()
        self.vigil.rest()


def test_the_first_news_is_no_reason_to_stay_awake() -> None:
    scene = Scene()
    scene.hear(0)

    assert not scene.awake


def test_the_loop_stays_awake_once_news_has_come_soon_after_news() -> None:
    scene = Scene()
    scene.hear(0)
    scene.hear(0.5)
    assert scene.awake

    scene.time += 0.9
    scene.turn()
    assert scene.awake
    scene.time += 0.2
    scene.turn()
    assert not scene.awake


def test_news_that_never_comes_soon_never_keeps_it_awake() -> None:
    scene = Scene()
    for _ in range(50):
        scene.hear(1.5)
        assert not scene.awake


def test_a_busy_time_that_ends_costs_few_vigils() -> None:
    scene = Scene()
    for _ in range(1000):
        scene.hear(0.1)
    for _ in range(1000):
        scene.hear(5)

    assert scene.vain <= CREDIT_MAX


def test_news_that_comes_soon_half_of_the_time_keeps_it_awake_for_a_part_of_it() -> None:
    """A slow handler behind a quick client: each job is soon followed by the next, and each result is long in coming."""
    scene = Scene()
    for _ in range(500):
        scene.hear(0.1)
        scene.hear(5)

    assert scene.vain <= 500 * 0.4


def test_in_a_crowd_it_does_not_stay_awake() -> None:
    scene = Scene()
    turns_kept = 0
    for _ in range(100):
        for _ in range(10):
            scene.vigil.news()
            scene.vigil.rest()
        turns_kept += scene.awake
        scene.time += 0.01
        scene.turn()

    assert turns_kept < 10


def test_a_vigil_lasts_as_long_as_the_disk_works_and_begins_anew_when_it_has_done() -> None:
    scene = Scene()
    scene.hear(0)
    scene.hear(0.5)
    scene.vigil.disk_works(True)
    scene.time += 3
    scene.turn()
    assert scene.awake
    scene.vigil.disk_works(False)
    scene.time += 0.9
    scene.turn()
    assert scene.awake
    scene.time += 0.2
    scene.turn()
    assert not scene.awake


def test_a_slow_disk_is_not_waited_for_awake() -> None:
    scene = Scene()
    scene.hear(0)
    scene.hear(0.5)
    scene.vigil.disk_works(True)
    scene.time += DISK_WINDOWS + 2
    scene.turn()

    assert not scene.awake


def test_the_disk_alone_keeps_nobody_awake() -> None:
    scene = Scene()
    for _ in range(20):
        scene.vigil.disk_works(True)
        scene.vigil.disk_works(False)
        assert not scene.awake


def test_without_a_window_or_a_loop_it_never_stays_awake() -> None:
    scene = Scene(window_s=0)
    bare = Vigil(1.0, None, lambda: scene.time)
    for _ in range(10):
        scene.hear(0)
        bare.news()
        bare.rest()

    assert not scene.awake
