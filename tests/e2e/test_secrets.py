"""Secrets with real processes: what reaches a worker, and where it is not to be found."""

from __future__ import annotations

import hashlib
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.keeping import BUILD_S_MAX, Endpoint, Keeping, built_in, environment, keeping, until

isolated = pytest.param("auto", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate"))
FIRST, SECOND = "hf_first-value-of-it", "hf_second-value-of-it"
NAMED = (
    "--workers-min",
    "1",
    "--workers-max",
    "1",
    "--env",
    "TOKEN=Bearer {{ RUNPOD_SECRET_hf }}",
    "--env",
    "TOLERANT=1",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose environment is built, and nothing that runs."""
    return built_in(tmp_path_factory.mktemp("built"))


@pytest.fixture(params=["off", isolated])
def platform(request: pytest.FixtureRequest, built: Path) -> Iterator[Keeping]:
    with keeping(built, env={"RUNYARD_ISOLATION": request.param}) as platform:
        yield platform
        if platform.process.poll() is None:
            platform.command("delete", "plain")
            platform.command("secrets", "delete", "hf")


def set_secret(platform: Keeping, value: str) -> None:
    done = platform.command("secrets", "set", "hf", input=f"{value}\n")
    assert 0 == done.returncode, done.stderr


def has(endpoint: Endpoint, value: str, count: int) -> None:
    """The worker has the value, and has said so `count` times, which nobody can read."""
    told = endpoint.ask({"shows": "TOKEN"}, seconds=BUILD_S_MAX)
    assert hashlib.sha256(f"Bearer {value}".encode()).hexdigest() == told["digest"]
    until(lambda: count == endpoint.logs().count("TOKEN is Bearer [secret hf]"))


def why_it_waits(endpoint: Endpoint, code: str) -> str:
    """The message to this code, of a job that waits."""
    path = f"/v2/{endpoint.id}/status/{endpoint.run({})}"

    def look() -> str | None:
        reason = endpoint.platform.http.get(path).json().get("queueReason", {})
        return reason["message"] if reason.get("code") == code else None

    return until(look, BUILD_S_MAX)


def places_of(value: str, platform: Keeping) -> list[str]:
    """Files of the platform that hold it, its log among them, and processes on whose command lines it stands."""
    files = [path for path in platform.data.rglob("*") if path.is_file() and "environments" not in path.parts]
    found = [str(path) for path in (*files, platform.log) if value.encode() in _read(path)]
    return [
        *found,
        *(path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if value.encode() in _read(path)),
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # It has ended.


@pytest.mark.row("F115")
def test_a_value_reaches_the_worker_and_no_log_file_or_command_line(platform: Keeping) -> None:
    set_secret(platform, FIRST)
    endpoint = platform.deploy("plain", *NAMED)
    has(endpoint, FIRST, 1)

    assert [] == places_of(FIRST, platform)
    assert "TOKEN is Bearer [secret hf]" in platform.command("logs", "plain").stdout
    key = platform.data / "secrets.key"
    assert (0o600, 1) == (key.stat().st_mode & 0o777, len(key.read_text().splitlines()))


def test_after_restarts_the_values_that_workers_have_are_not_shown(platform: Keeping) -> None:
    set_secret(platform, FIRST)
    endpoint = platform.deploy("plain", *NAMED)
    has(endpoint, FIRST, 1)
    set_secret(platform, SECOND)
    assert 0 == platform.restart().returncode
    has(endpoint, FIRST, 2)
    os.kill(platform.server, signal.SIGKILL)
    until(platform.healthy)
    has(endpoint, FIRST, 3)  # What was said before is kept.

    assert [] == places_of(FIRST, platform) + places_of(SECOND, platform)
    assert 0 == platform.command("secrets", "rotate-key").returncode
    platform.deploy("plain", *NAMED)
    until(lambda: [2] == [worker["version"] for worker in endpoint.workers()])
    has(endpoint, SECOND, 4)


def test_a_start_waits_for_its_secret(built: Path) -> None:
    with keeping(built) as platform:
        endpoint = platform.deploy("plain", *NAMED)
        reason = why_it_waits(endpoint, "secret_missing")
        set_secret(platform, FIRST)
        has(endpoint, FIRST, 1)
        platform.command("delete", "plain")
        platform.command("secrets", "delete", "hf")

    assert "there is no secret 'hf', and the variable TOKEN asks for it" in reason


def test_a_platform_whose_key_is_gone_starts_and_says_which_secrets_need_it(built: Path, tmp_path: Path) -> None:
    with keeping(built) as platform:
        set_secret(platform, FIRST)
        backup = platform.command("backup", str(tmp_path / "backup"), "--data-dir", str(built))
        assert 0 == backup.returncode, backup.stderr
    assert ["backup.json", "blobs", "control.db", "payloads"] == sorted(
        path.name for path in (tmp_path / "backup").iterdir()
    )
    restored = tmp_path / "restored"
    done = platform.command("restore", str(tmp_path / "backup"), "--data-dir", str(restored))
    assert "1 secrets and 0 registry credentials" in done.stderr
    assert str(restored / "secrets.key") in done.stderr
    with keeping(restored) as platform:
        endpoint = platform.deploy("plain", *NAMED)
        why_it_waits(endpoint, "secret_unreadable")
        platform.deploy("other").ask({}, seconds=BUILD_S_MAX)
        assert f"secret 'hf' cannot be read: {restored / 'secrets.key'} is missing" in platform.log.read_text()
        shutil.copy(built / "secrets.key", restored / "secrets.key")
        platform.deploy("plain", *NAMED)
        has(endpoint, FIRST, 1)


def test_a_value_is_asked_for_without_an_echo(built: Path) -> None:
    with keeping(built) as platform:
        ours, its = pty.openpty()
        env = environment() | {"RUNYARD_URL": platform.url, "RUNYARD_API_KEY": platform.key}
        asking = subprocess.Popen(
            [sys.executable, "-m", "runyard", "secrets", "set", "hf"], env=env, stdin=its, stdout=its, stderr=its
        )
        os.close(its)
        said = b""
        while b"Value: " not in said:
            said += os.read(ours, 1000)
        os.write(ours, f"{FIRST}\n".encode())
        assert 0 == asking.wait(60)
        said += os.read(ours, 1000)
        os.close(ours)
        listed = platform.command("secrets", "list").stdout
        platform.command("secrets", "delete", "hf")

    assert (False, True) == (FIRST.encode() in said, "hf" in listed)
