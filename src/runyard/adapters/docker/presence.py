"""Whether an Engine is there."""

from __future__ import annotations

import asyncio

from runyard.adapters.docker.engine import Engine
from runyard.domain.errors import StartFailed

ANSWER_S = 3.0


async def lacking_engine(address: str | None = None) -> str | None:
    """Why no container can run now; None: an Engine of a fitting version answers at `address` (as in `Engine`)."""
    try:
        engine = Engine(address)
    except StartFailed as error:
        return error.message
    try:
        async with asyncio.timeout(ANSWER_S):
            await engine.call("GET", "/_ping")
    except StartFailed as error:
        return error.message
    except TimeoutError:
        return f"the Docker Engine at {engine.address} does not answer within {ANSWER_S:g} s"
    finally:
        await engine.close()
    return None
