"""What the SQLite stores share: opening the file, bringing its schema up to date, and queries kept in `.sql` files."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from runyard.domain.errors import RunyardError, TooBusy

SQL = Path(__file__).parent / "sql"
BUSY_TIMEOUT_S = 5.0
_DISK_TROUBLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN}
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_T = TypeVar("_T")
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql\Z")


class Tables:
    """What a store asks of a file: its named queries, on a thread of their own, so that the event loop never waits for the
    disk and no two of them overlap. A commit has reached the disk when its method returns. Raises `TooBusy` when the disk
    does not take it.
    """

    def __init__(self, path: Path, queries: str, *, migrations: Path = SQL, synchronous: str = "full") -> None:
        """`queries` is a file of `sql/`, without its ending, and names the thread. With `synchronous` normal, commits may
        be lost with the machine, not with this process.
        """
        self._queries = named_queries(SQL / f"{queries}.sql")
        self._connection = open_database(path, migrations, synchronous)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{queries}-store")

    async def close(self) -> None:
        await self._in_thread(self._connection.close)
        self._thread.shutdown()

    async def fetch(self, query: str, **values: object) -> list[sqlite3.Row]:
        return await self._in_thread(lambda: self.execute(query, **values).fetchall())

    async def transact(self, work: Callable[[], _T]) -> _T:
        """One transaction for all that `work` executes."""

        def run() -> _T:
            with transaction(self._connection):
                return work()

        return await self._in_thread(run)

    def execute(self, query: str, **values: object) -> sqlite3.Cursor:
        """For the work of a transaction."""
        return self._connection.execute(self._queries[query], values)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _DISK_TROUBLE:
                raise
            raise TooBusy(f"the database cannot be used ({error}); free disk space, then try again") from error


def open_database(path: Path, migrations: Path = SQL, synchronous: str = "full") -> sqlite3.Connection:
    """A connection to the file, which is made if need be: mode 0600, WAL, every commit on disk, schema up to date.

    Any one thread at a time may use it. Nothing is committed but by `transaction`. Raises `RunyardError` when a newer
    Runyard has written the file, or it cannot be opened.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # The -wal and -shm files that SQLite adds take over the mode.
        return _opened(path, migrations, synchronous)
    except (OSError, sqlite3.DatabaseError) as error:
        raise RunyardError(
            f"cannot open {path}: {error}; free disk space, or restore a backup if it is damaged"
        ) from error


def _opened(path: Path, migrations: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = wal", f"synchronous = {synchronous}", "foreign_keys = on"):
            connection.execute(f"pragma {pragma}")
        migrate(connection, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, folder: Path = SQL) -> None:
    """Run the numbered migrations that this database has not seen, in order, each in a transaction of its own."""
    connection.execute(
        "create table if not exists schema_version (number integer primary key, name text not null, "
        "applied_at text not null default current_timestamp) strict"
    )
    done: int = connection.execute("select coalesce(max(number), 0) from schema_version").fetchone()[0]
    migrations = migrations_in(folder)
    newest = max(migrations, default=0)
    if done > newest:
        raise RunyardError(
            f"the data was written by a newer Runyard (schema {done}, this one knows {newest}): upgrade, or name "
            "another data directory"
        )
    for number in range(done + 1, newest + 1):
        _apply(connection, number, migrations[number])


def migrations_in(folder: Path = SQL) -> dict[int, Path]:
    """The files of the migrations, by number."""
    return {int(match[1]): file for file in sorted(folder.iterdir()) if (match := _MIGRATION.match(file.name))}


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All of the block, or nothing of it when it raises."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:  # Some errors, such as a full disk, have rolled back already.
            connection.execute("rollback")
        raise


def named_queries(file: Path) -> dict[str, str]:
    """The statements of a file in which a line `-- name: word` stands above each."""
    _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _apply(connection: sqlite3.Connection, number: int, file: Path) -> None:
    with transaction(connection):
        for statement in _statements(file.read_text(encoding="utf-8")):
            connection.execute(statement)
        connection.execute("insert into schema_version (number, name) values (?, ?)", (number, file.stem))


def _statements(script: str) -> Iterator[str]:
    """The statements of a script. `executescript` would commit the transaction around them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
