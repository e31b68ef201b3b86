"""Workers in containers: how they end, what they may, and what is left of them."""

import asyncio
import ipaddress
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from runyard.adapters.docker.engine import NoEngine
from runyard.adapters.runtimes.docker import DockerRuntime
from runyard.domain.container import Limits
from runyard.domain.errors import NotFound, StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch
from tests.docker_kit.images import Images
from tests.docker_kit.workers import ENDPOINT, Site, start

W1 = WorkerId("w1")
GRACE = timedelta(seconds=10)
MIB = 1 << 20

POLITE = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('up')\nwhile True: signal.pause()\n"
TICKING = "import time\nn = 0\nwhile True:\n    n += 1\n    print(n)\n    time.sleep(0.005)\n"


# How workers end


async def test_a_worker_that_runs_out_of_memory_is_said_to(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python("x = bytearray(1 << 30)", limits=Limits(memory_bytes=64 * MIB)))

    assert Exit(None, 9, out_of_memory=True) == await site.listener.exited(w)


async def test_a_worker_that_crashes_has_died_by_itself(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python("import sys\nprint('oh no', file=sys.stderr)\nsys.exit(7)"))

    assert Exit(7) == await site.listener.exited(w)
    assert ["oh no"] == site.listener.said_by(w)


async def test_a_worker_that_somebody_else_stops_did_not_die_by_itself(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await site.listener.said(w, "up")
    site.docker.call("POST", "/containers/runyard-w1/stop")

    assert Exit(0, with_platform=True) == await site.listener.exited(w)


async def test_a_container_that_somebody_else_removes_has_ended(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await site.listener.said(w, "up")
    site.docker.remove("runyard-w1")

    exit = await site.listener.exited(w)
    assert (9, True) == (exit.signal, exit.with_platform)


async def test_a_container_that_somebody_else_renames_is_stopped_and_removed_nevertheless(
    site: Site, runtime: DockerRuntime
) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await site.listener.said(w, "up")
    site.docker.call("POST", "/containers/runyard-w1/rename", name="else")
    await runtime.stop(w, GRACE)

    assert Exit(0) == await site.listener.exited(w)
    await runtime.close()
    assert [] == site.docker.containers(name=["else"])


async def test_an_ended_container_is_removed_with_its_anonymous_volumes(site: Site, runtime: DockerRuntime) -> None:
    site.image = Images(site.docker).built({"Dockerfile": f"FROM {site.image}\nVOLUME /data\n"})
    w = await start(runtime, "w1", site.python("open('/data/x', 'w').write('x')"))
    await site.listener.exited(w)
    await runtime.close()

    assert not site.exists("w1")
    assert not site.docker.call("GET", "/volumes")["Volumes"]


async def test_what_cannot_be_executed_says_so(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.run("no-such-program"))

    assert Exit(127) == await site.listener.exited(w)
    assert "exec no-such-program failed: No such file or directory" in site.listener.said_by(w)[-1]


async def test_what_the_engine_refuses_leaves_nothing(site: Site, runtime: DockerRuntime) -> None:
    site.image = Images(site.docker).built({"Dockerfile": f'FROM {site.image}\nENTRYPOINT ["/init"]\n'})
    with pytest.raises(StartFailed, match=r"/init.*no such file"):
        await start(runtime, "w1", site.run())

    assert not site.exists("w1")
    assert [] == await runtime.list()


# What can be done with them


async def test_a_frozen_worker_stands_still_and_goes_on_when_thawed(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(TICKING))
    await site.listener.said(w, "10")
    await runtime.freeze(w)
    await runtime.freeze(w)
    assert site.state(w)["Paused"]
    before = len(site.listener.lines)

    await asyncio.sleep(0.3)
    assert len(site.listener.lines) <= before + 2
    await runtime.thaw(w)
    await runtime.thaw(w)
    await site.listener.said(w, str(before + 20))


async def test_a_frozen_worker_can_be_stopped_in_good_order(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    await site.listener.said(w, "up")
    await runtime.freeze(w)
    await runtime.stop(w, GRACE)

    assert [(w, Exit(0))] == site.listener.exits


async def test_a_command_can_be_run_inside(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    said: list[str] = []

    assert 3 == await runtime.exec(w, ["sh", "-c", "echo $HOSTNAME; echo oops >&2; exit 3"], said.append)
    assert {"w1", "oops"} == set(said)
    await runtime.freeze(w)
    with pytest.raises(StartFailed, match="paused"):
        await runtime.exec(w, ["true"], said.append)
    with pytest.raises(NotFound):
        await runtime.exec(WorkerId("w2"), ["true"], said.append)


async def test_an_image_may_name_the_signal_that_stops_it(site: Site, runtime: DockerRuntime) -> None:
    site.image = Images(site.docker).built({"Dockerfile": f"FROM {site.image}\nSTOPSIGNAL SIGUSR1\n"})
    w = await start(runtime, "w1", site.python("import signal\nprint('up')\nprint(signal.sigwait([10]))"))
    await site.listener.said(w, "up")
    await runtime.stop(w, GRACE)

    assert Exit(0) == await site.listener.exited(w) or Exit(None, 10) == await site.listener.exited(w)


# What they are given


@pytest.mark.row("F093")
@pytest.mark.row("F094")
async def test_the_runtimes_environment_wins_and_the_images_words_hold(site: Site, runtime: DockerRuntime) -> None:
    dockerfile = f'FROM {site.image}\nENV A=image B=image\nENTRYPOINT ["sh", "-c"]\nCMD ["echo $A $B"]\n'
    site.image = Images(site.docker).built({"Dockerfile": dockerfile})
    theirs = await start(runtime, "w1", site.run(), {"B": "runtime"})
    ours = await start(runtime, "w2", site.run("echo other $B"), {"B": "runtime"})
    replaced = await start(runtime, "w3", site.run(entrypoint=("echo",)), {})
    for worker in (theirs, ours, replaced):
        await site.listener.exited(worker)

    assert ["image runtime"] == site.listener.said_by(theirs)
    assert ["other runtime"] == site.listener.said_by(ours)
    assert ["echo $A $B"] == site.listener.said_by(replaced)


async def test_limits_hold_inside(site: Site, runtime: DockerRuntime) -> None:
    look = "import os\ndef r(p): return open('/sys/fs/cgroup/' + p).read().strip()\n"
    cgroup2 = "2" == site.docker.call("GET", "/info")["CgroupVersion"]
    look += (
        "print(r('pids.max'), r('memory.max'), r('cpu.max'))\n"
        if cgroup2
        else "print(r('pids/pids.max'), r('memory/memory.limit_in_bytes'), r('cpu/cpu.cfs_quota_us'))\n"
    )
    look += "s = os.statvfs('/dev/shm')\nprint(s.f_blocks * s.f_frsize)\n"
    limits = Limits(cpus=0.5, memory_bytes=64 * MIB, shm_bytes=8 * MIB, pids=20)
    w = await start(runtime, "w1", site.python(look, limits=limits))
    await site.listener.exited(w)

    assert [f"20 {64 * MIB} 50000" + (" 100000" if cgroup2 else ""), str(8 * MIB)] == site.listener.said_by(w)


async def test_root_in_a_container_is_a_lesser_root(site: Site, runtime: DockerRuntime) -> None:
    source = (
        "import os, socket\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n"
        "print(os.getuid(), int(status['NoNewPrivs']))\n"
        "os.chown('/etc', 5, 5); os.setgid(7); os.setuid(7)\n"
        "print(os.getuid())\n"
    )
    raw = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n"
    device = "import os\nos.mknod('/disk', 0o60600, os.makedev(8, 0))\n"
    whole = await start(runtime, "w1", site.python(source))
    others = [await start(runtime, f"w{n}", site.python(each)) for n, each in ((2, raw), (3, device))]

    assert Exit(0) == await site.listener.exited(whole)
    assert ["0 1", "7"] == site.listener.said_by(whole)
    for w in others:
        assert Exit(1) == await site.listener.exited(w)
        assert "PermissionError: [Errno 1] Operation not permitted" == site.listener.said_by(w)[-1]


@pytest.mark.row("F112")
async def test_a_volume_is_seen_by_all(site: Site, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/model").write_text("weights")
    runtime = site.runtime(volume_dir=tmp_path / "volume")
    w = await start(runtime, "w1", site.run("cat", "/runpod-volume/model"))
    await site.listener.exited(w)
    await runtime.close()

    assert ["weights"] == site.listener.said_by(w)


async def test_a_port_is_published_on_loopback(site: Site, runtime: DockerRuntime) -> None:
    source = "import http.server\nprint('up')\nhttp.server.test(port=8000, bind='0.0.0.0')"
    w = await start(runtime, "w1", site.python(source, ports=("8000/http",)))
    await site.listener.said(w, "up")
    (published,) = site.docker.inspect("runyard-w1")["NetworkSettings"]["Ports"]["8000/tcp"]
    assert "127.0.0.1" == published["HostIp"]

    async with asyncio.timeout(10):
        # Who publishes the port takes connections before the worker does, and then closes them.
        while not (line := await first_line(int(published["HostPort"]))):  # noqa: ASYNC110 - It can only be tried.
            await asyncio.sleep(0.05)
    assert line.startswith(b"HTTP/1.0 ")


async def first_line(port: int) -> bytes:
    """Of an answer; nothing where none comes."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        if writer is not None:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


# Hostile ones


async def test_a_fork_bomb_stays_within_its_pids(site: Site, runtime: DockerRuntime) -> None:
    bomb = "import os, time\nwhile True:\n try: os.fork()\n except OSError: print('no more'); time.sleep(1)\n"
    w = await start(runtime, "w1", site.python(bomb, limits=Limits(pids=50)))
    await site.listener.said(w, "no more")
    polite = await start(runtime, "w2", site.python(POLITE))
    await site.listener.said(polite, "up")
    await runtime.stop(w, timedelta(0))

    assert (await site.listener.exited(w)).signal in (9, 15)


@pytest.mark.row("F092")
async def test_who_fills_the_disk_is_killed_and_told_why(site: Site) -> None:
    runtime = site.runtime(disk_bytes=20 * MIB, disk_every_s=0.2)
    filler = (
        "import time\nf = open('/junk', 'wb')\nfor n in range(64): f.write(bytes(1 << 20)); f.flush()\ntime.sleep(60)"
    )
    modest = await start(runtime, "w2", site.python(POLITE))
    w = await start(runtime, "w1", site.python(filler))

    assert Exit(None, 9) == await site.listener.exited(w)
    assert site.listener.said_by(w)[-1].startswith("[runyard] killed: it has written")
    assert site.listener.said_by(w)[-1].endswith("and may write 20 MB")
    assert [modest] == await runtime.list()
    await runtime.close()


# Networks

REACH = """
import os, socket
for name in ("OTHER", "GATEWAY", "LOOPBACK"):
    host, port = os.environ[name].split(":")
    try: socket.create_connection((host, int(port)), timeout=2).close(); print(name, "reached")
    except OSError as error: print(name, "not reached")
"""
SERVE = "import socket\ns = socket.create_server(('0.0.0.0', 7000))\nprint('up')\nwhile True: s.accept()[0].close()\n"


async def test_a_worker_reaches_the_worker_plane_and_neither_its_siblings_nor_the_user_port(
    site: Site, runtime: DockerRuntime
) -> None:
    sibling = await start(runtime, "w1", site.python(SERVE))
    await site.listener.said(sibling, "up")
    (address,) = [
        network["IPAddress"] for network in site.docker.inspect("runyard-w1")["NetworkSettings"]["Networks"].values()
    ]
    (gateway,) = site.planes.open_at

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    plane = await asyncio.start_server(hang_up, gateway, 0)
    user = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    env = {
        "OTHER": f"{address}:7000",
        "GATEWAY": f"{gateway}:{plane.sockets[0].getsockname()[1]}",
        "LOOPBACK": f"{gateway}:{user.sockets[0].getsockname()[1]}",
    }
    w = await start(runtime, "w2", site.python(REACH), env)
    await site.listener.exited(w)
    plane.close()
    user.close()

    assert ["OTHER not reached", "GATEWAY reached", "LOOPBACK not reached"] == site.listener.said_by(w)


async def test_each_endpoint_has_a_network_which_goes_when_it_is_gone(site: Site, runtime: DockerRuntime) -> None:
    w = await start(runtime, "w1", site.python(POLITE))
    other = await start(runtime, "w2", site.python(POLITE), endpoint_id=EndpointId("other"))
    networks = site.docker.networks()
    assert {"endpoint", "other"} == {network["Labels"]["runyard.endpoint"] for network in networks}
    assert 2 == len(site.planes.open_at)
    assert runtime.plane_url(ENDPOINT, site.run()) != runtime.plane_url(EndpointId("other"), site.run())
    await runtime.stop(other, GRACE)

    await runtime.tidy()
    assert ["endpoint"] == [network["Labels"]["runyard.endpoint"] for network in site.docker.networks()]
    assert 1 == len(site.planes.open_at)
    assert [w] == await runtime.list()


async def test_subnets_that_others_have_are_passed_over(site: Site) -> None:
    taken = {"Name": "taken", "IPAM": {"Config": [{"Subnet": "10.213.64.0/25"}]}, "Labels": {"runyard.test": "yes"}}
    network = site.docker.call("POST", "/networks/create", taken)["Id"]
    runtime = site.runtime(subnets=ipaddress.IPv4Network("10.213.64.0/24"))
    await runtime.prepare(ENDPOINT, site.run(), lambda _: None)
    assert "http://10.213.64.129:8001" == runtime.plane_url(ENDPOINT, site.run())
    await runtime.close()

    runtime = site.runtime(subnets=ipaddress.IPv4Network("10.213.64.0/26"))
    with pytest.raises(StartFailed, match="docker_subnets"):
        await runtime.prepare(ENDPOINT, site.run(), lambda _: None)
    await runtime.close()
    site.docker.call("DELETE", f"/networks/{network}")


# Whose they are


async def test_containers_of_another_data_directory_are_left_alone(
    site: Site, runtime: DockerRuntime, tmp_path: Path
) -> None:
    neighbour = Site(site.url, site.docker, tmp_path / "neighbour", site.image)
    other = neighbour.runtime()
    mine = await start(runtime, "w1", site.python(POLITE))
    theirs = await start(other, "w2", site.python(POLITE))
    with pytest.raises(StartFailed, match="already in use"):
        await start(runtime, "w2", site.python(POLITE))

    assert [mine] == await runtime.list()
    assert [theirs] == await other.list()
    await runtime.close()
    assert site.exists("w2")
    assert [] == neighbour.listener.exits
    await other.close()


async def test_without_an_engine_nothing_starts_and_nothing_hangs(site: Site, tmp_path: Path) -> None:
    runtime = site.runtime(url=f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(NoEngine, match="no Docker Engine answers"):
        await runtime.prepare(ENDPOINT, site.run(), lambda _: None)
    with pytest.raises(NoEngine):
        await runtime.start(Launch(worker_id=W1, endpoint_id=ENDPOINT, run=site.run(), env={}))

    assert [] == await runtime.list()
    await runtime.stop(W1, GRACE)
    await runtime.close()
