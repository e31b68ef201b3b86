import asyncio

from hypothesis import settings

pytest_plugins = ["tests.compatibility", "tests.docker_kit.fixtures"]


def pytest_configure() -> None:
    # looptime asks for the current loop around sync tests too; before any was set, Python 3.11-3.13 answer by making
    # one that nobody closes.
    asyncio.set_event_loop(None)
    # What a test case takes says more about the machine than about the code.
    settings.register_profile("runyard", deadline=None)
    settings.load_profile("runyard")
