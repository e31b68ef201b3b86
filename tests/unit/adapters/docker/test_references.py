import pytest

from runyard.adapters.docker.references import (
    given,
    is_reference,
    parts_to_pull,
    pinned,
    registry_of,
    repository_of,
    server_of,
)

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("image", "registry", "repository"),
    [
        ("python", "docker.io", "docker.io/library/python"),
        ("python:3.11", "docker.io", "docker.io/library/python"),
        ("docker.io/library/python", "docker.io", "docker.io/library/python"),
        ("index.docker.io/me/app:1", "docker.io", "docker.io/me/app"),
        ("me/app", "docker.io", "docker.io/me/app"),
        ("127.0.0.1:5000/team/app:1", "127.0.0.1:5000", "127.0.0.1:5000/team/app"),
        (f"ghcr.io/a/b@{A}", "ghcr.io", "ghcr.io/a/b"),
        ("localhost/app", "localhost", "localhost/app"),
    ],
)
def test_a_reference_names_a_repository_of_a_registry(image: str, registry: str, repository: str) -> None:
    assert (registry, repository) == (registry_of(image), repository_of(image))


@pytest.mark.parametrize("address", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", "DOCKER.IO"])
def test_docker_hub_has_many_names(address: str) -> None:
    assert "docker.io" == server_of(address)


def test_a_server_may_be_written_with_scheme_and_path() -> None:
    assert "127.0.0.1:5000" == server_of("http://127.0.0.1:5000/v2/")


def test_a_pull_is_never_one_of_all_tags() -> None:
    assert ("python", "latest") == parts_to_pull("python")
    assert ("ghcr.io/a/b", "2") == parts_to_pull("ghcr.io/a/b:2")
    assert ("ghcr.io/a/b", A) == parts_to_pull(f"ghcr.io/a/b:2@{A}")


def test_an_image_is_pinned_by_the_digest_of_its_own_repository() -> None:
    known = ["<none>@<none>", f"Not a reference@{A}", f"ghcr.io/other/app@{A}", f"app@{B}", f"app@{A}"]

    assert f"app@{B}" == pinned("docker.io/library/app:1", known)
    assert f"app@{A}" == pinned("app:1", known, A)
    assert f"app@{A}" == pinned(f"app:1@{A}", known)
    assert f"app@{B}" == pinned("app:1", known, "sha256:" + "c" * 64)


def test_what_no_registry_knows_is_not_pinned_by_digest() -> None:
    assert None is pinned("app:1", [f"ghcr.io/app@{A}", "<none>@<none>"])


def test_a_pull_gives_the_name_that_it_asked_for() -> None:
    tags = ["app:1", "app:2", "ghcr.io/me/app:1", "<none>:<none>"]

    assert ["app:1"] == given(tags, "docker.io/library/app:1")
    assert [] == given(tags, f"app@{A}")


@pytest.mark.parametrize("image", ["python:3.11", f"ghcr.io/a/b@{A}", "localhost:5000/app"])
def test_what_can_name_an_image(image: str) -> None:
    assert is_reference(image)


@pytest.mark.parametrize("image", ["../info?x=", "a/../../info", "a?b", "a#b", "a%2fb", "a\0b", "Upper", ""])
def test_what_can_name_none(image: str) -> None:
    assert not is_reference(image)
