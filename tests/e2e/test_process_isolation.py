"""What a worker of one tenant can see and do, when the platform is root."""

import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from runyard.domain.job import WorkerId
from tests.e2e.test_process_runtime import WAITS, House, running, started

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate")


@pytest.fixture
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    # Nobody says that paths are plain and umasks mild.
    root = tmp_path_factory.mktemp("data") / "it's all here"
    root.mkdir()
    umask = os.umask(0o077)
    (root / "admin.key").write_text("secret")
    volume = tmp_path_factory.mktemp("volumes") / "shared"
    house = House(root, isolated=True, volume_dir=volume)
    yield house
    await house.runtime.close()
    os.umask(umask)


async def test_a_worker_is_a_user_without_any_privilege(house: House) -> None:
    status = "dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines())"
    seen = await house.ask("w1", {"status": status, "groups": "os.getgroups()"}, endpoint_id="7")
    plain = seen["status"]
    assert isinstance(plain, dict)

    assert plain["Uid"].split() == ["200007"] * 4
    assert plain["Gid"].split() == ["200007"] * 4
    assert seen["groups"] == []
    assert {int(plain[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert plain["NoNewPrivs"] == "1"


async def test_the_data_directory_is_out_of_sight(house: House) -> None:
    await house.run("other", "open('secret', 'w').write('x')" + WAITS)
    await house.listener.said("other", "up")
    other = house.root / "workers/other/work/secret"
    assert other.exists()

    root = str(house.root)
    assert await house.ask(
        "w1",
        {
            "root": f"sorted(os.listdir({root!r}))",
            "key": f"open({root!r} + '/admin.key').read()",
            "workers": f"os.listdir({root!r} + '/workers')",
            "other": f"open({str(other)!r}).read()",
            "blobs": f"os.listdir({root!r} + '/blobs')",
            "environments": f"len(os.listdir({root!r} + '/environments'))",
            "note": f"open({root!r} + '/workers/w1/process', 'w')",
            "room": f"open({root!r} + '/workers/w1/x', 'w')",
        },
    ) == {
        "root": ["environments", "workers"],
        "key": "FileNotFoundError",
        "workers": ["w1"],
        "other": "FileNotFoundError",
        "blobs": "FileNotFoundError",
        "environments": 1,
        "note": "PermissionError",
        "room": "PermissionError",
    }


async def test_closed_folders_show_no_more_than_the_interpreter(house: House) -> None:
    home = Path.home()
    if home.stat().st_mode & 0o001:
        pytest.skip("root's home is open on this machine")

    seen = await house.ask("w1", {"home": f"os.listdir('{home}')", "ssh": f"os.path.exists('{home}/.ssh')"})
    assert seen["home"] == "PermissionError" or set(seen["home"]) <= {".pyenv", ".local"}  # type: ignore[arg-type]
    assert seen["ssh"] is False


async def test_the_environment_and_the_interpreter_cannot_be_changed(house: House) -> None:
    seen = await house.ask(
        "w1",
        {
            "environment": "open(sys.prefix + '/x', 'w')",
            "packages": "open(sys.prefix + f'/lib/python3.{sys.version_info.minor}/site-packages/x.pth', 'w')",
            "stamp": "open(sys.prefix + '/.ready', 'w')",
            "base": "open(sys.base_prefix + '/x', 'w')",
        },
    )
    assert set(seen.values()) <= {"OSError", "PermissionError"}, seen


async def test_temporary_files_are_private(house: House) -> None:
    await house.run("other", "open('/tmp/mine', 'w'); open('/dev/shm/mine', 'w'); open('/var/tmp/more', 'w')" + WAITS)
    await house.listener.said("other", "up")
    assert (house.root / "workers/other/tmp/mine").exists(), "on disk, not in memory"

    ask = {
        "tmp": "[name for name in os.listdir('/tmp') if name in ('mine', 'more')]",
        "shm": "os.listdir('/dev/shm')",
        "name": "__import__('tempfile').mkdtemp().startswith('/tmp/')",
        "semaphore": "__import__('multiprocessing').Lock() and True",
    }
    assert await house.ask("w1", ask) == {"tmp": [], "shm": [], "name": True, "semaphore": True}


async def test_other_processes_are_out_of_reach(house: House) -> None:
    await house.run("other", WAITS)
    await house.listener.said("other", "up")

    seen = await house.ask(
        "w1",
        {
            "processes": "sum(name.isdecimal() for name in os.listdir('/proc'))",
            "kill": f"os.kill({os.getpid()}, 0)",
            "init": "os.kill(1, 9)",
            "memory": "open('/proc/1/mem', 'rb')",
        },
    )
    assert seen == {
        "processes": 2,  # PID 1 of its namespace, and itself.
        "kill": "ProcessLookupError",
        "init": "PermissionError",
        "memory": "PermissionError",
    }


async def test_orphans_leave_no_zombies(house: House) -> None:
    source = """
import os, subprocess, time
subprocess.run(["sh", "-c", "sleep 0 & sleep 0 &"])
def left():
    return [pid for pid in os.listdir("/proc") if pid.isdecimal() and pid not in ("1", str(os.getpid()))]
while left():
    time.sleep(0.01)
print("up", flush=True)
"""
    await house.run("w1", source)

    await house.listener.said("w1", "up")


async def test_use_is_limited(house: House) -> None:
    limits = {name: f"__import__('resource').getrlimit({number})" for name, number in LIMITS.items()}

    seen = await house.ask("w1", limits)
    assert seen["core"] == [0, 0]
    assert seen["processes"] == [4096, 4096]
    assert 1024 < seen["files"][0] <= 65536  # type: ignore[index]


LIMITS = {"core": 4, "processes": 6, "files": 7}
"""By the numbers of Linux."""


@pytest.mark.row("F112")
async def test_the_volume_is_shared_by_all_endpoints(house: House) -> None:
    write = {"write": "open('/runpod-volume/model', 'w').write('weights')"}
    assert await house.ask("w1", write, endpoint_id="1") == {"write": 7}

    assert await house.ask("w2", {"read": "open('/runpod-volume/model').read()"}, endpoint_id="2") == {
        "read": "weights"
    }


async def test_what_runs_as_root_is_deaf_to_the_users_environment(house: House) -> None:
    """Were one of these heard before the privileges are gone, the user's program would run as root."""
    evil = "#!/bin/sh\nid -u > /runpod-volume/ran-as\n"
    env = {
        "PATH": ".",
        "ENV": "./evil",
        "BASH_ENV": "./evil",
        "LD_PRELOAD": "./evil.so",
        "IFS": "/",
        "SHELLOPTS": "xtrace",
    }
    files = dict.fromkeys(("mount", "setpriv", "sh", "sleep", "timeout", "evil", "evil.so"), evil)

    assert (await house.ask("w1", {"uid": "os.getuid()"}, env=env, files=files))["uid"] == 200_000
    ran = house.root.parent.parent.glob("volumes*/shared/ran-as")
    assert "0\n" not in {path.read_text() for path in ran}


async def test_secrets_are_on_no_command_line(house: House) -> None:
    await house.run("w1", WAITS, env={"API_KEY": "hush-8271"})
    await house.listener.said("w1", "up")

    assert running("hush-8271") == []


async def test_nobody_leaves_the_namespace(house: House) -> None:
    """A daemon with its own session and an empty environment, which nothing but the namespace can hold."""
    await house.run(
        "w1",
        "import subprocess; subprocess.Popen(['env', '-i', 'setsid', 'sleep', '98764'])" + WAITS,
    )
    await house.listener.said("w1", "up")
    await started("sleep 98764")

    await house.runtime.stop(WorkerId("w1"), timedelta(0))
    assert running("sleep 98764") == []


async def test_a_worker_whose_guard_is_killed_is_gone_too(house: House) -> None:
    await house.run("w1", "import subprocess; subprocess.Popen(['setsid', 'sleep', '98765'])" + WAITS)
    await house.listener.said("w1", "up")
    pid = int((house.root / "workers/w1/process").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)

    exit = await house.listener.exited("w1")
    assert exit.signal == signal.SIGKILL
    assert running("sleep 98765") == []
