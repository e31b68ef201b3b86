"""What `runyard deploy` packs of a folder is what `docker build` sends of it."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from runyard.cli.bundle import gather_context
from tests.docker_kit.client import LABEL, EngineClient
from tests.docker_kit.engine import Engine
from tests.docker_kit.host import PATH

TREE = (
    "a.md README.md README-x.md temp.txt tempa a/temp.txt a/b/temp a/b/c/x.go docs/a.md docs/keep/x docs/keep/not src/x "
    "src/gen/y src/gen/keep.py [x] a+b x.pyc p/q/x.pyc p/.pyc"
).split()
RULES = {
    "plain": "temp*\n*/temp*\n# a comment\n  docs/keep \n/a.md\n./src/../src//gen/",
    "deep": "**/*.go\na/**/temp\n**/keep.py",
    "suffix": "**.pyc",
    "back": "*\n!src\n!docs/keep\ndocs/keep/not\n!README*.md\nREADME-x.md",
    "folder": "docs\n!docs/keep/x\nsrc/**\n!src/gen/keep.py",
    "classes": "[a-t]*.txt\n\\[x\\]\na+?\nREADME[^.]*",
    "all": "**",
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_context_holds_what_docker_would_send(
    engine: Engine, docker: EngineClient, tmp_path: Path, rules: str
) -> None:
    cli = shutil.which("docker", path=PATH)
    if cli is None:
        pytest.skip("docker, the command, is not here")
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /sent/\n")
    (tmp_path / ".dockerignore").write_text(rules)
    sent = sent_by_docker(cli, engine, docker, tmp_path)
    packed = {name for name, _ in gather_context(tmp_path, "Dockerfile")}

    # Docker sends these two in any case, and then takes them out again where they are ignored.
    assert sent - OWN == packed - OWN


OWN = {"Dockerfile", ".dockerignore"}


def sent_by_docker(cli: str, engine: Engine, docker: EngineClient, folder: Path) -> set[str]:
    reference = "runyard-test/ignored:1"
    env = {**os.environ, "DOCKER_HOST": engine.url, "DOCKER_BUILDKIT": "0"}
    labels = [word for name, value in LABEL.items() for word in ("--label", f"{name}={value}")]
    build = [cli, "build", "--quiet", "--tag", reference, *labels, folder]
    built = subprocess.run(build, env=env, check=False, capture_output=True, text=True)
    assert 0 == built.returncode, built.stderr
    container = docker.create(reference, "none")
    with tarfile.open(fileobj=io.BytesIO(docker.http.get(f"/containers/{container}/export").content)) as tar:
        files = {info.name.removeprefix("sent/") for info in tar if info.isreg() and info.name.startswith("sent/")}
    docker.remove(container)
    docker.untag(reference)
    return files
