"""Images are built from bundles, with a real engine."""

import asyncio
import io
import random
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.docker.builds import CA_FILE, BuildOptions
from runyard.adapters.docker.collector import BUILD_LABEL, LEFTOVER_S
from runyard.adapters.docker.engine import Engine as Client
from runyard.adapters.docker.images import Images
from runyard.cli.bundle import pack
from runyard.domain.container import ContainerSpec
from runyard.domain.endpoint import RunSpec
from runyard.domain.errors import BuildFailed
from runyard.domain.job import EndpointId
from runyard.domain.secret import Credential
from tests.docker_kit.client import EngineClient
from tests.docker_kit.engine import BRIDGE_ADDRESS, Engine
from tests.docker_kit.images import Images as Bases
from tests.docker_kit.registry import LOGIN, Registry

ENDPOINT = EndpointId("endpoint")
Make = Callable[..., Images]


class Workbench:
    """Makes bundles and what builds them, all over one folder, as platform processes do that come one after the other."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._made: list[Images] = []
        self.blobs = FolderBlobs(folder / "blobs")
        self.now = 1e9

    def images(self, **options: object) -> Images:
        builds = BuildOptions(**options)  # type: ignore[arg-type]
        folder = self._folder / "images"
        self._made.append(
            Images(
                self._client, self.blobs, folder, self._credentials, builds=builds, now=lambda: self.now, pauses_s=()
            )
        )
        return self._made[-1]

    async def run(self, files: dict[str, str], **spec: object) -> RunSpec:
        sources = self._folder / "sources"
        shutil.rmtree(sources, ignore_errors=True)
        for name, content in files.items():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_text(content)
        out = io.BytesIO()
        bundle = pack(tuple((name, sources / name) for name in files), out, lambda done, all: None)

        async def chunks() -> AsyncIterator[bytes]:
            yield out.getvalue()

        await self.blobs.put(bundle.digest, chunks(), 1 << 30)
        return RunSpec(bundle=bundle.digest, container=ContainerSpec(**spec))  # type: ignore[arg-type]

    async def close(self) -> None:
        for each in self._made:
            await each.close()

    async def _credentials(self, id: str) -> Credential:
        return Credential(username=LOGIN[0], password=LOGIN[1], server=None)


@pytest.fixture
async def bench(engine: Engine, tmp_path: Path) -> AsyncIterator[Workbench]:
    client = Client(engine.url)
    bench = Workbench(client, tmp_path)
    yield bench
    await bench.close()
    await client.close()


async def test_a_folder_in_the_usual_shape_is_built_once(bench: Workbench, docker: EngineClient, images: Bases) -> None:
    run = await bench.run(
        {
            "Dockerfile": f"FROM {images.base()}\nWORKDIR /app\nCOPY . .\nRUN echo made\nCMD python -u src/handler.py\n",
            "src/handler.py": "print('handled')",
        }
    )
    first, second = list[str](), list[str]()
    built = await bench.images().prepare(ENDPOINT, run, first.append)
    again = await bench.images().prepare(ENDPOINT, run, second.append)
    third = await bench.images().prepare(ENDPOINT, built, second.append)

    assert [
        "building the image from Dockerfile",
        f"building step 1 of 5: FROM {images.base()}",
        "building step 2 of 5: WORKDIR /app",
        "building step 3 of 5: COPY . .",
        "building step 4 of 5: RUN echo made",
        "made",
        "building step 5 of 5: CMD python -u src/handler.py",
    ] == first[:-1]
    assert first[-1].startswith("built the image: ")
    assert ["the image of these files was built before"] == second
    assert built == again == third
    assert str(built.lock).startswith("sha256:")
    assert "handled\n" == docker.output(str(built.lock))


async def test_a_removed_image_is_built_again(bench: Workbench, docker: EngineClient, images: Bases) -> None:
    files = {"docker/Dockerfile": f"FROM {images.base()}\nCOPY docker/x /x\n", "docker/x": "again"}
    run = await bench.run(files, dockerfile="docker/Dockerfile")
    built = await bench.images().prepare(ENDPOINT, run, print)
    docker.untag(str(built.lock))
    again = await bench.images().prepare(ENDPOINT, built, print)

    assert docker.has_image(str(again.lock))
    assert "again" == docker.output(str(again.lock), "cat", "/x")


async def test_a_step_that_fails_is_said_with_its_last_lines(bench: Workbench, images: Bases) -> None:
    dockerfile = f"FROM {images.base()}\nRUN echo fine\nRUN echo it; \\\n  echo broke >&2; exit 3\n"
    with pytest.raises(BuildFailed) as raised:
        await bench.images().prepare(ENDPOINT, await bench.run({"Dockerfile": dockerfile}), print)

    assert "build_failed" == raised.value.code
    assert "the build failed at step 3 of 3: RUN echo it;   echo broke >&2; exit 3: exit code 3" == str(raised.value)
    assert {"it", "broke"} == set(raised.value.log_tail)


async def test_a_dockerfile_that_is_none_is_said_with_its_line(bench: Workbench, images: Bases) -> None:
    run = await bench.run({"Dockerfile": f"FROM {images.base()}\nRUN true\nBLAH\n"})
    with pytest.raises(BuildFailed, match="parse error line 3: unknown instruction: BLAH"):
        await bench.images().prepare(ENDPOINT, run, print)


@pytest.mark.parametrize("line", ["FROM {}", "FROM scratch\nCOPY --from={} / /"], ids=["from", "copied from"])
@pytest.mark.parametrize("name", ["../info?x=", "../containers/json?x=", "a\0b", "Upper"])
async def test_what_can_name_no_image_is_told_by_the_engine_and_asks_it_nothing_else(
    bench: Workbench, line: str, name: str
) -> None:
    run = await bench.run({"Dockerfile": line.format(name)})
    with pytest.raises(BuildFailed, match=r"the build failed at step . of .: .*: .*invalid"):
        await bench.images().prepare(ENDPOINT, run, print)


async def test_build_arguments_come_from_the_endpoint_and_the_platform(
    bench: Workbench, docker: EngineClient, images: Bases
) -> None:
    files = {"Dockerfile": "ARG BASE\nFROM $BASE\nARG OWN\nRUN echo $OWN $PLATFORM $BOTH >/said\n"}
    spec = {"build_args": (("BASE", images.base()), ("OWN", "own"), ("BOTH", "endpoint"))}
    maker = bench.images(args={"PLATFORM": "platform", "BOTH": "platform"})
    built = await maker.prepare(ENDPOINT, await bench.run(files, **spec), print)

    assert "own platform endpoint\n" == docker.output(str(built.lock), "cat", "/said")


async def test_a_build_begins_with_a_private_image(
    bench: Workbench, docker: EngineClient, private_registry: Registry
) -> None:
    content = random.Random(77).randbytes(1000)
    docker.build("runyard-test/private:1", {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": content})
    base = private_registry.push(docker, "runyard-test/private:1", "base:1")
    docker.untag("runyard-test/private:1")
    files = {"Dockerfile": f"ARG BASE={base}\nFROM $BASE AS it\nFROM scratch\nCOPY --from=it /a /b\n"}
    with pytest.raises(BuildFailed) as raised:
        await bench.images().prepare(ENDPOINT, await bench.run(files), print)
    built = await bench.images().prepare(ENDPOINT, await bench.run(files, registry="reg-1"), print)

    assert "registry_denied" == raised.value.code
    assert docker.has_image(str(built.lock))


async def test_a_build_that_takes_too_long_ends(bench: Workbench, docker: EngineClient, images: Bases) -> None:
    run = await bench.run({"Dockerfile": f"FROM {images.base()}\nRUN echo begun; sleep 60\n"})
    with pytest.raises(BuildFailed, match=r"longer than 1 seconds .* at step 2 of 2: RUN echo begun"):
        await bench.images(timeout_s=1).prepare(ENDPOINT, run, print)
    await ended(docker)


async def test_a_build_that_nobody_waits_for_ends(bench: Workbench, docker: EngineClient, images: Bases) -> None:
    run = await bench.run({"Dockerfile": f"FROM {images.base()}\nRUN echo begun; sleep 61\n"})
    begun = asyncio.Event()
    build = asyncio.create_task(
        bench.images().prepare(ENDPOINT, run, lambda line: begun.set() if line == "begun" else None)
    )
    await asyncio.wait_for(begun.wait(), 20)
    build.cancel()
    await asyncio.gather(build, return_exceptions=True)
    await ended(docker)


async def ended(docker: EngineClient) -> None:
    """No step of a build runs any more."""
    for _ in range(200):
        if not docker.containers(label=[BUILD_LABEL]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"still there: {docker.containers(label=[BUILD_LABEL])}")


async def test_a_build_keeps_to_its_memory(bench: Workbench, images: Bases) -> None:
    run = await bench.run({"Dockerfile": f"FROM {images.base()}\nRUN python -c 'bytearray(100 << 20)'\n"})
    with pytest.raises(BuildFailed, match=r"exit code 137 .*memory"):
        await bench.images(memory_bytes=50 << 20, cpus=1.0).prepare(ENDPOINT, run, print)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server that containers reach, and the certificate of the authority that nobody knows."""
    ca, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=test", "-addext", f"subjectAltName=IP:{BRIDGE_ADDRESS}", "-days", "2"]
    subprocess.run([*command, *names, "-keyout", key, "-out", ca], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, key)
    server = HTTPServer((BRIDGE_ADDRESS, 0), Hello)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://{BRIDGE_ADDRESS}:{server.server_port}", ca
    server.shutdown()
    server.server_close()


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_builds_and_images_trust_the_operators_certificates(
    bench: Workbench, docker: EngineClient, images: Bases, site: tuple[str, Path]
) -> None:
    url, ca = site
    ask = f"python -c \"import urllib.request as r; print(r.urlopen('{url}').read())\""
    files = {
        "Dockerfile": (
            f"FROM {images.base()} AS one\nRUN {ask}\nFROM scratch AS two\nCOPY --from=one / /\n"
            f"FROM two\nRUN {ask}\nRUN ls /files || true\nCMD {ask} && env\n"
        )
    }
    run, said = await bench.run(files), list[str]()
    built = await bench.images(ca_bundle=ca).prepare(ENDPOINT, run, said.append)

    assert 2 == said.count("b'hello'")
    output = docker.output(str(built.lock))
    assert "b'hello'" in output
    assert f"PIP_CERT={CA_FILE}" in output
    with pytest.raises(BuildFailed, match="exit code 1"):
        await bench.images().prepare(ENDPOINT, run, said.append)
    with pytest.raises(BuildFailed, match="build_ca_bundle"):
        await bench.images(ca_bundle=ca.with_name("none")).prepare(ENDPOINT, run, said.append)


async def test_what_builds_leave_behind_goes(bench: Workbench, docker: EngineClient, images: Bases) -> None:
    def leftovers() -> list[str]:
        filters = {"dangling": ["true"], "label": [BUILD_LABEL]}
        return [row["Id"] for row in docker.call("GET", "/images/json", filters=filters)]

    for image in leftovers():
        docker.call("DELETE", f"/images/{image}")
    docker.build("runyard-test/own:1", {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "the owner's"})
    docker.build("runyard-test/own:1", {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "the owner's too"})
    run = await bench.run({"Dockerfile": f"FROM {images.base()}\nRUN echo a >/a\nRUN false\n"})
    with pytest.raises(BuildFailed):
        await bench.images().prepare(ENDPOINT, run, print)
    left = leftovers()
    created = max(row["Created"] for row in docker.call("GET", "/images/json"))
    bench.now = created + LEFTOVER_S - 60
    young = await bench.images().collect([])
    bench.now = created + LEFTOVER_S
    old = await bench.images().collect([])

    assert (1, []) == (len(left), young)
    assert left == old
    assert [] == leftovers()
    assert docker.has_image(images.base())
