"""Finding the hot route of a path."""

from __future__ import annotations

from collections import Counter
from urllib.parse import unquote

from runyard.edge.routes import Match, Route

KNOWN_MAX = 4096


class Paths:
    """`/v2/{endpoint}/{operation}[/{worker}][/{job}]` to a route and the names in it; of operations that have paths of their
    own (`/v2/{endpoint}/openai/v1/models`), the rest of the path, as it came, is the last name.

    All but the job id recurs, so what is found for that part is remembered, up to `KNOWN_MAX` paths.
    """

    def __init__(
        self,
        plain: dict[str, Route],
        with_job: dict[str, Route],
        names: int,
        reserved: frozenset[str],
        with_path: dict[str, Route] | None = None,
    ) -> None:
        """`names` is how many names stand before the job id: the endpoint, and on the worker plane the worker."""
        self._plain = plain
        self._with_job = with_job
        self._with_path = with_path or {}
        self._names = names
        self._reserved = reserved
        self._known: dict[bytes, Match] = {}
        self._known_with_job: dict[bytes, Match] = {}

    def match(self, path: bytes) -> Match | None:
        """The route and its names, percent-decoded; None for all other paths."""
        found = self._known.get(path)
        if found is not None:
            return found
        head, _, job = path.rpartition(b"/")
        found = self._known_with_job.get(head)
        if found is None:
            return self._look_up(path, head, job)
        return Match(found.route, (*found.args, _decode(job)))

    def answers(self) -> dict[tuple[str, int], int]:
        """How often each operation was answered with each status."""
        found: Counter[tuple[str, int]] = Counter()
        for routes in (self._plain, self._with_job, self._with_path):
            for name, route in routes.items():
                for status, count in route.answers.items():
                    found[name, status] += count
        return found

    def _look_up(self, path: bytes, head: bytes, job: bytes) -> Match | None:
        if (found := self._parse(path, self._plain)) is not None:
            _remember(self._known, path, found)
            return found
        if (found := self._parse(head, self._with_job)) is None:
            return self._parse_with_path(path)
        _remember(self._known_with_job, head, found)
        return Match(found.route, (*found.args, _decode(job)))

    def _parse(self, path: bytes, routes: dict[str, Route]) -> Match | None:
        parts = [_decode(part) for part in path.split(b"/")]
        if len(parts) != 3 + self._names or parts[0] or parts[1] != "v2" or parts[2] in self._reserved:
            return None
        route = routes.get(parts[3])
        return None if route is None else Match(route, (parts[2], *parts[4:]))

    def _parse_with_path(self, path: bytes) -> Match | None:
        *head, rest = path.split(b"/", 3 + self._names)
        found = self._parse(b"/".join(head), self._with_path) if rest else None
        return None if found is None else Match(found.route, (*found.args, f"/{rest.decode('latin-1')}"))


def _decode(part: bytes) -> str:
    """One segment, percent-decoded: `%2F` stays inside it."""
    text = part.decode("latin-1")
    return unquote(text) if "%" in text else text


def _remember(known: dict[bytes, Match], path: bytes, found: Match) -> None:
    if len(known) >= KNOWN_MAX:
        known.clear()
    known[path] = found
