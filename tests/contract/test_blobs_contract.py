"""What every `Blobs` promises."""

import hashlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.adapters.blobs import FolderBlobs
from runyard.domain.errors import BadRequest, NotFound, TooLarge
from runyard.ports.stores import Blobs
from tests.runtime_kit import chunked

DATA = bytes(range(256)) * 20_000  # More than one write.
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return FolderBlobs(tmp_path / "data" / "blobs")


async def test_bytes_come_back_as_they_were_put(blobs: Blobs) -> None:
    await blobs.put(DIGEST, chunked(DATA), bytes_max=len(DATA))

    assert await blobs.exists(DIGEST)
    assert (await blobs.path(DIGEST)).read_bytes() == DATA


async def test_an_empty_blob_is_one_too(blobs: Blobs) -> None:
    digest = hashlib.sha256().hexdigest()
    await blobs.put(digest, chunked(b""), bytes_max=0)

    assert (await blobs.path(digest)).read_bytes() == b""


async def test_putting_again_changes_nothing(blobs: Blobs) -> None:
    await blobs.put(DIGEST, chunked(DATA), bytes_max=len(DATA))
    await blobs.put(DIGEST, chunked(DATA), bytes_max=len(DATA))

    assert (await blobs.path(DIGEST)).read_bytes() == DATA


async def test_what_was_not_put_is_not_there(blobs: Blobs) -> None:
    assert not await blobs.exists(DIGEST)
    with pytest.raises(NotFound, match=DIGEST):
        await blobs.path(DIGEST)


async def test_bytes_of_another_digest_are_refused_and_forgotten(blobs: Blobs) -> None:
    with pytest.raises(BadRequest, match=DIGEST):
        await blobs.put(DIGEST, chunked(DATA + b"!"), bytes_max=1 << 30)

    assert not await blobs.exists(DIGEST)


async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(blobs: Blobs) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield bytes(1000)

    with pytest.raises(TooLarge, match="10000 bytes"):
        await blobs.put(DIGEST, endless(), bytes_max=10_000)
    assert read == 11_000


async def test_a_body_that_breaks_off_leaves_nothing(blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await blobs.put(DIGEST, broken(), bytes_max=1 << 30)
    assert not await blobs.exists(DIGEST)


@pytest.mark.parametrize("digest", ["", "abc", "../" + "a" * 61, "A" * 64, "a" * 64 + "\n"])
async def test_only_a_digest_names_a_blob(blobs: Blobs, digest: str) -> None:
    with pytest.raises(BadRequest):
        await blobs.put(digest, chunked(b""), bytes_max=1)
    with pytest.raises(BadRequest):
        await blobs.exists(digest)
    with pytest.raises(BadRequest):
        await blobs.path(digest)


async def test_a_folder_is_private_and_cleared_of_what_an_interrupted_put_left(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    blobs = FolderBlobs(root)
    await blobs.put(DIGEST, chunked(DATA), bytes_max=len(DATA))
    (root / "interrupted.part").write_bytes(b"half")

    assert await FolderBlobs(root).exists(DIGEST)
    assert [path.name for path in root.iterdir()] == [DIGEST]
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / DIGEST).stat().st_mode) == 0o600
