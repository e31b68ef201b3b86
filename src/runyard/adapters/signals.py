"""Wake-ups within one process."""

from __future__ import annotations

from collections.abc import Callable

from runyard.ports.system import Wake


class LocalSignals:
    """Calls subscribers at once, in the order they came; a subscriber may unsubscribe while it is called."""

    def __init__(self) -> None:
        self._wakes: dict[str, dict[object, Wake]] = {}

    def subscribe(self, topic: str, wake: Wake) -> Callable[[], None]:
        place = object()
        self._wakes.setdefault(topic, {})[place] = wake

        def unsubscribe() -> None:
            wakes = self._wakes.get(topic)
            if wakes is not None and wakes.pop(place, None) is not None and not wakes:
                del self._wakes[topic]

        return unsubscribe

    def fire(self, topic: str) -> None:
        wakes = self._wakes.get(topic)
        if wakes is not None:
            for wake in tuple(wakes.values()):
                wake()
