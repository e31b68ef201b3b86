"""Reading on between commits, so that SQLite does not lock its log anew for each of them.

A commit that begins without a snapshot takes two locks and gives them back, which are four system calls of its six. A
connection that has a statement open keeps its snapshot, and its own commits move that on. What others commit does not:
then the next commit is refused, and has to begin without. So is one that finds another under way: with a snapshot in hand
SQLite does not wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress


class HeldSnapshot:
    """Of one connection, which nobody else uses while a method runs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._statement: sqlite3.Cursor | None = None

    def commit(self, work: Callable[[], None]) -> None:
        """Do `work`, all of which is one transaction; again without a snapshot, if others are in its way."""
        try:
            work()
        except sqlite3.OperationalError as error:
            if self._statement is None or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            self.let_go()
            work()

    def hold(self) -> bool:
        """From here on, until `let_go`; False when it is held already. Nobody can begin the log anew meanwhile."""
        if self._statement is not None:
            return False
        with suppress(sqlite3.Error):  # It spares time, and nothing else.
            self._statement = self._connection.execute("select number from schema_version")  # Several rows.
        return True

    def let_go(self) -> None:
        if self._statement is not None:
            self._statement.close()
            self._statement = None
