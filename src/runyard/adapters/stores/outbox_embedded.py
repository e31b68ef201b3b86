"""The outbox of the embedded store: tables beside the journal, written in the journal's own commits.

What is needed to choose the next delivery is in memory (`Lanes`); the rest is read when its turn has come.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from sqlite3 import Row
from typing import Any

from runyard.adapters.stores.batches import Also
from runyard.adapters.stores.journal import Journal
from runyard.adapters.stores.lanes import Lanes
from runyard.adapters.stores.outbox import PRUNE_STEP
from runyard.adapters.stores.sqlite import SQL, named_queries
from runyard.domain.job import EndpointId, Job, JobId
from runyard.domain.webhook import Delivery, DeliveryId, DeliveryState, SigningSecret, Try, owed_by, receiver_of
from runyard.ports.webhooks import DeliveryPage, DeliveryQuery

NUMBER_MAX = (1 << 63) - 1


class EmbeddedOutbox:
    """An `Outbox` in the journal's file, which is read at once. `render` makes the body of what a job's end owes."""

    def __init__(self, journal: Journal, render: Callable[[Job], bytes]) -> None:
        self._journal = journal
        self._render = render
        self._queries = named_queries(SQL / "webhooks.sql")
        self._lanes = Lanes()
        self._counts: Counter[EndpointId] = Counter()
        self._bytes = 0
        self._number = 0
        self.owed: Callable[[], None] = lambda: None
        self._load()

    def _load(self) -> None:
        [newest] = self._journal.read(self._queries["newest"])
        self._number = newest["number"]
        for row in self._journal.read(self._queries["pending"]):
            self._lanes.put(DeliveryId(row["id"]), receiver_of(row["url"]), row["next_at"])
        for row in self._journal.read(self._queries["sizes"]):
            self._counts[EndpointId(row["endpoint_id"])] = row["count"]
            self._bytes += row["bytes"]

    def owing(self, job: Job) -> tuple[Also, ...]:
        """For the store: what is to be written with the end of this job."""
        body = self._render(job)
        delivery = owed_by(job, body)
        self._number += 1
        return (
            Also(
                self._queries["keep_body"],
                {"number": self._number, "body": body},
                size=len(body),
                undo=self._queries["take_back_body"],
            ),
            Also(
                self._queries["owe"],
                {"number": self._number} | _row(delivery),
                kept=lambda: self._kept(delivery),
                undo=self._queries["take_back"],
            ),
        )

    async def take(self, now: float, passing: Collection[str]) -> Delivery | None:
        while (found := self._lanes.take(now, passing)) is not None:
            rows = await self._fetch("get", id=found)
            if rows:
                return _delivery(rows[0])
        return None

    async def next_at(self, passing: Collection[str]) -> float | None:
        return self._lanes.next_at(passing)

    async def body(self, delivery_id: DeliveryId) -> bytes | None:
        rows = await self._fetch("body", id=delivery_id)
        return rows[0]["body"] if rows else None

    async def save(self, delivery: Delivery) -> None:
        if delivery.pending:
            self._lanes.put(delivery.id, delivery.receiver, delivery.next_at)
        else:
            self._lanes.drop(delivery.id)
        await self._do(self._also("save", _row(delivery)))

    async def get(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Delivery | None:
        rows = await self._fetch("get", id=delivery_id)
        return _delivery(rows[0]) if rows and rows[0]["endpoint_id"] == endpoint_id else None

    async def list(self, endpoint_id: EndpointId, query: DeliveryQuery) -> DeliveryPage:
        rows = await self._fetch(
            "list" if query.job_id is None else "list_of_job",
            endpoint_id=endpoint_id,
            job_id=query.job_id,
            state=query.state,
            after=NUMBER_MAX if query.after is None else query.after,
            limit=query.limit + 1,
        )
        more, rows = len(rows) > query.limit, rows[: query.limit]
        return DeliveryPage(deliveries=tuple(map(_delivery, rows)), next=rows[-1]["number"] if more and rows else None)

    async def prune(self, before: float, *, finished_max: int, waiting_max: int, bytes_max: int) -> Sequence[Delivery]:
        rows = (
            await self._fetch("finished_before", before=before, limit=PRUNE_STEP)
            or await self._too_many(finished_max, waiting_max)
            or await self._too_large(bytes_max)
        )
        if not rows:
            return ()
        numbers = {"numbers": json.dumps([row["number"] for row in rows])}
        doomed = [_delivery(row) for row in rows]
        await self._do(
            self._also("forget_bodies", numbers), self._also("forget", numbers, lambda: self._forgot(doomed))
        )
        return doomed

    async def secrets(self, endpoint_id: EndpointId) -> tuple[SigningSecret, ...]:
        rows = await self._fetch("secrets", endpoint_id=endpoint_id)
        return tuple(SigningSecret(**secret) for secret in json.loads(rows[0]["secrets"])) if rows else ()

    async def keep_secrets(self, endpoint_id: EndpointId, secrets: Sequence[SigningSecret]) -> None:
        values = {"endpoint_id": endpoint_id, "secrets": json.dumps([asdict(secret) for secret in secrets])}
        await self._do(self._also("keep_secrets", values))

    async def _too_many(self, finished_max: int, waiting_max: int) -> list[Row]:
        """Of one endpoint. The counts in memory say whether it is worth looking."""
        suspects = [endpoint for endpoint, count in self._counts.items() if count > min(finished_max, waiting_max)]
        for endpoint_id in suspects:
            [row] = await self._fetch("waiting", endpoint_id=endpoint_id)
            waiting = row["count"]
            for query, excess in (
                ("oldest_finished_of", self._counts[endpoint_id] - waiting - finished_max),
                ("oldest_waiting_of", waiting - waiting_max),
            ):
                if excess > 0:
                    return await self._fetch(query, endpoint_id=endpoint_id, limit=min(excess, PRUNE_STEP))
        return []

    async def _too_large(self, bytes_max: int) -> list[Row]:
        if self._bytes <= bytes_max:
            return []
        rows = await self._fetch("oldest_finished", limit=PRUNE_STEP)
        rows = rows or await self._fetch("oldest_waiting", limit=PRUNE_STEP)
        excess, doomed = self._bytes - bytes_max, list[Row]()
        for row in rows:
            if excess > 0:
                doomed.append(row)
                excess -= row["size"]
        return doomed

    def _kept(self, delivery: Delivery) -> None:
        self._counts[delivery.endpoint_id] += 1
        self._bytes += delivery.size
        self._lanes.put(delivery.id, delivery.receiver, delivery.next_at)
        self.owed()

    def _forgot(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._lanes.drop(delivery.id)
            self._counts[delivery.endpoint_id] -= 1
            self._bytes -= delivery.size

    def _also(self, query: str, values: Mapping[str, object], kept: Callable[[], None] | None = None) -> Also:
        return Also(self._queries[query], values, kept=kept)

    async def _fetch(self, query: str, **values: object) -> list[Row]:
        return await self._journal.fetch(self._queries[query], values)

    async def _do(self, *also: Also) -> None:
        await self._journal.wait(self._journal.do(*also))


def _row(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "endpoint_id": delivery.endpoint_id,
        "job_id": delivery.job_id,
        "url": delivery.url,
        "created_at": delivery.created_at,
        "size": delivery.size,
        "state": delivery.state.value,
        "next_at": delivery.next_at,
        "finished_at": delivery.finished_at,
        "round_tries": delivery.round_tries,
        "tries": json.dumps([asdict(attempt) for attempt in delivery.tries]),
    }


def _delivery(row: Row) -> Delivery:
    return Delivery(
        id=DeliveryId(row["id"]),
        endpoint_id=EndpointId(row["endpoint_id"]),
        job_id=JobId(row["job_id"]),
        url=row["url"],
        created_at=row["created_at"],
        size=row["size"],
        state=DeliveryState(row["state"]),
        next_at=row["next_at"],
        finished_at=row["finished_at"],
        round_tries=row["round_tries"],
        tries=tuple(Try(**attempt) for attempt in json.loads(row["tries"])),
    )
