"""What a hot route is: how its requests are admitted and answered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runyard.domain.errors import RunyardError
from runyard.edge.bodies import plain_error

if TYPE_CHECKING:
    from runyard.edge.exchange import Exchange


class Route:
    """A hot route: its methods, the largest body it takes, what answers it, and how often it was answered.

    Requests of a route that runs `ahead` are handled as they come, while those before them on their connection still wait to
    be answered: results that a worker pipelines share a commit.

    `admit` says who the caller is, for `Exchange.caller`, or raises for one that may not use it. It sees the head alone:
    nobody's body is read but a friend's.
    """

    __slots__ = (
        "admit",
        "ahead",
        "answers",
        "body_bytes_max",
        "error_body",
        "handle",
        "inflow",
        "inline_bytes_max",
        "methods",
        "too_large",
    )

    def __init__(
        self,
        handle: Callable[[Exchange], Coroutine[Any, Any, None]],
        methods: frozenset[bytes],
        body_bytes_max: int = 64 * 1024,
        *,
        admit: Callable[[Exchange], object],
        too_large: Callable[[Exchange, str], None] | None = None,
        error_body: Callable[[RunyardError], bytes] = plain_error,
        ahead: bool = False,
        inflow: Callable[[Exchange], Any] | None = None,
        inline_bytes_max: int = 0,
    ) -> None:
        self.ahead = ahead
        self.handle = handle
        self.admit = admit
        self.too_large = too_large
        """Told when a friend's body is refused for its size."""
        self.inflow = inflow
        """What takes a body that is larger than `inline_bytes_max`, as it comes; None: every body is held."""
        self.inline_bytes_max = inline_bytes_max
        self.error_body = error_body
        """How its clients read errors."""
        self.methods = methods
        self.body_bytes_max = body_bytes_max
        self.answers: dict[int, int] = {}
        """By status."""


class Match(NamedTuple):
    """A route and the path segments that fill it, percent-decoded."""

    route: Route
    args: tuple[str, ...]


class Routes(Protocol):
    """Finds the hot route of a path."""

    def match(self, path: bytes) -> Match | None: ...
