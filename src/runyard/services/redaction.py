"""What no log line may show: the values of secrets that an endpoint's workers and builds may have.

Whoever may have values is a *holder*: a worker from when it is made ready, or adopted, to its end; a build while it
lasts. All that is said about an endpoint is redacted by the values of all its holders.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from runyard.domain.endpoint import Release, check_length
from runyard.domain.errors import SecretUnreadable
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.secret import Redactor, filled, references
from runyard.domain.worker import Worker
from runyard.services.secrets import Secrets

WITHHELD = "[withheld: a secret of this worker cannot be read, so it cannot be redacted]"


class Redaction:
    """Use it from the event loop's thread only. An endpoint without secrets costs one look into a dictionary a line."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._held: dict[EndpointId, dict[WorkerId, frozenset[tuple[str, str]]]] = {}
        self._redactors: dict[EndpointId, Redactor] = {}
        self._withheld: set[WorkerId] = set()

    def redact(self, endpoint_id: EndpointId, line: str) -> str:
        """The line without what may not be shown."""
        redactor = self._redactors.get(endpoint_id)
        return line if redactor is None else redactor(line)

    def said(self, worker_id: WorkerId, line: str) -> str:
        """What may be kept of a worker's own words, once it is redacted."""
        return WITHHELD if worker_id in self._withheld else line

    async def environment(self, worker: Worker) -> dict[str, str]:
        """The variables of its release with the values of all secrets, which are not shown from now on until it has `ended`.
        Raises `SecretMissing` or `SecretUnreadable`, and `BadRequest` where one has become too long by that.
        """
        env = worker.release.run.env
        values = await self._secrets.values(env)
        self._hold(worker.endpoint_id, worker.id, values.items())
        environment = filled(env, values)
        for name, value in environment.items():
            check_length(name, value)
        return environment

    async def adopt(self, worker: Worker) -> None:
        """A worker that was started before this process; what it says is withheld if it is not known what to look for."""
        try:
            self._hold(worker.endpoint_id, worker.id, await self._secrets.ever(worker.release.run.env))
        except SecretUnreadable:
            self._withheld.add(worker.id)

    async def ended(self, worker: Worker) -> None:
        """Nothing is heard of it any more."""
        self._withheld.discard(worker.id)
        self._let_go(worker.endpoint_id, worker.id)
        if references(worker.release.run.env):
            await self._secrets.forget_former()

    async def begin(self, holder: WorkerId, release: Release) -> None:
        """From now on a builder that may see the release's environment may speak, and a worker that is made ready."""
        with suppress(SecretUnreadable):  # What cannot be read nobody is given.
            self._hold(release.endpoint_id, holder, await self._secrets.ever(release.run.env))

    def end(self, holder: WorkerId, release: Release) -> None:
        """Of a builder."""
        self._let_go(release.endpoint_id, holder)

    def _hold(self, endpoint_id: EndpointId, holder: WorkerId, values: Iterable[tuple[str, str]]) -> None:
        held = frozenset(values)
        if held:
            self._held.setdefault(endpoint_id, {})[holder] = held
            self._renew(endpoint_id)

    def _let_go(self, endpoint_id: EndpointId, holder: WorkerId) -> None:
        if self._held.get(endpoint_id, {}).pop(holder, None) is not None:
            self._renew(endpoint_id)

    def _renew(self, endpoint_id: EndpointId) -> None:
        held = self._held[endpoint_id]
        if held:
            self._redactors[endpoint_id] = Redactor({pair for values in held.values() for pair in values})
        else:
            del self._held[endpoint_id], self._redactors[endpoint_id]
