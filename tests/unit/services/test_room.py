"""The disk is looked at by the clock, and what is new is refused while it is full."""

import asyncio
import logging

import pytest

from runyard.adapters.system import LoopClock
from runyard.domain.errors import TooBusy
from runyard.services.room import LOOK_EVERY_S, Room
from tests.control_doubles import SetDisk

RESERVE = 1 << 20


@pytest.fixture
def disk() -> SetDisk:
    return SetDisk()


@pytest.fixture
def room(disk: SetDisk) -> Room:
    return Room(disk, LoopClock(), reserve_bytes=RESERVE)


@pytest.mark.looptime
async def test_it_notices_that_a_disk_fills_and_empties(room: Room, disk: SetDisk) -> None:
    looking = asyncio.create_task(room.run())
    await asyncio.sleep(0.1)
    room.admit()
    disk.free = RESERVE - 1
    await asyncio.sleep(LOOK_EVERY_S)
    with pytest.raises(TooBusy, match=r"1048575 bytes can be written.*disk_reserve_bytes"):
        room.admit()
    disk.free = 2 * RESERVE
    await asyncio.sleep(LOOK_EVERY_S)
    room.admit()
    looking.cancel()


async def test_it_says_once_that_the_disk_is_full_and_once_that_it_is_not(
    room: Room, disk: SetDisk, caplog: pytest.LogCaptureFixture
) -> None:
    for free in (RESERVE, 5, 4, 3, 2 * RESERVE, 2 * RESERVE):
        disk.free = free
        with caplog.at_level(logging.INFO):
            await room.look()

    assert ["ERROR", "WARNING"] == [record.levelname for record in caplog.records]


async def test_a_disk_that_cannot_be_asked_is_as_it_was(
    room: Room, disk: SetDisk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.free = 0
    await room.look()
    disk.broken = True
    for _ in range(3):
        await room.look()

    assert room.full
    assert 1 == len([record for record in caplog.records if "cannot find out" in record.getMessage()])
