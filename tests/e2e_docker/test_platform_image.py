"""The platform's own image: it is built of the checkout, starts, and finds the Engine whose socket it is given."""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.images import CACHE, Images

ROOT = Path(__file__).parents[2]
IMAGE = "runyard-test/platform:1"
SOURCES = ("Dockerfile", "LICENSE", "README.md", "pyproject.toml", "src")
START_S_MAX = 60
POLL_S = 0.1
PIP_BASE = """\
FROM {base}
COPY wheels /wheels
RUN python /wheels/{pip}/pip install --quiet --no-index /wheels/{pip}
"""


@pytest.fixture(scope="module")
def wheels() -> Path:
    """A folder of all that the platform needs, pip, and what builds it: made once, so that the image needs no network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"], "pip>=24"]
    folder = CACHE / f"wheels-{hashlib.sha256(json.dumps([sys.version, needed]).encode()).hexdigest()[:12]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as making:
            subprocess.run([sys.executable, "-m", "venv", f"{making}/venv"], check=True)
            pip = (f"{making}/venv/bin/python", "-m", "pip", "wheel", "--quiet", "--wheel-dir", f"{making}/wheels")
            subprocess.run([*pip, *needed], check=True)
            Path(making, "wheels").rename(folder)
    return folder


@pytest.fixture(scope="module")
def image(docker: EngineClient, images: Images, wheels: Path) -> Iterator[str]:
    pip = next(wheels.glob("pip-*.whl")).name
    base = "runyard-test/python-with-pip:1"
    docker.build(base, {"Dockerfile": PIP_BASE.format(base=images.base(), pip=pip), "wheels": wheels})
    files = {name: ROOT / name for name in SOURCES}
    docker.build(IMAGE, {**files, "wheels": wheels}, BASE=base, PIP_NO_INDEX="1")
    yield IMAGE
    docker.untag(IMAGE)
    docker.untag(base)


@pytest.fixture
def container(docker: EngineClient, engine: Engine, image: str) -> Iterator[str]:
    container = docker.run(
        image,
        # There are no rights to mount in here, and no workers.
        Env=["RUNYARD_ISOLATION=off"],
        HostConfig={
            "Binds": [f"{engine.socket}:/var/run/docker.sock"],
            "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1"}]},
        },
    )
    yield container
    docker.remove(container)


def test_the_platform_runs_in_a_container_and_finds_the_engine(docker: EngineClient, container: str) -> None:
    [published] = docker.inspect(container)["NetworkSettings"]["Ports"]["8000/tcp"]
    with httpx2.Client(base_url=f"http://127.0.0.1:{published['HostPort']}") as http:
        deadline = time.monotonic() + START_S_MAX
        while not is_healthy(http):
            assert docker.state(container)["Running"], docker.logs(container)
            assert time.monotonic() < deadline, docker.logs(container)
            time.sleep(POLL_S)
        code, key = docker.exec(container, "cat", "/data/admin.key")
        assert 0 == code
        runtimes = http.get("/v2/runtimes", headers={"Authorization": key.strip()}).json()

    assert [("process", True), ("docker", True)] == [(each["id"], each["ready"]) for each in runtimes["runtimes"]]
    # The command line in there finds the platform and its key.
    assert 0 == docker.exec(container, "runyard", "endpoints")[0]
    assert 0 == docker.exec(container, *docker.inspect(container)["Config"]["Healthcheck"]["Test"][1:])[0]
    docker.call("POST", f"/containers/{container}/stop", t=20)
    assert 0 == docker.wait(container), docker.logs(container)


def is_healthy(http: httpx2.Client) -> bool:
    try:
        return http.get("/healthz").json() == {"status": "ok"}
    except httpx2.TransportError:
        return False
