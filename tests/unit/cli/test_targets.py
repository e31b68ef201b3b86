"""What TARGET of `runyard deploy` names."""

from pathlib import Path

import click
import pytest

from runyard.cli.targets import Build, Image, Sources, Target, target_of


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one is in: `plain` has a handler, `built` also a Dockerfile and another below."""
    for name in (
        "plain/handler.py",
        "built/handler.py",
        "built/Dockerfile",
        "built/docker/gpu.Dockerfile",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "runtime", "dockerfile", "expected"),
    [
        ("plain", None, None, Sources(Path("plain"))),
        ("plain/handler.py", None, None, Sources(Path("plain/handler.py"))),
        ("built/handler.py", "process", None, Sources(Path("built/handler.py"))),
        ("built", None, None, Build(Path("built"), "Dockerfile")),
        ("built", "docker", None, Build(Path("built"), "Dockerfile")),
        ("built", "process", None, Sources(Path("built"))),
        ("built", None, "docker/gpu.Dockerfile", Build(Path("built"), "docker/gpu.Dockerfile")),
        ("built", None, "built/docker/gpu.Dockerfile", Build(Path("built"), "docker/gpu.Dockerfile")),
        ("python", None, None, Image("python")),
        ("runpod/worker-vllm:v2.4", None, None, Image("runpod/worker-vllm:v2.4")),
        ("plain:1", "docker", None, Image("plain:1")),
        ("localhost:5000/app@sha256:" + "a" * 64, None, None, Image("localhost:5000/app@sha256:" + "a" * 64)),
    ],
)
def test_what_is_there_is_that_and_else_it_is_an_image(
    root: Path, text: str, runtime: str | None, dockerfile: str | None, expected: Target
) -> None:
    if not isinstance(expected, Image):
        expected = type(expected)(root / expected.path, *([expected.dockerfile] if isinstance(expected, Build) else []))

    assert expected == target_of(text, runtime, dockerfile)


@pytest.mark.parametrize(
    ("text", "runtime", "dockerfile", "says"),
    [
        ("", None, None, "TARGET is empty: .* `.` is this folder"),
        ("./python", None, None, "no file or folder ./python$"),
        ("/python", None, None, "no file or folder /python$"),
        ("~/python", None, None, "no file or folder"),
        ("python/", None, None, "no file or folder python/$"),
        ("handlr.py", None, None, "no file or folder handlr.py$"),
        ("Python", None, None, r"no file or folder Python, and it is no image reference either: .*\[HOST/\]NAME"),
        ("python", "process", None, "leave out --runtime process"),
        ("notes.txt", None, None, "not a Python file"),
        ("plain", "docker", None, "plain has no Dockerfile: write one, or name it with --dockerfile"),
        ("plain/handler.py", "docker", None, "name the folder"),
        ("plain/handler.py", None, "Dockerfile", "name the folder"),
        ("built", "process", "Dockerfile", "--dockerfile is for containers"),
        ("built", None, "nope", "--dockerfile nope: built has no such file"),
        ("plain", None, "../built/Dockerfile", "--dockerfile ../built/Dockerfile: .* must be one of that folder"),
        ("plain", None, "built/Dockerfile", "must be one of that folder"),
    ],
)
def test_what_cannot_be_deployed_is_said(
    root: Path, text: str, runtime: str | None, dockerfile: str | None, says: str
) -> None:
    with pytest.raises(click.UsageError, match=says):
        target_of(text, runtime, dockerfile)
