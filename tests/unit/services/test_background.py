import asyncio
import logging

import pytest

from runyard.services.background import Background


async def test_what_fails_unseen_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("boom")

    background = Background(logging.getLogger("a part"), "the work failed")
    await asyncio.wait([background.spawn(fail())])
    await asyncio.sleep(0)

    assert [("a part", logging.ERROR, "the work failed")] == caplog.record_tuples
    assert 0 == len(background)


async def test_all_of_it_can_be_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    background = Background(logging.getLogger("a part"), "the work failed")
    tasks = [background.spawn(asyncio.Event().wait(), name=name) for name in ("a", "b")]  # type: ignore[arg-type]
    assert {"a", "b"} == {task.get_name() for task in background}

    await background.cancel()
    assert all(task.cancelled() for task in tasks)
    assert [] == caplog.record_tuples
