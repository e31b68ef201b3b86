import asyncio

from runyard.adapters.locks import KeyedLocks


async def test_one_key_is_held_by_one_caller_at_a_time_in_order() -> None:
    locks, story = KeyedLocks(), []

    async def work(key: str, name: str) -> None:
        async with locks.held(key):
            story.append(f"{name} in")
            await asyncio.sleep(0)
            story.append(f"{name} out")

    await asyncio.gather(work("a", "1"), work("a", "2"), work("b", "other"))

    assert [step for step in story if "other" not in step] == ["1 in", "1 out", "2 in", "2 out"]
    assert story.index("other in") < story.index("1 out")


async def test_a_cancelled_caller_does_not_block_the_next_and_nothing_is_kept() -> None:
    locks = KeyedLocks()

    async def hold() -> None:
        async with locks.held("a"):
            await asyncio.Event().wait()

    holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(0)
    for task in (waiter, holder):
        task.cancel()
        await asyncio.wait([task])

    async with asyncio.timeout(1), locks.held("a"):
        pass
    assert locks._locks == {}
