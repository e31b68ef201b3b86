import gzip
import io
import tarfile
from pathlib import Path

import pytest

from runyard.adapters.docker.contexts import dockerfile_in, path_in_bundle, write_context
from runyard.domain.errors import BuildFailed


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in {"app.py": b"x", "./docker/Dockerfile": b"FROM a\n", "Dockerfile.gpu": b"\xff"}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o755, 5
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_the_dockerfile_is_found_wherever_it_is(bundle: Path) -> None:
    assert "FROM a\n" == dockerfile_in(bundle, "d", path_in_bundle("docker/./Dockerfile"))


def test_a_missing_dockerfile_is_said_with_what_there_is(bundle: Path) -> None:
    with pytest.raises(BuildFailed, match=r"no Dockerfile; it has Dockerfile.gpu, docker/Dockerfile; name one"):
        dockerfile_in(bundle, "d", "Dockerfile")
    with pytest.raises(BuildFailed, match=r"Dockerfile\.gpu is not UTF-8 text"):
        dockerfile_in(bundle, "d", "Dockerfile.gpu")


@pytest.mark.parametrize("name", ["/etc/passwd", "../Dockerfile", "", "."])
def test_a_dockerfile_outside_of_the_bundle_is_none(name: str) -> None:
    with pytest.raises(BuildFailed, match="must be a path inside"):
        path_in_bundle(name)


def test_the_context_is_the_bundle_with_another_dockerfile(bundle: Path) -> None:
    out = io.BytesIO()
    write_context(bundle, "d", "docker/Dockerfile", "FROM b\n", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        files = {entry.name: (tar.extractfile(entry).read(), entry.mode) for entry in tar}  # type: ignore[union-attr]

    assert {
        "app.py": (b"x", 0o755),
        "./docker/Dockerfile": (b"FROM b\n", 0o644),
        "Dockerfile.gpu": (b"\xff", 0o755),
    } == files


def test_a_bundle_with_links_is_no_context(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)

    with pytest.raises(BuildFailed, match="neither file nor folder"):
        write_context(path, "d", "Dockerfile", "", io.BytesIO())
