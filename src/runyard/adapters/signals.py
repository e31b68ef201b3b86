"""Wake-ups within one process."""

from __future__ import annotations

from collections.abc import Callable

from runyard.ports.system import Wake


class LocalSignals:
    """Calls subscribers at once, in the order they came; a subscriber may unsubscribe while it is called."""

    def __init__(self) -> None:
        self._wakes: dict[str, list[Wake]] = {}

    def subscribe(self, topic: str, wake: Wake) -> Callable[[], None]:
        self._wakes.setdefault(topic, []).append(wake)

        def unsubscribe() -> None:
            wakes = self._wakes.get(topic)
            if wakes is not None and wake in wakes:
                wakes.remove(wake)
                if not wakes:
                    del self._wakes[topic]

        return unsubscribe

    def fire(self, topic: str) -> None:
        wakes = self._wakes.get(topic)
        if wakes is not None:
            for wake in tuple(wakes):
                wake()
