from typing import Any

from runyard.adapters.docker.progress import PullProgress

M = 1_000_000


def of(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    return {"id": layer, "status": status, "progressDetail": {"current": current, "total": total} if total else {}}


def test_a_line_comes_every_other_second() -> None:
    progress = PullProgress("app:1", 0.0)
    said = [progress.take(of("a", "Downloading", n * M, 90 * M), n / 10) for n in range(61)]

    assert [
        (20, "pulling app:1: 0 of 1 layers, 20 of 90 MB"),
        (40, "pulling app:1: 0 of 1 layers, 40 of 90 MB"),
        (60, "pulling app:1: 0 of 1 layers, 60 of 90 MB"),
    ] == [(n, line) for n, line in enumerate(said) if line is not None]


def test_layers_are_counted_as_they_are_done() -> None:
    progress = PullProgress("app:1", 0.0)
    for layer in "abc":
        progress.take(of(layer, "Pulling fs layer"), 0.1)
    progress.take(of("a", "Already exists"), 0.2)

    assert not progress.begun
    assert "pulling app:1: 1 of 3 layers, 0.1 of 1.5 MB or more" == progress.take(
        of("b", "Downloading", M // 10, 3 * M // 2), 3
    )
    assert progress.begun
    progress.take(of("c", "Downloading", M, 100 * M), 3)
    progress.take(of("b", "Pull complete"), 3)
    assert "pulling app:1: 2 of 3 layers, 2.5 of 102 MB" == progress.take(of("c", "Downloading", M, 100 * M), 5)
    assert "pulling app:1: 2 of 3 layers, 102 MB are here and being unpacked" == progress.take(
        of("c", "Extracting", M, 100 * M), 7
    )


def test_a_broken_connection_is_told() -> None:
    progress = PullProgress("app:1", 0.0)
    progress.take(of("a", "Downloading", 1, 9), 0.1)

    assert "pulling app:1: 0 of 1 layers; the connection broke, and the Engine tries again" == progress.take(
        of("a", "Retrying in 5 seconds"), 2.5
    )
    assert "pulling app:1: 0 of 1 layers, 20 of 90 MB" == progress.take(of("a", "Downloading", 20 * M, 90 * M), 5)


def test_other_words_are_no_layers() -> None:
    progress = PullProgress("app:1", 0.0)
    said = [
        progress.take({"status": "Pulling from library/app", "id": "1"}, 9),
        progress.take({"status": "Digest: sha256:abc"}, 9),
        progress.take({"status": "Status: Downloaded newer image for app:1"}, 9),
        progress.take({}, 9),
    ]

    assert [None] * 4 == said
    assert "sha256:abc" == progress.digest
    assert "pulled app:1: 812 MB in 12.5 s" == progress.end(812 * M, 12.5)


def test_an_image_that_was_here_is_not_said_to_have_come() -> None:
    progress = PullProgress("app:1", 0.0)
    progress.take({"status": "Status: Image is up to date for app:1"}, 1)

    assert "pulled app:1: it was here already, and is up to date" == progress.end(812 * M, 2)
