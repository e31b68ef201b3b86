"""The adapters behind each contract suite that has more than one file."""

import pytest

from runyard.adapters.stores.memory import MemoryJobs
from runyard.ports.stores import JobStore
from tests.contract.job_stores import NewStore


@pytest.fixture(params=["memory"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    return lambda bytes_max: MemoryJobs(bytes_max=bytes_max)


@pytest.fixture
def store(new_store: NewStore) -> JobStore:
    return new_store(1 << 20)
