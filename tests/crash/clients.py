"""Clients that submit, wait, look, cancel and retry, and write down every answer.

They are honest: an answer counts when it has come whole, and a request whose connection broke may have done something or
nothing. What they may expect of each job is in its `Ticket`.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple

from tests.crash.record import TERMINAL, End, Ticket

LARGE_TIMES = 5000
"""A third of the inputs have their token so many times, which makes them large enough to lie outside the store."""
OPEN_MAX = 10
"""Jobs a client follows at once."""
PAUSE_S = 0.01
ANSWER_S_MAX = 40.0
RUN_KEPT_S, RUNSYNC_KEPT_S = 30 * 60.0, 60.0
"""For how long the documentation lets ended jobs be read."""
RUNSYNC_WAIT_MS = 5000
STREAM_WAIT_MS = 1000
RETRIES_MAX = 2


class Answer(NamedTuple):
    status: int
    body: Any


class Target(NamedTuple):
    """An endpoint."""

    path: str
    generates: bool


class Client(threading.Thread):
    """Loads the platform until `over` is set, then follows its jobs to their ends, `settle_s` at most."""

    def __init__(self, number: int, seed: int, port: int, key: str, targets: list[Target], *, settle_s: float) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.number = number
        self.tickets: list[Ticket] = []
        self.broken = 0
        """Requests without an answer."""
        self.refused = 0
        """Requests answered with an error, as when the platform stops."""
        self.over = threading.Event()
        self._chance = random.Random(f"{seed} client {number}")  # The whole run follows from one seed.
        self._port, self._key, self._targets, self._settle_s = port, key, targets, settle_s
        self._open: list[Ticket] = []
        self._sent = 0
        self._connection: http.client.HTTPConnection | None = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._load()
        except BaseException as error:  # noqa: BLE001 - A client that is gone would look like a quiet one.
            self.failure = error
        finally:
            self._hang_up()

    def leave(self) -> None:
        """Follow nothing to its end any more."""
        self._settle_s = 0.0
        self.over.set()

    def cut(self, *, hard: bool) -> None:
        """From another thread: its connection breaks, whatever is under way; `hard`: by a reset."""
        connection = self._connection
        with suppress(OSError, AttributeError):
            assert connection is not None
            if hard:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sock.shutdown(socket.SHUT_RDWR)

    def _load(self) -> None:
        while not self.over.is_set():
            if len(self._open) < OPEN_MAX and self._chance.random() < 0.5:
                self._submit()
            elif self._open:
                self._look_after(self._chance.choice(self._open))
            time.sleep(PAUSE_S)
        deadline = time.monotonic() + self._settle_s
        while self._open and time.monotonic() < deadline:
            self._follow(self._chance.choice(self._open))
            time.sleep(PAUSE_S)

    # What it does

    def _submit(self) -> None:
        target, sync = self._chance.choice(self._targets), self._chance.random() < 0.3
        self._sent += 1
        token, fails = f"client-{self.number}-{self._sent}", self._chance.random() < 0.15
        took = self._chance.choice([0, 0.05, 0.1, 0.3, 0.6])
        times = self._chance.choice([0, 0, LARGE_TIMES])
        work = {"input": {"token": token, "fail": fails, "s": took, "pad": token * times, "times": times}}
        sent_at = time.monotonic()
        how = f"runsync?wait={RUNSYNC_WAIT_MS}" if sync else "run"
        answer = self._ask("POST", f"{target.path}/{how}", work)
        if answer is None or answer.status != 200:
            return  # It may be there or not: nobody has promised anything.
        ticket = Ticket(
            id=answer.body["id"],
            path=target.path,
            token=token,
            fails=fails,
            generates=target.generates,
            sent_at=sent_at,
            keep_s=RUNSYNC_KEPT_S if sync else RUN_KEPT_S,
        )
        self.tickets.append(ticket)
        self._open.append(ticket)
        self._learn(ticket, sent_at, answer)

    def _look_after(self, ticket: Ticket) -> None:
        dice = self._chance.random()
        if dice < 0.04:
            self._cancel(ticket)
        elif dice < 0.25 and ticket.generates:
            self._stream(ticket)
        else:
            self._follow(ticket)

    def _follow(self, ticket: Ticket) -> None:
        asked_at = time.monotonic()
        self._learn(ticket, asked_at, self._ask("GET", f"{ticket.path}/status/{ticket.id}"))

    def _cancel(self, ticket: Ticket) -> None:
        asked_at = time.monotonic()
        ticket.cancels.append(asked_at)
        self._learn(ticket, asked_at, self._ask("POST", f"{ticket.path}/cancel/{ticket.id}"), shows_output=False)

    def _stream(self, ticket: Ticket) -> None:
        answer = self._ask("GET", f"{ticket.path}/stream/{ticket.id}?wait={STREAM_WAIT_MS}")
        if answer is not None and answer.status == 200:
            ticket.chunks += [piece["output"] for piece in answer.body["stream"]]

    def _retry(self, ticket: Ticket) -> None:
        asked_at = time.monotonic()
        ticket.retries.append(asked_at)
        answer = self._ask("POST", f"{ticket.path}/retry/{ticket.id}")
        if answer is not None and answer.status == 200:
            ticket.promised_retries.append(asked_at)

    def _learn(self, ticket: Ticket, asked_at: float, answer: Answer | None, *, shows_output: bool = True) -> None:
        """What an answer says of a job; one that has ended is looked after no more, unless it is retried."""
        if answer is None or answer.status >= 500:
            return
        if answer.status != 200:
            ticket.missing.append(f"{answer.status} {answer.body} when asked for at {asked_at:.3f}")
        elif answer.body["status"] not in TERMINAL:
            return
        elif shows_output or answer.body["status"] == "CANCELLED":
            ticket.ends.append((asked_at, end_of(answer.body)))
        else:
            return  # It had ended when it was to be cancelled; its status will say how.
        if answer.status == 200 and self._wants_retry(ticket):
            self._retry(ticket)
        elif ticket in self._open:
            self._open.remove(ticket)

    def _wants_retry(self, ticket: Ticket) -> bool:
        return (
            ticket.ends[-1][1].status == "FAILED"
            and not self.over.is_set()
            and len(ticket.retries) < RETRIES_MAX
            and self._chance.random() < 0.5
        )

    # How it asks

    def _ask(self, method: str, path: str, body: object = None) -> Answer | None:
        """The answer, or None when the connection could not be made or broke before the answer was whole."""
        headers = {"Authorization": self._key, "Content-Type": "application/json"}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S_MAX)
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = self._connection.getresponse()
            answer = Answer(reply.status, json.loads(reply.read() or b"null"))
        except (OSError, http.client.HTTPException):
            self.broken += 1
            self._hang_up()
            return None
        self.refused += answer.status != 200
        return answer

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def end_of(body: dict[str, Any]) -> End:
    """The end that a job's status shows; a cancelled job has no output worth comparing."""
    status = body["status"]
    return End(status, None if status == "CANCELLED" else body.get("error", body.get("output")))
