"""Wake-ups within one process."""

from __future__ import annotations

from collections.abc import Callable

from runyard.ports.system import Wake


class LocalSignals:
    """Calls subscribers at once, in the order they came; a subscriber may unsubscribe while it is called."""

    def __init__(self) -> None:
        self._topics: dict[str, list[_Subscription]] = {}

    def subscribe(self, topic: str, wake: Wake) -> Callable[[], None]:
        subscription = _Subscription(self._topics, topic, wake)
        subscribed = self._topics.get(topic)
        if subscribed is None:
            self._topics[topic] = [subscription]
        else:
            subscribed.append(subscription)
        return subscription.end

    def fire(self, topic: str) -> None:
        subscribed = self._topics.get(topic)
        if subscribed is not None:
            for subscription in tuple(subscribed):
                subscription.wake()


class _Subscription:
    __slots__ = ("topic", "topics", "wake")

    def __init__(self, topics: dict[str, list[_Subscription]], topic: str, wake: Wake) -> None:
        self.topics = topics
        self.topic = topic
        self.wake = wake

    def end(self) -> None:
        subscribed = self.topics.get(self.topic)
        if subscribed is not None and self in subscribed:
            subscribed.remove(self)
            if not subscribed:
                del self.topics[self.topic]
