"""Docker's own rules: https://docs.docker.com/build/concepts/context/#dockerignore-files."""

from pathlib import Path

import pytest

from runyard.cli.bundle import CannotPack, gather_context
from runyard.cli.dockerignore import Dockerignore


@pytest.mark.parametrize(
    ("lines", "out", "stays"),
    [
        ("*/temp*", "a/temp.txt a/temp/x", "temp.txt a/b/temp"),
        ("*/*/temp*", "a/b/temporary", "a/temp a/b/c/temp"),
        ("temp?", "tempa tempb/x", "temp tempab a/tempa"),
        ("*.md\n!README.md", "a.md", "README.md docs/a.md"),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md b.md", "README.md README-x.md"),
        ("*.md\nREADME-secret.md\n!README*.md", "b.md", "README.md README-secret.md"),
        ("**/*.go", "a.go a/b/c.go", "a.gox"),
        ("**/__pycache__", "__pycache__/x a/__pycache__/x.pyc", "a/__pycache__x"),
        ("a/**/b", "a/b a/x/b a/x/y/b/z", "b x/a/b a/xb"),
        ("a/**", "a/b a/b/c", "a b/a"),
        ("**", "a a/b", ""),
        ("**.pyc", "x.pyc a/x.pyc", "x.py"),
        ("/data", "data data/x", "a/data"),
        ("data/", "data/x", "a/data"),
        ("./data/../data//x", "data/x", "data/y"),
        ("# a comment\n\n  a  \n#b", "a", "b #b"),
        (" #a", "#a", "a"),
        ("*\n!src/\n!Dockerfile", "a b/c srcs", "src/x src/a/b Dockerfile"),
        ("data\n!data/keep", "data/x", "data/keep data/keep/y"),
        ("data/*\n!data/keep\ndata/keep/not", "data/x data/keep/not", "data/keep/y"),
        ("! a\nb", "b", "a"),
        ("[a-c].txt\nx[^1]", "a.txt xb", "d.txt x1"),
        ("a.b+(c)|$", "a.b+(c)|$", "aXb+(c)|$"),
        ("\\*", "*", "a"),
        (".", "", "a"),
        ("../x", "", "x"),
        ("[[&|~]", "[ & | ~", "a"),
    ],
)
def test_patterns_are_read_as_docker_does(lines: str, out: str, stays: str) -> None:
    rules = Dockerignore(lines.splitlines())

    assert dict.fromkeys(out.split(), True) | dict.fromkeys(stays.split(), False) == {
        path: rules.leaves_out(path) for path in (*out.split(), *stays.split())
    }


@pytest.mark.parametrize("line", ["!", "! ", "[a", "[z-a]"])
def test_a_pattern_that_cannot_be_read_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"!|\["):
        Dockerignore([line])
    (tmp_path / "Dockerfile").touch()
    (tmp_path / ".dockerignore").write_text(line)
    with pytest.raises(CannotPack, match="cannot be read"):
        gather_context(tmp_path, "Dockerfile")


def files(folder: Path, dockerfile: str = "Dockerfile") -> list[str]:
    return [name for name, _ in gather_context(folder, dockerfile)]


def make(root: Path, **contents: str) -> None:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_context_is_the_folder_without_what_any_of_the_files_leaves_out(tmp_path: Path) -> None:
    make(
        tmp_path,
        **{
            "Dockerfile": "FROM x",
            ".dockerignore": "docs\n*.log\n!keep.log\n",
            ".gitignore": "*.pt\n",
            "handler.py": "",
            "docs/a.md": "",
            "a.log": "",
            "keep.log": "",
            "sub/b.log": "",
            "weights.pt": "",
            ".git/x": "",
            "__pycache__/x.pyc": "",
        },
    )

    assert [".dockerignore", ".gitignore", "Dockerfile", "handler.py", "keep.log", "sub/b.log"] == files(tmp_path)


@pytest.mark.parametrize("ignored", ["Dockerfile", "docker", "**", "*\n!x"])
def test_the_dockerfile_always_goes_in(ignored: str, tmp_path: Path) -> None:
    make(tmp_path, **{"docker/Dockerfile": "FROM x", "Dockerfile": "FROM y", ".dockerignore": ignored})

    assert "docker/Dockerfile" in files(tmp_path, "docker/Dockerfile")
    assert "Dockerfile" in files(tmp_path)


def test_a_dockerfile_may_have_rules_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, **{"gpu.Dockerfile": "", "gpu.Dockerfile.dockerignore": "a", ".dockerignore": "b", "a": "", "b": ""})

    assert {"b"} == {"a", "b"} & set(files(tmp_path, "gpu.Dockerfile"))
    assert {"a"} == {"a", "b"} & set(files(tmp_path, "a"))


def test_what_comes_back_comes_back_from_a_folder_that_is_left_out(tmp_path: Path) -> None:
    make(
        tmp_path, **{"Dockerfile": "", ".dockerignore": "*\n!app/main.py\n", "app/main.py": "", "app/x.py": "", "b": ""}
    )

    assert ["Dockerfile", "app/main.py"] == files(tmp_path)
