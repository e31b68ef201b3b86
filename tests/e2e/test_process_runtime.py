"""Workers as real processes: what the contract suite cannot ask of every runtime."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.runtimes.process import ProcessRuntime
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed, NotFound, StartFailed
from runyard.domain.job import EndpointId, WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch
from tests.runtime_kit import Listener, a_run, pack, upload

REPOSITORY = Path(__file__).parent.parent.parent
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate")
both_ways = pytest.mark.parametrize("isolated", [False, pytest.param(True, marks=needs_root)])

ENDPOINT = EndpointId("endpoint")
GRACE = timedelta(seconds=30)

WAITS = "\nimport signal\nprint('up')\nwhile True: signal.pause()\n"


class House:
    """A runtime on a data directory, and short ways to run something on it."""

    def __init__(self, root: Path, *, isolated: bool, volume_dir: Path | None = None) -> None:
        self.root = root
        self.listener = Listener()
        self.blobs = FolderBlobs(root / "blobs")
        self.runtime = ProcessRuntime(
            root, self.blobs, self.listener, number_of=_number_of, isolated=isolated, volume_dir=volume_dir
        )

    async def run(
        self,
        worker_id: str,
        source: str,
        *,
        endpoint_id: str = "0",
        env: dict[str, str] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        """Start a worker of this source."""
        run = await a_run(self.blobs, {**(files or {}), "handler.py": source})
        endpoint = EndpointId(endpoint_id)
        run = await self.runtime.prepare(endpoint, run, lambda _: None)
        await self.runtime.start(Launch(worker_id=WorkerId(worker_id), endpoint_id=endpoint, run=run, env=env or {}))

    async def ask(self, worker_id: str, expressions: dict[str, str], **options: object) -> dict[str, object]:
        """Run a worker that answers what these expressions are in it, and ends."""
        await self.run(worker_id, ANSWERS.format(expressions), **options)  # type: ignore[arg-type]
        await self.listener.exited(worker_id)
        lines = self.listener.said_by(worker_id)
        answers = [json.loads(line.removeprefix("answer ")) for line in lines if line.startswith("answer ")]
        assert answers, "\n".join(lines)
        return answers[-1]


ANSWERS = """
import json, os, sys
from pathlib import Path

def answer(expression):
    try:
        return eval(expression)
    except Exception as error:
        return type(error).__name__

print("answer", json.dumps({{name: answer(text) for name, text in {}.items()}}))
"""


async def _number_of(endpoint_id: EndpointId) -> int:
    return int(endpoint_id)


@pytest.fixture
async def house(isolated: bool, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    root = tmp_path_factory.mktemp("data")
    house = House(root, isolated=isolated)
    yield house
    await house.runtime.close()


def running(mark: str) -> list[str]:
    """Command lines of processes on this machine that hold `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if mark in line]


async def started(mark: str) -> None:
    """Until a process runs whose command line holds `mark`: on its way there it is other programs, and for moments none."""
    async with asyncio.timeout(10):
        while not running(mark):  # noqa: ASYNC110 - The kernel tells nobody.
            await asyncio.sleep(0.01)


@both_ways
async def test_a_worker_starts_in_a_fresh_copy_of_its_bundle(house: House) -> None:
    ask = {
        "files": "sorted(os.listdir())",
        "data": "open('model.json').read()",
        "helper": "__import__('helper').VALUE",
        "write": "open('model.json', 'w').write('changed') and open('.runpod_jobs.pkl', 'w').close()",
        "mode": "os.stat('.').st_mode & 0o777",
        "home": "os.listdir(os.path.expanduser('~'))",
    }
    files = {"model.json": "{}", "helper.py": "VALUE = 7"}

    for worker_id in ("w1", "w2"):
        assert await house.ask(worker_id, ask, files=files) == {
            "files": ["handler.py", "helper.py", "model.json"],
            "data": "{}",
            "helper": 7,
            "write": None,
            "mode": 0o755,
            "home": [],
        }


@both_ways
async def test_the_folder_is_gone_when_the_worker_is(house: House) -> None:
    await house.run("w1", "import os\nos.mkdir('closed')\nos.chmod('closed', 0)\n" + WAITS)
    await house.listener.said("w1", "up")
    assert [path.name for path in (house.root / "workers").iterdir()] == ["w1"]

    await house.runtime.stop(WorkerId("w1"), GRACE)
    assert list((house.root / "workers").iterdir()) == []


@both_ways
@pytest.mark.parametrize("stage", ["work", "process"])
async def test_the_folder_of_a_worker_that_starts_while_the_platform_ends_is_gone_too(house: House, stage: str) -> None:
    start = asyncio.create_task(house.run("w1", WAITS))
    async with asyncio.timeout(30):
        while not (house.root / "workers" / "w1" / stage).exists():  # noqa: ASYNC110 - The kernel tells nobody.
            await asyncio.sleep(0)
    await house.runtime.close()

    assert list((house.root / "workers").iterdir()) == []
    assert running(str(house.root)) == []
    await asyncio.gather(start, return_exceptions=True)


@both_ways
async def test_the_environment_is_what_the_launch_says_and_the_base(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNYARD_SECRET_OF_THE_PLATFORM", "x")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    env = {"A": 'it\'s\n"two" $lines', "LANG": "C.utf8", "RUNPOD_POD_ID": "w1"}

    seen = (await house.ask("w1", {"env": "dict(os.environ)"}, env=env))["env"]
    assert isinstance(seen, dict)
    assert env.items() <= seen.items()
    # dash sets PWD; the other variables about certificates are there when the host has them.
    certificates = {name for name in seen if "CERT" in name or "CA" in name or "SSL" in name}
    assert seen.keys() - env.keys() - certificates == {
        *("PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "RUNYARD_ROOM"),
        *({"PWD"} & seen.keys()),
    }
    assert seen["PATH"].partition("/bin:")[0].startswith(str(house.root / "environments"))


@both_ways
async def test_sigterm_reaches_the_main_process_alone(house: House) -> None:
    await house.run(
        "w1",
        """
import os, signal, sys, time
def helper(*_):
    print("the helper was asked, too", flush=True)
signal.signal(signal.SIGTERM, helper)
if os.fork():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    time.sleep(0.1)
    print("up", flush=True)
while True:
    time.sleep(60)
""",
    )
    await house.listener.said("w1", "up")
    await house.runtime.stop(WorkerId("w1"), GRACE)

    assert house.listener.exits == [("w1", Exit(5))]
    assert house.listener.said_by("w1") == ["up"]


@both_ways
async def test_nothing_outlives_the_main_process(house: House) -> None:
    # Like the official SDK's ping process, like a daemon that leaves its session, and like a tool that clears its
    # environment: the group, the mark, and in isolation the namespace, each find some of them.
    await house.run(
        "w1",
        """
import subprocess, sys
subprocess.Popen(["sleep", "98761"])
subprocess.Popen(["sleep", "98762"], start_new_session=True)
subprocess.Popen(["env", "-i", "sleep", "98767"])
sys.exit(4)
""",
    )

    assert await house.listener.exited("w1") == Exit(4)
    assert [line for number in (98761, 98762, 98767) for line in running(f"sleep {number}")] == []


@both_ways
async def test_any_output_is_heard_as_text(house: House) -> None:
    source = r"""
import os
os.write(1, b"bad \xff\n" + b"x" * 70000 + b"\nno end")
os.write(2, b"!")
"""
    await house.run("w1", source)
    await house.listener.exited("w1")

    assert house.listener.said_by("w1") == ["bad \ufffd", "x" * 65536, "x" * (70000 - 65536), "no end!"]


@both_ways
async def test_no_line_of_a_flood_is_lost(house: House) -> None:
    await house.run("w1", "for number in range(100_000): print(number)")
    await house.listener.exited("w1")

    assert house.listener.said_by("w1") == [str(number) for number in range(100_000)]


@both_ways
async def test_a_platform_that_was_killed_leaves_nothing_to_the_next(
    isolated: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("data")
    platform = subprocess.Popen(  # noqa: ASYNC220  Nothing else waits meanwhile.
        [sys.executable, "-c", STAND_IN, str(root), str(int(isolated))],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with platform:
        assert platform.stdout is not None
        assert platform.stdout.readline() == "up\n"
        await started("sleep 98763")
        platform.kill()

    house = House(root, isolated=isolated)
    try:
        assert await house.runtime.list() == []
        assert running("sleep 98763") == []
        assert list((root / "workers").iterdir()) == []
    finally:
        await house.runtime.close()


STAND_IN = """
import asyncio, sys
from pathlib import Path
from tests.e2e.test_process_runtime import House, WAITS

async def main():
    house = House(Path(sys.argv[1]), isolated=bool(int(sys.argv[2])))
    await house.run("w1", "import subprocess; subprocess.Popen(['sleep', '98763'], start_new_session=True)" + WAITS)
    await house.listener.said("w1", "up")
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@both_ways
async def test_two_platforms_do_not_share_a_folder(house: House, isolated: bool) -> None:
    await house.runtime.list()

    with pytest.raises(StartFailed, match="another platform"):
        await House(house.root, isolated=isolated).runtime.list()


async def test_a_platform_that_must_isolate_and_cannot_never_starts_anything(tmp_path: Path) -> None:
    house = House(tmp_path, isolated=True, volume_dir=Path("/proc/no/such/volume"))

    for _ in range(2):
        with pytest.raises(StartFailed, match="cannot be isolated"):
            await house.run("w1", WAITS)


@both_ways
async def test_a_worker_that_was_not_prepared_does_not_start(house: House) -> None:
    run = await a_run(house.blobs, {"handler.py": ""})

    with pytest.raises(StartFailed, match="prepare"):
        await house.runtime.start(Launch(worker_id=WorkerId("w1"), endpoint_id=EndpointId("0"), run=run, env={}))
    assert await house.runtime.list() == []


@pytest.mark.parametrize("isolated", [False])
@pytest.mark.parametrize("worker_id", ["", "..", "a/b", "a\0b"])
async def test_an_id_that_is_no_name_does_not_start(house: House, worker_id: str) -> None:
    with pytest.raises(StartFailed, match="worker id"):
        await house.run(worker_id, WAITS)


@pytest.mark.parametrize("isolated", [False])
async def test_a_missing_handler_is_named_with_what_is_there(house: House) -> None:
    files = {"app.py": "", "src/rp_handler.py": "", "a/b/c.py": "", "README.md": ""}
    run = await a_run(house.blobs, files, handler="handler.py")

    with pytest.raises(BuildFailed, match=r"'handler\.py'; it has src/rp_handler\.py, app\.py, a/b/c\.py; name one"):
        await house.runtime.prepare(EndpointId("0"), run, lambda _: None)


@pytest.mark.parametrize("isolated", [False])
@pytest.mark.parametrize("handler", ["/etc/passwd", "../bundles/x", "src", ""])
async def test_a_handler_is_a_file_of_the_bundle(house: House, handler: str) -> None:
    run = await a_run(house.blobs, {"src/handler.py": ""}, handler=handler)

    with pytest.raises(BuildFailed, match="no handler file"):
        await house.runtime.prepare(EndpointId("0"), run, lambda _: None)


@pytest.mark.parametrize("isolated", [False])
@pytest.mark.parametrize("name", ["../outside.py", "a/../../outside.py", "/outside.py"])
async def test_a_bundle_cannot_leave_its_folder(house: House, name: str) -> None:
    run = await a_run(house.blobs, {name: "", "handler.py": ""})

    with pytest.raises(BuildFailed, match="outside of it"):
        await house.runtime.prepare(EndpointId("0"), run, lambda _: None)
    assert list(house.root.rglob("outside*")) == []


@pytest.mark.parametrize("isolated", [False])
async def test_links_are_refused_by_name(house: House) -> None:
    run = RunSpec(
        bundle=await upload(house.blobs, pack({"handler.py": ""}, links={"model": "/etc"})), handler="handler.py"
    )

    with pytest.raises(BuildFailed, match="'model'"):
        await house.runtime.prepare(EndpointId("0"), run, lambda _: None)


BROKEN = {"empty": b"", "text": b"not a bundle", "cut": pack({"handler.py": "x" * 100_000})[:60]}


@pytest.mark.parametrize("isolated", [False])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_bundle_that_cannot_be_read_says_so(house: House, data: bytes) -> None:
    run = RunSpec(bundle=await upload(house.blobs, data), handler="handler.py", lock="")

    with pytest.raises(BuildFailed, match=run.bundle):
        await house.runtime.prepare(EndpointId("0"), run, lambda _: None)
    assert list((house.root / "bundles").iterdir()) == []


@pytest.mark.parametrize("isolated", [False])
async def test_a_bundle_that_was_not_uploaded_says_so(house: House) -> None:
    with pytest.raises(NotFound, match="upload"):
        await house.runtime.prepare(EndpointId("0"), RunSpec(bundle="a" * 64, handler="handler.py"), lambda _: None)


@pytest.mark.parametrize("isolated", [False])
async def test_what_is_unpacked_is_for_the_owner_to_write(house: House) -> None:
    run = await a_run(house.blobs, {"handler.py": ""})
    await house.runtime.prepare(EndpointId("0"), run, lambda _: None)

    for path in (house.root / "bundles").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
