"""What people install is the wheel, not the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(out)], cwd=ROOT, check=True)
    [built] = out.glob("*.whl")
    return built


def test_the_wheel_holds_all_that_is_not_python_too(wheel: Path) -> None:
    data = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if _is_data(path)}

    assert "runyard/adapters/runtimes/isolate.sh" in data
    assert data <= set(zipfile.ZipFile(wheel).namelist())


def test_plain_pip_installs_it_and_its_command_runs(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "venv", str(tmp_path / "venv")]
    subprocess.run(pip, check=True)
    python = tmp_path / "venv/bin/python"
    # Its dependencies are those of this environment: what is tried here is the wheel.
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    site = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    command = tmp_path / "venv/bin/runyard"
    said = subprocess.run(
        [command, "--help"],
        env={**os.environ, "PYTHONPATH": f"{next((tmp_path / 'venv').glob('lib/python*/site-packages'))}:{site}"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "deploy" in said.stdout


def _is_data(path: Path) -> bool:
    return path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
