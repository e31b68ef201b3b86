"""Workers outlive what looks after them, and their logs are whole: the platform's restarts, the Engine's, and floods."""

import asyncio
import os
import signal
import time
from datetime import timedelta

import pytest

from runyard.adapters.runtimes.docker import DockerRuntime
from runyard.domain.errors import StartFailed
from runyard.domain.job import WorkerId
from runyard.domain.worker import Exit
from tests.docker_kit.engine import Engine
from tests.docker_kit.workers import ENDPOINT, Site, start

GRACE = timedelta(seconds=10)
POLITE = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('up')\nwhile True: signal.pause()\n"
TICKING = "import time\nn = 0\nwhile True:\n    n += 1\n    print(n)\n    time.sleep(0.002)\n"
FLOOD_LINES, FLOOD_PER_S = 50_000, 5_000
FLOOD = f"""
import sys, time
began = time.monotonic()
for n in range({FLOOD_LINES}):
    sys.stdout.write(f"{{n}} {{'x' * 60}}\\n")
    if n % 50 == 0:
        sys.stdout.flush()
        time.sleep(max(0.0, began + n / {FLOOD_PER_S} - time.monotonic()))
"""


def counted(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines]


async def test_five_thousand_lines_a_second_come_all_and_once_while_their_log_is_rotated(site: Site) -> None:
    runtime = site.runtime(log_file_bytes=1 << 20)
    w = await start(runtime, "w1", site.python(FLOOD))
    async with asyncio.timeout(2 * FLOOD_LINES / FLOOD_PER_S + 10):
        await site.listener.exited(w)

    assert list(range(FLOOD_LINES)) == counted(site.listener.said_by(w))


async def test_what_was_written_at_the_end_is_read_though_the_reader_lags(site: Site, runtime: DockerRuntime) -> None:
    listener, hear = site.listener, site.listener.worker_said

    def hear_slowly(worker_id: WorkerId, line: str) -> None:
        if not listener.lines:
            time.sleep(2)  # It has ended by then.
        hear(worker_id, line)

    listener.worker_said = hear_slowly
    w = await start(runtime, "w1", site.python("for n in range(50_000): print(n, 'x' * 60)"))
    await listener.exited(w)

    assert list(range(50_000)) == counted(listener.said_by(w))


async def test_a_line_of_any_length_comes_through(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python("print('a' * 50_000); print('b' * 100_000); print('end', end='')"))
    await site.listener.exited(w)

    assert ["a" * 50_000, "b" * 65_536, "b" * (100_000 - 65_536), "end"] == site.listener.said_by(w)


# The platform


async def test_the_next_platform_goes_on_with_a_worker_and_its_log(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(TICKING))
    first = site.listener
    await first.said(w, "50")
    await runtime.leave()
    said = counted(first.said_by(w))
    await asyncio.sleep(0.2)
    runtime = site.runtime()
    assert [w] == await runtime.list()
    await runtime.adopt(w)
    await runtime.adopt(w)
    await site.listener.said(w, str(said[-1] + 200))
    await runtime.stop(w, GRACE)

    both = said + counted(site.listener.said_by(w))
    assert list(range(1, len(both) + 1)) == both
    assert [(w, Exit(None, 15))] == site.listener.exits
    assert [] == first.exits


async def test_after_a_platform_that_was_killed_nothing_is_lost(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(TICKING))
    first = site.listener
    await first.said(w, "50")
    await runtime._let_go()  # As a kill has it: nothing is noted any more.
    said = counted(first.said_by(w))
    runtime = site.runtime()
    await runtime.adopt(w)
    await site.listener.said(w, str(said[-1] + 50))

    again = counted(site.listener.said_by(w))
    assert again[0] <= said[-1] + 1
    assert list(range(again[0], again[-1] + 1)) == again


async def test_a_worker_that_ends_while_no_platform_is_there_is_reported_by_the_next(
    site: Site, runtime: DockerRuntime
) -> None:
    w = await start(runtime, "w1", site.python("import sys\nprint('up')\nsys.stdin.read()\n"), {})
    await runtime.leave()
    await asyncio.sleep(0.5)
    runtime = site.runtime()
    assert [w] == await runtime.list()
    await runtime.adopt(w)

    assert Exit(0, with_platform=True) == await site.listener.exited(w)
    await runtime.close()
    assert not site.exists(w)


async def test_what_no_record_knows_can_be_stopped(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await site.listener.said(w, "up")
    await runtime.leave()
    runtime = site.runtime()
    await runtime.stop(w, GRACE)

    assert [(w, Exit(0))] == site.listener.exits
    assert [] == await runtime.list()


async def test_a_container_that_nobody_knows_any_more_is_removed(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await runtime.leave()
    (site.folder / "workers" / f"{w}.json").unlink()
    runtime = site.runtime()
    await runtime.prepare(ENDPOINT, site.run(), lambda _: None)
    async with asyncio.timeout(10):
        while site.exists(w):  # noqa: ASYNC110  The Engine tells us nothing.
            await asyncio.sleep(0.05)


async def test_workers_find_the_plane_where_it_was(site: Site, runtime: DockerRuntime) -> None:
    site.planes.port = 4711
    w = await start(runtime, "w1", site.python(POLITE))
    before = runtime.plane_url(ENDPOINT, site.run())
    await runtime.leave()
    site.planes.open_at.clear()
    site.planes.port = 4712
    runtime = site.runtime()
    await runtime.adopt(w)
    await runtime.prepare(ENDPOINT, site.run(), lambda _: None)

    assert before == runtime.plane_url(ENDPOINT, site.run())
    assert "4711" in str(before)


# The Engine


async def test_workers_that_a_restart_of_the_engine_stops_end_with_the_platform(
    site: Site, runtime: DockerRuntime, engine: Engine
) -> None:
    polite, ticking = await start(runtime, "w1", site.python(POLITE)), await start(runtime, "w2", site.python(TICKING))
    await site.listener.said(polite, "up")
    await asyncio.to_thread(engine.restart)

    assert Exit(0, with_platform=True) == await site.listener.exited(polite)
    assert Exit(None, 15, with_platform=True) == await site.listener.exited(ticking)
    again = await start(runtime, "w3", site.python("print('back')"))
    assert Exit(0) == await site.listener.exited(again)


async def test_workers_that_an_engine_stops_after_its_crash_end_with_the_platform(
    site: Site, runtime: DockerRuntime, engine: Engine
) -> None:
    w = await start(runtime, "w1", site.python(TICKING))
    crashing = await start(runtime, "w2", site.python("import time\nprint('up')\ntime.sleep(1.5)\n1 / 0\n"))
    await site.listener.said(w, "10")
    await site.listener.said(crashing, "up")
    await asyncio.to_thread(engine.restart, kill=True)

    assert Exit(None, 15, with_platform=True) == await site.listener.exited(w)
    assert (await site.listener.exited(crashing)).with_platform
    said = counted(site.listener.said_by(w))
    assert list(range(1, len(said) + 1)) == said


@pytest.mark.parametrize("kill", [False, True], ids=["graceful", "kill -9"])
async def test_workers_go_on_with_an_engine_that_restores_them(
    site: Site, runtime: DockerRuntime, engine: Engine, *, kill: bool
) -> None:
    with engine.live_restore():
        w = await start(runtime, "w1", site.python(TICKING))
        await site.listener.said(w, "100")
        await asyncio.to_thread(engine.restart, kill=kill)
        await site.listener.said(w, str(counted(site.listener.said_by(w))[-1] + 500))

        assert [] == site.listener.exits
        said = counted(site.listener.said_by(w))
        assert list(range(1, len(said) + 1)) == said
        await runtime.stop(w, GRACE)
        assert [(w, Exit(None, 15))] == site.listener.exits


async def test_a_platform_without_its_engine_forgets_no_worker(
    site: Site, runtime: DockerRuntime, engine: Engine
) -> None:
    with engine.live_restore():
        goes, stays = await start(runtime, "w1", site.python(POLITE)), await start(runtime, "w2", site.python(TICKING))
        doomed = await start(runtime, "w3", site.python(POLITE))
        await site.listener.said(goes, "up")
        await runtime.leave()
        pid = site.state(goes)["Pid"]
        with engine.down(kill=True):
            runtime = site.runtime()
            assert {goes, stays, doomed} == set(await runtime.list())
            for worker in (goes, stays, doomed):
                await runtime.adopt(worker)
            await runtime.stop(doomed, GRACE)
            assert [] == site.listener.exits
            os.kill(pid, signal.SIGKILL)
        ends = {await site.listener.exited(goes), await site.listener.exited(doomed)}

        assert Exit(0) in ends
        assert any(exit.with_platform for exit in ends)
        assert [stays] == await runtime.list()


async def test_a_platform_that_stops_does_not_wait_for_its_engine(
    site: Site, runtime: DockerRuntime, engine: Engine
) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await site.listener.said(w, "up")
    with engine.down(kill=True):
        starting = asyncio.create_task(start(runtime, "w2", site.python(POLITE)))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await runtime.close()
            with pytest.raises(StartFailed, match="the platform is stopping"):
                await starting
    runtime = site.runtime()
    assert [w] == await runtime.list()
    await runtime.adopt(w)

    assert (await site.listener.exited(w)).with_platform
