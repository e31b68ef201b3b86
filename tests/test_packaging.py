"""What ships beside the code: files of other programs, which read them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runyard.cli.dockerignore import Dockerignore
from runyard.config import Settings

ROOT = Path(__file__).parent.parent


def test_the_compose_file_gives_the_platform_what_it_needs() -> None:
    service: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["runyard"]

    assert ["127.0.0.1:8000:8000"] == service["ports"]
    assert {"data:/data", "/var/run/docker.sock:/var/run/docker.sock"} == set(service["volumes"])
    assert int(service["stop_grace_period"].removesuffix("s")) > 2 * Settings().stop_grace_s


def test_the_image_is_built_of_what_its_dockerfile_copies() -> None:
    ignored = Dockerignore((ROOT / ".dockerignore").read_text().splitlines())
    copied = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    ]

    assert {"src", "pyproject.toml", "README.md", "LICENSE", "wheels*"} == set(copied)
    assert [] == [name for name in copied if ignored.leaves_out(name.rstrip("*"))]
    assert ignored.leaves_out("tests/test_packaging.py")
    assert ignored.leaves_out("src/runyard/__pycache__/x.pyc")


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    # It must find the program, too.
    unit = (ROOT / "packaging/runyard.service").read_text().replace("/opt/runyard/bin/runyard", sys.executable)
    (tmp_path / "runyard.service").write_text(unit)
    verified = subprocess.run(
        [analyze, "verify", tmp_path / "runyard.service"], capture_output=True, text=True, check=False
    )

    assert (0, "") == (verified.returncode, verified.stderr)
