import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.cli.bundle import Bundle, CannotPack, Sources, gather, pack
from runyard.cli.ignore import files_of


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def names(root: Path) -> list[str]:
    return [name for name, _ in files_of(root)]


def packed(sources: Sources, **options: int) -> tuple[Bundle, bytes]:
    out = io.BytesIO()
    return pack(sources.files, out, lambda done, total: None, **options), out.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: info for info in tar}


FILES = st.dictionaries(
    st.lists(
        st.text("abcXYZ09._-é", min_size=1, max_size=12).filter(lambda part: part.strip(".")), min_size=1, max_size=3
    ).map("/".join),
    st.binary(max_size=200),
    max_size=12,
).filter(
    lambda files: not any(f"{other}/".startswith(f"{name}/") for name in files for other in files if name != other)
)


@given(files=FILES, seed=st.randoms(use_true_random=False))
def test_the_same_sources_give_the_same_bytes_wherever_and_whenever(files: dict[str, bytes], seed: object) -> None:
    files = {f"{name}.txt": content for name, content in files.items()} | {"handler.py": b"x"}
    copies: list[tuple[Bundle, bytes]] = []
    for copy in range(2):
        with tempfile.TemporaryDirectory() as folder:
            order = list(files.items())
            seed.shuffle(order)
            root = write(Path(folder) / f"copy-{copy}", dict(order))
            for path in root.rglob("*"):
                os.utime(path, (copy * 1_000_000, copy * 1_000_000))
                path.chmod(0o700 if path.is_dir() else 0o600 + 0o44 * copy)
            copies.append(packed(gather(root, None)))

    (first, data), (second, again) = copies
    assert data == again
    assert first == second == Bundle(hashlib.sha256(data).hexdigest(), len(data))
    assert set(members(data)) == set(files)


def test_a_bundle_says_nothing_about_who_packed_it_and_when(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": "x", "run.sh": "#!/bin/sh"})
    (tmp_path / "run.sh").chmod(0o775)
    (tmp_path / "handler.py").chmod(0o660)
    _, data = packed(gather(tmp_path, None))

    found = members(data)
    assert {(i.uid, i.gid, i.uname, i.gname, i.mtime) for i in found.values()} == {(0, 0, "", "", 0)}
    assert {name: info.mode for name, info in found.items()} == {"handler.py": 0o644, "run.sh": 0o755}
    assert data[4:8] == b"\0\0\0\0"  # The time in gzip's header.
    assert gzip.decompress(data)


def test_what_the_ignore_files_leave_out_is_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".gitignore": "*.log\n/build/\nweights/\n!keep.log\n# comment\n\n",
            ".runpodignore": "tests\n!weights/\n",
            "handler.py": "",
            "a.log": "",
            "keep.log": "",
            "build/out": "",
            "src/build/out": "",
            "src/a.log": "",
            "src/.gitignore": "!a.log\n/only-here.txt\n",
            "src/only-here.txt": "",
            "src/deep/only-here.txt": "",
            "tests/test_x.py": "",
            "weights/model.bin": "",
            ".git/HEAD": "",
            ".venv/bin/python": "",
            "src/__pycache__/x.pyc": "",
        },
    )

    assert names(tmp_path) == [
        ".gitignore",
        ".runpodignore",
        "handler.py",
        "keep.log",
        "src/.gitignore",
        "src/a.log",
        "src/build/out",
        "src/deep/only-here.txt",
        "weights/model.bin",
    ]


def test_nothing_comes_back_from_a_folder_that_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "data/\n", "data/.gitignore": "!x\n", "data/x": "", "handler.py": ""})

    assert names(tmp_path) == [".gitignore", "handler.py"]


def test_special_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": ""})
    os.mkfifo(tmp_path / "pipe")

    assert names(tmp_path) == ["handler.py"]


@pytest.mark.parametrize(
    "files", [["handler.py", "rp_handler.py"], ["rp_handler.py", "src/handler.py"], ["src/handler.py"]]
)
def test_the_handler_is_found_by_its_usual_names(tmp_path: Path, files: list[str]) -> None:
    write(tmp_path, dict.fromkeys(files, ""))

    assert gather(tmp_path, None).handler == files[0]


def test_the_handler_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": "", "app/main.py": "", "secret.py": "", ".gitignore": "secret.py"})

    assert gather(tmp_path, "./app/main.py").handler == "app/main.py"
    with pytest.raises(CannotPack, match="no file other"):
        gather(tmp_path, "other.py")
    with pytest.raises(CannotPack, match="an ignore file leaves it out"):
        gather(tmp_path, "secret.py")
    with pytest.raises(CannotPack, match="is outside"):
        gather(tmp_path, "../handler.py")


def test_what_is_neither_file_nor_folder_is_refused() -> None:
    with pytest.raises(CannotPack, match="neither a file nor a folder"):
        gather(Path("/dev/null"), None)


def test_a_folder_without_a_handler_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": ""})

    with pytest.raises(CannotPack, match="--handler"):
        gather(tmp_path, None)


def test_a_file_is_packed_with_the_requirements_beside_it(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "", "requirements.txt": "", "other.py": ""})
    with_requirements = gather(tmp_path / "main.py", None)
    (tmp_path / "requirements.txt").unlink()
    alone = gather(tmp_path / "main.py", "main.py")

    assert ([name for name, _ in with_requirements.files], with_requirements.handler) == (
        ["main.py", "requirements.txt"],
        "main.py",
    )
    assert [name for name, _ in alone.files] == ["main.py"]
    with pytest.raises(CannotPack, match="deploy the folder"):
        gather(tmp_path / "main.py", "other.py")


def test_a_link_to_a_file_of_the_folder_is_packed_as_that_file(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": "", "a/data.txt": "x"})
    (tmp_path / "data.txt").symlink_to("a/data.txt")
    (tmp_path / "again.txt").symlink_to(tmp_path / "data.txt")
    _, data = packed(gather(tmp_path, None))

    assert {name: info.isreg() and info.size for name, info in members(data).items()} == {
        "a/data.txt": 1,
        "again.txt": 1,
        "data.txt": 1,
        "handler.py": 0,
    }


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "loop", "a/../../outside", "a", "nowhere", "."])
def test_any_other_link_is_refused_by_name(tmp_path: Path, target: str) -> None:
    root = write(tmp_path / "root", {"handler.py": "", "a/b": ""})
    write(tmp_path, {"outside": "secret"})
    (root / "loop").symlink_to(target)

    with pytest.raises(CannotPack, match="loop is a link"):
        gather(root, None)
    write(root, {".runpodignore": "loop"})
    assert gather(root, None).handler == "handler.py"


def test_a_bundle_that_is_too_large_names_its_largest_files(tmp_path: Path) -> None:
    sizes = {"small.bin": 1_000, "large.bin": 3_000_000, "larger.bin": 4_000_000}
    write(tmp_path, {"handler.py": ""} | {name: os.urandom(size) for name, size in sizes.items()})

    with pytest.raises(
        CannotPack, match=r"4\.0 MB  larger\.bin\n +3\.0 MB  large\.bin\n +0\.0 MB  small\.bin"
    ) as refusal:
        packed(gather(tmp_path, None), bytes_max=1 << 20)
    assert "larger than 1 MB" in str(refusal.value)


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": "", "gone": ""})
    sources = gather(tmp_path, None)
    (tmp_path / "gone").unlink()

    with pytest.raises(CannotPack, match="cannot read the sources"):
        packed(sources)


def test_an_ignore_file_with_a_pattern_that_means_nothing_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": "", ".gitignore": "!"})

    with pytest.raises(CannotPack, match="ignore file"):
        gather(tmp_path, None)


def test_modes_are_those_of_ordinary_files(tmp_path: Path) -> None:
    write(tmp_path, {"handler.py": ""})
    (tmp_path / "handler.py").chmod(stat.S_ISUID | 0o777)
    _, data = packed(gather(tmp_path, None))

    assert members(data)["handler.py"].mode == 0o755
