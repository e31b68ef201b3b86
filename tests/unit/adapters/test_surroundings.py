from pathlib import Path

from runyard.adapters.runtimes import surroundings
from runyard.adapters.runtimes.rooms import Room

ENVIRONMENT = Path("/environments/e")
HOST = {
    "PATH": "/usr/bin",
    "HOME": "/root",
    "SSL_CERT_FILE": "/etc/ca.pem",
    "HTTPS_PROXY": "http://proxy",
    "RUNYARD_SECRET": "x",
    "PYTHONDONTWRITEBYTECODE": "1",
    "AWS_SECRET_ACCESS_KEY": "x",
}


def test_a_worker_gets_the_launch_and_little_of_the_host() -> None:
    room = Room(Path("/w"), None)

    assert surroundings.of_worker(room, ENVIRONMENT, {"A": "1"}, HOST) == {
        "PATH": "/environments/e/bin:/usr/bin",
        "LANG": "C.UTF-8",
        "HOME": "/w/home",
        "TMPDIR": "/w/tmp",
        "USER": "worker",
        "LOGNAME": "worker",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "A": "1",
    }


def test_the_launch_wins() -> None:
    room = Room(Path("/w"), None)
    wanted = {"PATH": "/mine", "HOME": "/models", "LANG": "de_DE.UTF-8"}

    assert wanted.items() <= surroundings.of_worker(room, ENVIRONMENT, wanted, HOST).items()


def test_a_build_finds_the_way_to_the_network() -> None:
    env = surroundings.of_build(Room(Path("/b"), 200_001), HOST)

    assert env["HTTPS_PROXY"] == "http://proxy"
    assert env["TMPDIR"] == "/tmp"
    assert env["HOME"] == "/b/home"
