import asyncio

pytest_plugins = ["tests.compatibility"]


def pytest_configure() -> None:
    # looptime asks for the current loop around sync tests too; before any was set, Python 3.11-3.13 answer by making
    # one that nobody closes.
    asyncio.set_event_loop(None)
