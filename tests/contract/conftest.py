"""The adapters behind each contract suite that has more than one file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.memory import MemoryJobs
from runyard.ports.stores import JobStore
from tests.contract.job_stores import NewStore


@pytest_asyncio.fixture(params=["memory", "embedded"])
async def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewStore]:
    opened: list[JobStore] = []

    def open_store(bytes_max: int) -> JobStore:
        if request.param == "memory":
            store: JobStore = MemoryJobs(bytes_max=bytes_max)
        else:
            store = EmbeddedJobs(tmp_path / f"{len(opened)}.db", bytes_max=bytes_max, ended_bytes_max=bytes_max)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
def store(new_store: NewStore) -> JobStore:
    return new_store(1 << 20)
