import pytest

from runyard.adapters.docker.credentials import Login
from runyard.adapters.docker.engine import EngineError
from runyard.adapters.docker.faults import of_pull

LOGIN = Login("reg-1", {})


# As Engine 20.10 says it, or newer ones and the registries that people use.
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("manifest for 127.0.0.1:5000/a:nope not found: manifest unknown: manifest unknown", "image_not_found"),
        (
            "pull access denied for nosuch, repository does not exist or may require 'docker login': denied: no",
            "image_not_found",
        ),
        ('Head "http://127.0.0.1:5000/v2/a/manifests/1": no basic auth credentials', "registry_denied"),
        ("unauthorized: authentication required", "registry_denied"),
        ('Head "https://ghcr.io/v2/a/b/manifests/1": denied', "registry_denied"),
        (
            'Get "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused',
            "registry_unreachable",
        ),
        (
            'Get "https://x.invalid/v2/": dial tcp: lookup x.invalid on 10.0.0.1:53: no such host',
            "registry_unreachable",
        ),
        ('Get "https://x/v2/": x509: certificate signed by unknown authority', "registry_unreachable"),
        ("received unexpected HTTP status: 502 Bad Gateway", "registry_unreachable"),
        ("toomanyrequests: You have reached your pull rate limit.", "registry_busy"),
        ("no matching manifest for linux/amd64 in the manifest list entries", "wrong_platform"),
        ("failed to register layer: write /a: no space left on device", "disk_full"),
        ("filesystem layer verification failed for digest sha256:1", "pull_failed"),
    ],
)
def test_what_an_engine_says_is_something_to_act_on(said: str, code: str) -> None:
    failed = of_pull(EngineError(500, said), "127.0.0.1:5000/a:1", None, begun=False)

    assert code == failed.code
    assert f"({said})" in failed.message
    assert "127.0.0.1:5000/a:1" in failed.message


def test_what_breaks_off_is_no_registry_that_is_away() -> None:
    said = EngineError(200, 'Get "http://127.0.0.1:5000/v2/a/blobs/sha256:1": EOF')

    assert "pull_failed" == of_pull(said, "127.0.0.1:5000/a:1", None, begun=True).code


@pytest.mark.parametrize("said", ["unauthorized: incorrect username or password", "pull access denied for me/app"])
def test_a_refused_credential_is_named(said: str) -> None:
    failed = of_pull(EngineError(500, said), "me/app:1", LOGIN, begun=False)

    assert "registry_denied" == failed.code
    assert "Docker Hub refuses the registry credential reg-1 for me/app:1" in failed.message
