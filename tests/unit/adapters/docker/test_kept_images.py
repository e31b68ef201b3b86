from pathlib import Path

import pytest

from runyard.adapters.docker.kept_images import WRITTEN_EVERY_S, KeptImages


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def seen(images: KeptImages) -> dict[str, tuple[float, set[str]]]:
    return {image.id: (image.used_at, image.names) for image in images}


def test_images_are_remembered(tmp_path: Path) -> None:
    time = Time()
    images = KeptImages(tmp_path / "new/images.json", time)
    images.keep("sha256:1", ["app:1", "app@sha256:a"])
    time.now += 5
    images.keep("sha256:2", ["app:1", "app@sha256:b"])

    assert {"sha256:1": (1000.0, {"app@sha256:a"}), "sha256:2": (1005.0, {"app:1", "app@sha256:b"})} == seen(images)
    assert seen(images) == seen(KeptImages(tmp_path / "new/images.json", time))
    assert "sha256:1" in images
    images.forget(["sha256:1", "sha256:9"])
    assert ["sha256:2"] == [image.id for image in images]


def test_use_is_noted_by_id_and_by_name_and_written_now_and_then(tmp_path: Path) -> None:
    time = Time()
    images = KeptImages(tmp_path / "images.json", time)
    images.keep("sha256:1", ["app@sha256:a"])
    time.now += 1
    images.used("app@sha256:a")
    assert 1001.0 == seen(images)["sha256:1"][0]
    assert 1000.0 == seen(KeptImages(tmp_path / "images.json", time))["sha256:1"][0]
    time.now += WRITTEN_EVERY_S
    images.used("sha256:1", "sha256:unknown")

    assert time.now == seen(KeptImages(tmp_path / "images.json", time))["sha256:1"][0]


@pytest.mark.parametrize("text", ["", "{}", '{"images": [{"id": 1}]}', "[]"])
def test_a_file_that_cannot_be_read_makes_nothing_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.json").write_text(text)

    assert {} == seen(KeptImages(tmp_path / "images.json", Time()))


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    images = KeptImages(tmp_path / "file/images.json", Time())
    images.keep("sha256:1", [])

    assert ["sha256:1"] == [image.id for image in images]
